"""Parquet as the landing format of a database: what other engines find there, and raw from it again.

That every type comes back to the last bit is in `test_round_trip.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.errors import ConfigurationError, LandingCorruptError
from connectors.export import ExportFormat, export
from connectors.formats.parquet_rows import csv_of
from connectors.ingest import Destination
from connectors.model import Cursor, LandingFormat, SchemaContract, WriteDisposition
from connectors.postgres import PostgresSource
from connectors.rebuild import rebuild
from connectors.replay import replay
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, counts, erp, load_table, raw, shop_source
from tests.connectors.sql.sql_databases import Sqlite, load_sql, sql_erp

PARQUET = LandingFormat.PARQUET


def table(**definition: Any) -> PostgresSource:
    return erp(**{"name": "t", "primary_key": ("id",), "landing": PARQUET, **definition})


def landed(folder: Path) -> list[Path]:
    """The objects of the only load."""
    [manifest] = folder.rglob("manifest.json")
    content = json.loads(manifest.read_bytes())
    assert content["landing_format"] == "parquet"
    return [folder / each["key"] for each in content["objects"]]


def test_other_engines_find_types_where_parquet_has_them(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    connection = source_database(
        "create table t (id int primary key, n numeric(10,2), free numeric, at timestamptz, day date, clock time(3),"
        " ok boolean, b bytea, d float8, tags text[], span interval, j jsonb, note text);"
        "insert into t values (1, 1.20, 'NaN', '2024-01-02 03:04:05.6Z', '2024-02-29', '12:34:56.789', true, '\\xff00',"
        " 'NaN', '{a,NULL}', '1 mon', '{\"a\": 1.50}', ''); insert into t (id) values (2)"
    )
    load_table(table(), connection, warehouse, destination)
    [path] = landed(landing_folder)
    assert path.name == "a1-00001.parquet"
    found = pq.read_table(path, use_threads=False)
    assert {field.name: str(field.type) for field in found.schema} == {
        "id": "int32",
        "n": "decimal128(10, 2)",
        "free": "string",
        "at": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "clock": "time64[us]",
        "ok": "bool",
        "b": "binary",
        "d": "double",
        "tags": "string",
        "span": "string",
        "j": "string",
        "note": "string",
    }
    assert found.schema.field("span").metadata == {b"postgres_type": b"interval"}
    row = {name: str(value) for name, value in found.to_pylist()[0].items()}
    assert row == {
        "id": "1",
        "n": "1.20",
        "free": "NaN",
        "at": "2024-01-02 03:04:05.600000+00:00",
        "day": "2024-02-29",
        "clock": "12:34:56.789000",
        "ok": "True",
        "b": "b'\\xff\\x00'",
        "d": "nan",
        "tags": "{a,NULL}",
        "span": "1 mon",
        "j": '{"a": 1.50}',
        "note": "",
    }
    assert set(found.to_pylist()[1].values()) == {2, None}


def test_a_value_without_a_twin_makes_a_text_of_its_column_from_there_on(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connectors.postgres.source._CHUNK_BYTES", 1000)
    monkeypatch.setattr("connectors.formats.parquet_rows._GROUP_BYTES", 10_000)
    connection = source_database(
        "create table t (id int primary key, n numeric(10,2), at timestamp);"
        "insert into t select n, n / 7.0, '2024-01-01'::timestamp + n * interval '1 s' from generate_series(1, 2000) n;"
        "update t set n = 'NaN' where id = 1000; update t set at = 'infinity' where id = 1500;"
        "create table sorted as select * from t order by id"
    )
    report = load_table(table(table="sorted"), connection, warehouse, destination)
    assert counts(report)[:2] == (2000, 2000)
    objects = [pq.ParquetFile(path) for path in landed(landing_folder)]
    kinds = [[str(each.schema_arrow.field(name).type) for name in ("n", "at")] for each in objects]
    assert kinds == [
        ["decimal128(10, 2)", "timestamp[us]"],
        ["string", "timestamp[us]"],
        ["string", "string"],
    ]
    assert [each.metadata.num_row_groups > 1 for each in objects] == [True, True, True]
    before = raw(warehouse, "t::text", "raw_erp.t t")
    rebuild(table(), table().streams[0], destination)
    assert raw(warehouse, "t::text", "raw_erp.t t") == before
    there = [text for (text,) in connection.execute("select t::text from sorted t order by id")]
    here = [text for (text,) in warehouse.query("select row(id, n, at)::text from raw_erp.t order by id")]
    assert here == there


@pytest.mark.parametrize("write", list(WriteDisposition))
def test_loads_of_every_disposition_are_repeated_from_it(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, write: WriteDisposition
) -> None:
    connection = source_database(
        "create table t (id int primary key, v numeric, changed timestamptz default now());"
        "insert into t select n, n, '2024-01-01Z' from generate_series(1, 500) n"
    )
    cursor = Cursor("changed") if write is WriteDisposition.MERGE else None
    source = table(write=write, cursor=cursor, primary_key=() if write is WriteDisposition.APPEND else ("id",))
    load_table(source, connection, warehouse, destination)
    connection.execute("update t set v = 'NaN', changed = '2024-02-01Z' where id % 7 = 0; delete from t where id > 450")
    load_table(source, connection, warehouse, destination)
    columns = "id, v::text, changed, _load_id, _loaded_at"
    before = sorted(raw(warehouse, columns, "raw_erp.t"))
    connection.execute("drop table t")
    warehouse.execute("drop table raw_erp.t")
    rebuild(source, source.streams[0], destination)
    assert sorted(raw(warehouse, columns, "raw_erp.t")) == before


def test_what_was_discarded_comes_from_it_after_the_contract_was_put_right(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int primary key, v int); insert into t values (1, 10)")
    strict = table(contract=SchemaContract.DISCARD_VALUE)
    load_table(strict, connection, warehouse, destination)
    connection.execute("alter table t add more text; insert into t values (2, 20, 'new')")
    report = load_table(strict, connection, warehouse, destination)
    assert warehouse.query("select column_name, rows_discarded from ops.schema_changes") == [("more", 1)]
    [again] = replay(table(), table().streams[0], destination, load_id=report.load_id)
    assert again.extracted == 2
    assert raw(warehouse, "id, v, more", "raw_erp.t") == [(1, 10, None), (2, 20, "new")]


@pytest.mark.parametrize("damage", ["cut", "altered", "longer", "gone"])
def test_a_damaged_object_is_refused_by_name(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, landing_folder: Path, damage: str
) -> None:
    connection = source_database("create table t (id int primary key); insert into t select generate_series(1, 5000)")
    load_table(table(), connection, warehouse, destination)
    [path] = landed(landing_folder)
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"cut": content[:-5], "altered": flipped, "longer": content + b"x", "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(LandingCorruptError, match=str(path.relative_to(landing_folder))):
        rebuild(table(), table().streams[0], destination)
    assert len(raw(warehouse, "id", "raw_erp.t")) == 5000


def test_databases_behind_sqlalchemy_land_as_parquet_too(
    tmp_path: Path,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A value that is not of its column's type, which SQLite allows, makes JSON of the column from there on."""
    monkeypatch.setattr("connectors.sql.source._MOST_ROWS", 10)
    database = Sqlite(tmp_path / "erp.db")
    database.execute(
        "create table t (id integer primary key, n integer, d real, s text, day date, at datetime, b blob, ok boolean)",
        "insert into t values (?, ?, ?, ?, ?, ?, ?, ?)",
        rows=[
            (n, n, n / 4, 'ä"\n', "2024-02-29", f"2024-01-01 00:00:{n:02}", b"\0\xff", n % 2) if n < 20
            else (n, "three" if n == 22 else n, n / 4, None, "2024-02-29", "2024-01-01 00:00", None, 1)
            for n in range(1, 30)
        ],
    )  # fmt: skip
    source = sql_erp(name="t", primary_key=("id",), reject_limit=1, landing=PARQUET)
    assert counts(load_sql(source, database, destination)) == (29, 28, 0, 0, 0, 1)
    objects = [pq.ParquetFile(path) for path in landed(landing_folder)]
    kinds = [[(str(field.type), b"form" in field.metadata) for field in each.schema_arrow] for each in objects]
    first = [("int64", False)] * 2 + [("double", False), ("string", False), ("date32[day]", False)]
    assert kinds[0] == [*first, ("timestamp[us]", False), ("binary", False), ("bool", False)]
    assert kinds[-1][1] == ("string", True)
    assert kinds[-1][5] == ("string", False), "without seconds it would be printed in another way"
    before = raw(warehouse, "t::text", "raw_erp.t t")
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, "t::text", "raw_erp.t t") == before
    export(source, source.streams[0], destination.landing, tmp_path / "t", ExportFormat.JSONL, warehouse=lambda: 1 / 0)
    rows = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert (rows[0]["s"], rows[0]["b"], rows[0]["ok"], rows[0]["d"]) == ('ä"\n', "\\x00ff", True, 0.25)
    assert "three" in rows[21]["_payload"]


