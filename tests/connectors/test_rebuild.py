"""Raw from the landing alone: the same rows, whatever happened on the way; or an error, and raw as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import ConfigurationError, ContractViolationError, LandingCorruptError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, LandingFormat, Window, WriteDisposition
from connectors.rebuild import rebuild
from tests.conftest import Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    drop,
    erp,
    load,
    load_table,
    order,
    raw,
    shop_source,
    weather,
)

LEDGER = ("loads", "watermarks", "files", "schema_changes", "quarantine")


def ledger(warehouse: Warehouse) -> list[object]:
    return [warehouse.query(f"select * from ops.{table} order by 1, 2, 3") for table in LEDGER]


def test_documents_with_a_history_come_out_as_they_were(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(reject_limit=0.5)
    shop = Shop(api, [order(n, total=n) for n in range(10)] + [order(20, at="noon")])
    load(source, api, destination)
    shop.orders[3] = order(3, total=3.25, note="now with a fraction", changed="2024-02-01T00:00:00Z")
    load(source, api, destination)
    shop.orders += [order(30, total=day, changed=f"2024-03-0{day}T00:00:00Z") for day in (1, 2)]
    load(source, api, destination)
    shop.orders[4] = order(4, total=-1)
    load(source, api, destination, window=Window.parse("2024-01-01", "2024-01-02"))
    before = raw(warehouse), ledger(warehouse)
    asked = len(api.requests)
    warehouse.execute("drop table raw_shop.orders")
    report = rebuild(source, source.streams[0], destination)
    assert (report.loads, report.rows) == (4, 11)
    assert (raw(warehouse), ledger(warehouse)) == before
    assert len(api.requests) == asked, "the source was not asked"


def test_a_damaged_table_is_put_right_while_readers_see_it(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(n, total=n) for n in range(10)])
    load(shop_source(), api, destination)
    before = raw(warehouse)
    with warehouse.connect("transformer") as connection:
        connection.execute("create schema staging; create view staging.orders as select * from raw_shop.orders")
    warehouse.execute("delete from raw_shop.orders where id < 5; update raw_shop.orders set total = 0")
    rebuild(shop_source(), shop_source().streams[0], destination)
    assert raw(warehouse) == before == raw(warehouse, table="staging.orders")


@pytest.mark.parametrize("write", list(WriteDisposition))
def test_tables_of_every_disposition_come_out_as_they_were(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, write: WriteDisposition
) -> None:
    connection = source_database(
        "create table t (id int primary key, v numeric, changed timestamptz default now());"
        "insert into t select n, n, '2024-01-01Z' from generate_series(1, 500) n"
    )
    cursor = Cursor("changed") if write is WriteDisposition.MERGE else None
    key = () if write is WriteDisposition.APPEND else ("id",)
    source = erp(name="t", primary_key=key, write=write, cursor=cursor)
    load_table(source, connection, warehouse, destination)
    connection.execute("update t set v = 'NaN', changed = '2024-02-01Z' where id % 7 = 0; delete from t where id > 450")
    load_table(source, connection, warehouse, destination)
    load_table(source, connection, warehouse, destination)
    columns = "id, v::text, changed, _load_id, _loaded_at"
    before = sorted(raw(warehouse, columns, "raw_erp.t")), ledger(warehouse)
    connection.execute("drop table t")
    warehouse.execute("drop table raw_erp.t")
    rebuild(source, source.streams[0], destination)
    assert (sorted(raw(warehouse, columns, "raw_erp.t")), ledger(warehouse)) == before


@pytest.mark.parametrize("landing", [LandingFormat.PGCOPY, LandingFormat.PARQUET])
def test_a_load_of_many_segments_comes_out_as_it_was(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    monkeypatch: pytest.MonkeyPatch,
    landing: LandingFormat,
) -> None:
    """The landing's blocks do not end where rows do."""
    monkeypatch.setattr("connectors.destinations.warehouse.attempt.SEGMENT_BYTES", 50_000)
    monkeypatch.setattr("connectors.destinations.landing._PART_BYTES", 300_000)
    monkeypatch.setattr("connectors.formats.compression._BLOCK_BYTES", 10_000)
    connection = source_database(
        "create table t (id int primary key, v text);"
        "insert into t select n, md5(n::text) from generate_series(1, 20000) n"
    )
    source = erp(name="t", primary_key=("id",), landing=landing)
    load_table(source, connection, warehouse, destination)
    before = raw(warehouse, "*", "raw_erp.t")
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, "*", "raw_erp.t") == before
    assert len(before) == 20_000


def test_files_come_out_as_they_were(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder)
    for temp in ("1.50", "2.75", "NA"):
        drop(folder, {"weather-2013-01-01.csv": f"station,hour,temp\nEWR,2013-01-01T00:00Z,{temp}\n"})
        drop(folder, {"weather-2013-01-02.csv": "station,hour,temp\nEWR,2013-01-02T00:00Z,3\n"})
        ingest(source, source.streams[0], where, destination)
    before = raw(warehouse, table="raw_met.weather"), ledger(warehouse)
    warehouse.execute("drop table raw_met.weather")
    rebuild(source, source.streams[0], destination)
    assert (raw(warehouse, table="raw_met.weather"), ledger(warehouse)) == before


@pytest.mark.parametrize("what", ["manifest.json", "a1-00001.jsonl.zst"])
def test_a_hole_in_the_landing_is_named_and_raw_stays(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path, what: str
) -> None:
    shop = Shop(api, [order(1)])
    load(shop_source(), api, destination)
    shop.orders.append(order(2, changed="2024-02-01T00:00:00Z"))
    load(shop_source(), api, destination)
    before = raw(warehouse), ledger(warehouse)
    lost = max(landing_folder.rglob(what))
    lost.unlink()
    with pytest.raises(LandingCorruptError, match=f"{lost.relative_to(landing_folder)} is missing"):
        rebuild(shop_source(), shop_source().streams[0], destination)
    assert (raw(warehouse), ledger(warehouse)) == before
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]