def test_what_cannot_land_as_parquet_says_so() -> None:
    with pytest.raises(ConfigurationError, match="Stream `orders` cannot land as `parquet`"):
        shop_source(landing=PARQUET)
    with pytest.raises(ConfigurationError, match="Leave landing out, or use one of: pgcopy, parquet"):
        table(landing=LandingFormat.JSONL)


def test_a_table_of_one_column_keeps_its_nulls_and_empty_texts(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (v text); insert into t values (null), (''), ('\\.'), (E'a\\n\\\\.\\nb'), ('\"')"
    )
    source = table(primary_key=(), write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    expected = [("",), ('"',), ("\\.",), ("a\n\\.\nb",), (None,)]
    assert sorted(raw(warehouse, "v", "raw_erp.t"), key=lambda row: (row[0] is None, row)) == expected
    rebuild(source, source.streams[0], destination)
    assert sorted(raw(warehouse, "v", "raw_erp.t"), key=lambda row: (row[0] is None, row)) == expected


def test_csv_of_a_batch_is_what_copy_reads() -> None:
    texts = pa.array(["x", "", None, 'q"q', "a,b\nc"])
    batch = pa.record_batch({"a": texts, "b": pa.nulls(5, pa.string())})
    assert csv_of(batch) == b'"x",\n"",\n,\n"q""q",\n"a,b\nc",\n'