def test_a_stream_that_was_never_loaded_rebuilds_to_nothing(destination: Destination) -> None:
    report = rebuild(shop_source(), shop_source().streams[0], destination)
    assert (report.loads, report.rows) == (0, 0)


def test_a_type_that_was_declared_since_holds_after_a_rebuild_and_until_then_loads_say_that_it_does_not(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    kind = "select distinct pg_typeof(temp)::text from raw_met.weather"
    folder = tmp_path / "files"
    source, where = weather(folder, columns={"hour": "timestamptz"})
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1.50\n"})
    ingest(source, source.streams[0], where, destination)
    assert not caplog.messages
    with warehouse.connect("transformer") as connection:
        connection.execute(
            "create schema staging; create view staging.weather as select * from raw_met.weather;"
            "create view staging.warm as select * from staging.weather"
        )
    source, where = weather(folder, columns={"hour": "timestamptz", "temp": "numeric"})
    drop(folder, {"weather-2013-01-02.csv": "station,hour,temp\nEWR,2013-01-02T00:00Z,3\n"})
    ingest(source, source.streams[0], where, destination)
    assert "has `temp` as numeric, and raw has it as text until `headwater rebuild met.weather`" in caplog.text
    assert warehouse.query(kind) == [("text",)]
    caplog.clear()
    assert rebuild(source, source.streams[0], destination).rows == 2
    [said] = caplog.messages
    assert "run transform, which makes dbt's anew: staging.warm, staging.weather." in said
    caplog.clear()
    assert warehouse.query(kind) == [("numeric",)]
    assert warehouse.query("select has_table_privilege('headwater_transformer', 'raw_met.weather', 'select')") == [
        (True,)
    ]
    drop(folder, {"weather-2013-01-03.csv": "station,hour,temp\nEWR,2013-01-03T00:00Z,4\n"})
    assert ingest(source, source.streams[0], where, destination)[-1].inserted == 1
    assert not caplog.messages


def test_rows_that_were_loaded_and_fit_no_more_fail_a_rebuild_and_raw_stays(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, columns={"hour": "timestamptz"}, nulls=("",))
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1.50\nJFK,,\n"})
    drop(folder, {"weather-2013-01-02.csv": "station,hour,temp\nEWR,2013-01-02T00:00Z,mild\n"})
    tolerant, _ = weather(folder, columns={"hour": "timestamptz"}, nulls=("",), reject_limit=0.5)
    ingest(tolerant, tolerant.streams[0], where, destination)
    before = raw(warehouse, "*", "raw_met.weather"), ledger(warehouse)
    typed, _ = weather(folder, nulls=("",))
    with pytest.raises(ContractViolationError, match=r'1 rows that were loaded do not fit .*column temp: .*"mild"'):
        rebuild(typed, typed.streams[0], destination)
    assert (raw(warehouse, "*", "raw_met.weather"), ledger(warehouse)) == before
    assert rebuild(source, source.streams[0], destination).rows == 2


def test_a_column_that_changed_its_kind_at_the_source_is_followed_by_a_declaration_and_a_rebuild(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int primary key, v int); insert into t values (1, 1)")
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t alter v type text; insert into t values (2, 'two')")
    declared = erp(name="t", primary_key=("id",), columns={"v": "text"})
    for each in (source, declared):
        with pytest.raises(ContractViolationError, match="from integer to text, .*`headwater rebuild erp.t`"):
            load_table(each, connection, warehouse, destination)
    rebuild(declared, declared.streams[0], destination)
    load_table(declared, connection, warehouse, destination)
    assert raw(warehouse, "id, v", "raw_erp.t") == [(1, "1"), (2, "two")]


def test_a_table_that_was_dropped_is_not_begun_anew_with_what_is_new(
    source_database: Prepare, tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, changed timestamptz);"
        "insert into t select n, '2024-01-01Z'::timestamptz + n * interval '1 hour' from generate_series(1, 9) n"
    )
    source = erp(name="t", primary_key=("id",), cursor=Cursor("changed"))
    load_table(source, connection, warehouse, destination)
    connection.execute("insert into t values (10, '2024-02-01Z')")
    warehouse.execute("drop table raw_erp.t")
    with pytest.raises(ConfigurationError, match=r"raw_erp\.t is gone, .*`headwater rebuild erp\.t`"):
        load_table(source, connection, warehouse, destination)
    rebuild(source, source.streams[0], destination)
    assert load_table(source, connection, warehouse, destination).inserted == 1
    assert len(raw(warehouse, "id", "raw_erp.t")) == 10
    files, where = weather(tmp_path / "files")
    drop(tmp_path / "files", {"weather-2013-01-01.csv": "station,hour,temp\n"})
    assert ingest(files, files.streams[0], where, destination)[-1].extracted == 0, "so there is no table yet"
    for day in ("02", "03"):
        name = f"weather-2013-01-{day}.csv"
        drop(tmp_path / "files", {name: f"station,hour,temp\nEWR,2013-01-{day}T00:00Z,1\n"})
        if day == "02":
            ingest(files, files.streams[0], where, destination)
            warehouse.execute("drop table raw_met.weather")
    with pytest.raises(ConfigurationError, match="with full_refresh"):
        ingest(files, files.streams[0], where, destination)
    ingest(files, files.streams[0], where, destination, full_refresh=True)
    assert len(raw(warehouse, "*", "raw_met.weather")) == 2
