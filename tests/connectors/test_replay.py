"""Rows that come again from the landing, out of quarantine or a whole load; never an older version over a newer."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import ConfigurationError, ContractViolationError, LandingCorruptError
from connectors.failpoints import FAILPOINTS
from connectors.files import FilesSource
from connectors.ingest import Destination, ingest
from connectors.model import Deletes, SchemaContract, Window, WriteDisposition
from connectors.postgres import PostgresSource
from connectors.rebuild import rebuild
from connectors.replay import replay
from connectors.rest import RestSource
from tests.conftest import Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    counts,
    database,
    drop,
    erp,
    load,
    load_table,
    order,
    raw,
    shop_source,
    weather,
)
from tests.victims import kill_at, sleeper
from tests.waiting import until

DAYS = [f"2024-0{month}-01T00:00:00Z" for month in range(1, 10)]
STRICT = {"contract": SchemaContract.DISCARD_ROW, "reject_limit": 0.9}
LEDGER = ("loads", "watermarks", "files", "schema_changes", "quarantine")


def again(source: RestSource | PostgresSource | FilesSource, destination: Destination, **options: Any) -> Any:
    return replay(source, source.streams[0], destination, **options)


def evolving(source: RestSource) -> RestSource:
    return replace(source, streams=(replace(source.streams[0], contract=SchemaContract.EVOLVE),))


def open_rows(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("select row_in_load from ops.quarantine where replayed_by is null order by 1")


def ledger(warehouse: Warehouse) -> list[object]:
    return [warehouse.query(f"select * from ops.{table} order by 1, 2, 3") for table in LEDGER]


def check_rebuild(
    source: RestSource | PostgresSource | FilesSource, warehouse: Warehouse, destination: Destination, table: str
) -> None:
    """Raw from the landing alone is the same, in place and from nothing."""
    before = sorted(raw(warehouse, "t::text", f"{table} t")), ledger(warehouse)
    rebuild(source, source.streams[0], destination)
    assert (sorted(raw(warehouse, "t::text", f"{table} t")), ledger(warehouse)) == before
    warehouse.execute(f"drop table {table}")
    rebuild(source, source.streams[0], destination)
    assert (sorted(raw(warehouse, "t::text", f"{table} t")), ledger(warehouse)) == before


def test_rows_leave_quarantine_once_the_contract_allows_them(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(**STRICT)
    shop = Shop(api, [order(1, total=1)])
    load(source, api, destination)
    shop.orders += [
        order(2, total=2, coupon="X", changed=DAYS[1]),
        order(3, total=3, changed=DAYS[1]),
        order(4, total=4.5, changed=DAYS[1]),
        {**order(5, changed=DAYS[1]), "at": "noon"},
    ]
    first = load(source, api, destination)
    assert counts(first) == (5, 1, 0, 1, 0, 3)
    watermark = warehouse.query("select * from ops.watermarks")
    asked = len(api.requests)
    [report] = again(evolving(source), destination)
    assert counts(report) == (3, 2, 0, 0, 0, 1)
    assert raw(warehouse, "id, total::text, coupon, _load_id")[1:] == [
        (2, "2", "X", report.load_id),
        (3, "3", None, first.load_id),
        (4, "4.5", None, report.load_id),
    ]
    assert warehouse.query("select * from ops.watermarks") == watermark, "a replay does not move it"
    assert len(api.requests) == asked, "the source was not asked"
    kinds = "select kind, replay_of, manifest_key, rows_extracted, status from ops.loads order by started_at"
    rows = warehouse.query(kinds)
    assert rows[-1][:2] == ("replay", first.load_id)
    assert rows[-1][2] == rows[-2][2], "the landing of the original"
    assert warehouse.query("select load_id, row_in_load, replayed_by from ops.quarantine order by id") == [
        (first.load_id, 2, report.load_id),
        (first.load_id, 4, report.load_id),
        (first.load_id, 5, report.load_id),
        (report.load_id, 5, None),
    ]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def test_what_a_replay_leaves_can_be_replayed_again_and_nothing_is_nothing(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(**STRICT)
    shop = Shop(api, [order(1, total=1)])
    load(source, api, destination)
    shop.orders = [order(2, total=2, changed=DAYS[1]), order(3, total=3.5, coupon="X", changed=DAYS[1])]
    first = load(source, api, destination)
    for _ in range(2):
        [report] = again(source, destination)
        assert counts(report) == (1, 0, 0, 0, 0, 1), "a replay may leave all of its rows in quarantine"
        assert warehouse.query("select load_id, row_in_load from ops.quarantine where replayed_by is null") == [
            (report.load_id, 2)
        ]
    [report] = again(evolving(source), destination)
    assert counts(report) == (1, 1, 0, 0, 0, 0)
    assert open_rows(warehouse) == []
    assert again(evolving(source), destination) == []
    of_first = "select count(*) from ops.loads where kind = 'replay' and replay_of = %s"
    assert warehouse.query(of_first, [first.load_id]) == [(3,)]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def test_each_load_in_quarantine_is_replayed_oldest_first_with_its_window(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(**STRICT)
    shop = Shop(api, [order(1)])
    load(source, api, destination)
    shop.orders = [order(2, a=1, changed=DAYS[1])]
    window = Window.parse("2024-01-01", "2024-02-01")
    with pytest.raises(ContractViolationError):
        load(source, api, destination, window=window)
    shop.orders += [order(1)]
    shop.page = 10
    second = load(source, api, destination, window=window)
    shop.orders = [order(3, b=1, changed=DAYS[2]), order(4, changed=DAYS[2])]
    third = load(source, api, destination)
    reports = again(evolving(source), destination)
    assert [report.window for report in reports] == [window, None]
    of = warehouse.query("select replay_of, window_end from ops.loads where kind = 'replay' order by started_at")
    assert of == [(second.load_id, window.end), (third.load_id, None)]
    assert raw(warehouse, "id, a, b") == [(1, None, None), (2, 1, None), (3, None, 1), (4, None, None)]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def test_a_whole_load_brings_the_values_that_were_discarded(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(contract=SchemaContract.DISCARD_VALUE)
    shop = Shop(api, [order(n, total=n) for n in range(3)])
    load(source, api, destination)
    shop.orders += [order(3, total=3.5, coupon="X", changed=DAYS[1]), order(4, total=4, changed=DAYS[1])]
    second = load(source, api, destination)
    shop.orders = [order(4, total=4, coupon="later", changed=DAYS[1])]
    load(source, api, destination)
    [report] = again(evolving(source), destination, load_id=second.load_id)
    assert counts(report) == (5, 0, 1, 4, 0, 0)
    assert raw(warehouse, f"id, total::text, coupon, _load_id = '{report.load_id}'") == [
        (0, "0", None, False),
        (1, "1", None, False),
        (2, "2", None, False),
        (3, "3.5", "X", True),
        (4, "4", None, False),
    ]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def test_the_reject_limit_holds_for_a_whole_load(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    loose = shop_source(reject_limit=0.9)
    Shop(api, [order(1), order(2, at="noon")])
    first = load(loose, api, destination)
    before = raw(warehouse), open_rows(warehouse)
    with pytest.raises(ContractViolationError, match="1 of 2 rows break the contract"):
        again(shop_source(), destination, load_id=first.load_id)
    assert (raw(warehouse), open_rows(warehouse)) == before
    assert warehouse.query("select status from ops.loads where kind = 'replay'") == [("failed",)]
    [report] = again(loose, destination, load_id=first.load_id)
    assert counts(report) == (2, 0, 0, 1, 0, 1)
    assert open_rows(warehouse) == [(2,)], "once, as the replay's"


def test_a_newer_version_stays_by_its_cursor(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    source = shop_source(**STRICT)
    shop = Shop(api, [order(n, total=1) for n in range(3)])
    load(source, api, destination)
    old = [order(n, total=2, new="old", changed=DAYS[1]) for n in range(3)]
    shop.orders = [*old, order(9, total=0, changed=DAYS[1])]
    load(source, api, destination)
    shop.orders = [order(1, total=3, changed=DAYS[2]), order(2, total=3, changed=DAYS[1])]
    load(source, api, destination)
    [report] = again(evolving(source), destination)
    assert counts(report) == (3, 0, 1, 2, 0, 0)
    assert raw(warehouse, "id, total, new") == [
        (0, 2, "old"),
        (1, 3, None),  # newer by its cursor
        (2, 3, None),  # the same cursor, of a later load
        (9, 0, None),
    ]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def test_without_a_cursor_the_later_load_stays(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, reject_limit=0.9)
    lines = {"EWR": "1", "JFK": "bad", "LGA": "bad", "BOS": "4"}

    def deliver(day: str, values: dict[str, str]) -> LoadReport:
        text = "station,hour,temp\n" + "".join(f"{name},2013-01-01T00:00Z,{temp}\n" for name, temp in values.items())
        drop(folder, {f"weather-{day}.csv": text})
        return ingest(source, source.streams[0], where, destination)[-1]

    first = deliver("2013-01-01", lines)
    assert first.quarantined == 2
    deliver("2013-01-02", {"JFK": "20"})
    lenient, _ = weather(folder, reject_limit=0.9, nulls=("", "NA", "bad"))
    assert counts(again(lenient, destination)[0]) == (2, 1, 0, 1, 0, 0)
    found = "station, temp::int"
    assert raw(warehouse, found, "raw_met.weather") == [("BOS", 4), ("EWR", 1), ("JFK", 20), ("LGA", None)]
    check_rebuild(lenient, warehouse, destination, "raw_met.weather")
    zero, _ = weather(folder, nulls=("", "NA", "bad", "1"))
    [report] = again(zero, destination, load_id=first.load_id)
    assert counts(report) == (4, 0, 1, 3, 0, 0), "what an earlier replay of the load wrote is no later"
    assert raw(warehouse, found, "raw_met.weather")[1:3] == [("EWR", None), ("JFK", 20)]


def test_of_two_versions_in_the_load_itself_the_later_one_stays(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, reject_limit=0.9)
    rows = ["EWR,bad", "EWR,2", "JFK,3", "JFK,bad", "LGA,bad", "LGA,worse", "LGA,bad"]
    lines = [f"{row.split(',')[0]},2013-01-01T00:00Z,{row.split(',')[1]}\n" for row in rows]
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\n" + "".join(lines)})
    ingest(source, source.streams[0], where, destination)
    lenient, _ = weather(folder, nulls=("", "bad"))
    [report] = again(lenient, destination)
    assert counts(report) == (5, 1, 1, 0, 2, 1)
    assert raw(warehouse, "station, temp::int", "raw_met.weather") == [("EWR", 2), ("JFK", None), ("LGA", None)]
    assert open_rows(warehouse) == [(6,)]
    check_rebuild(lenient, warehouse, destination, "raw_met.weather")


def test_a_row_that_was_deleted_since_stays_deleted(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(TABLE)
    source = strict_table("merge", deletes=Deletes(1))
    load_table(source, connection, warehouse, destination)
    connection.execute(DRIFT)
    load_table(source, connection, warehouse, destination)
    connection.execute("delete from t where id = 2")
    where = database(connection, warehouse)
    assert find_deleted(source, source.streams[0], where, destination).deleted == 1
    lenient = strict_table("merge", contract="evolve", deletes=Deletes(1))
    assert counts(again(lenient, destination)[0]) == (2, 0, 1, 1, 0, 0)
    found = raw(warehouse, "id, v, extra, _deleted_at is null", "raw_erp.t")
    assert found == [(1, 1, None, True), (2, 2, None, False), (3, 3, None, True), (4, -4, 7, True)]
    check_rebuild(lenient, warehouse, destination, "raw_erp.t")


def test_a_version_from_before_a_full_refresh_does_not_come_back(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(**STRICT)
    shop = Shop(api, [order(1, total=1)])
    load(source, api, destination)
    shop.orders = [order(1, total=9, new=1, changed=DAYS[5]), order(2, total=9, changed=DAYS[5])]
    load(source, api, destination)
    shop.orders = [order(1, total=5, changed=DAYS[3]), order(2, total=9, changed=DAYS[5])]
    load(source, api, destination, full_refresh=True)
    assert counts(again(evolving(source), destination)[0]) == (1, 0, 0, 1, 0, 0)
    assert raw(warehouse, "id, total") == [(1, 5), (2, 9)]
    check_rebuild(evolving(source), warehouse, destination, "raw_shop.orders")


def strict_table(
    write: str, *, key: tuple[str, ...] = ("id",), contract: str = "discard_row", **more: Any
) -> PostgresSource:
    return erp(
        name="t",
        primary_key=key,
        write=WriteDisposition(write),
        contract=SchemaContract(contract),
        reject_limit=0.9,
        **more,
    )


TABLE = "create table t (id int primary key, v int); insert into t select n, n from generate_series(1, 4) n"
DRIFT = "alter table t add extra int; update t set extra = 7, v = -v where id % 2 = 0"


@pytest.mark.parametrize("key", [("id",), ()], ids=["key", "no key"])
@pytest.mark.parametrize("write", ["append", "replace"])
def test_rows_of_every_disposition_leave_quarantine(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, write: str, key: tuple[str, ...]
) -> None:
    connection = source_database(TABLE)
    load_table(strict_table(write, key=key), connection, warehouse, destination)
    connection.execute(DRIFT + "; insert into t values (5, 5, 7), (6, 6, null)")
    load_table(strict_table(write, key=key), connection, warehouse, destination)
    lenient = strict_table(write, key=key, contract="evolve")
    [report] = again(lenient, destination)
    found = sorted(raw(warehouse, "id, v, extra", "raw_erp.t"), key=str)
    odd = [(1, 1, None), (3, 3, None)]
    if write == "replace":
        assert counts(report) == (3, 3, 0, 0, 0, 0)
        assert found == sorted([*odd, (2, -2, 7), (4, -4, 7), (5, 5, 7), (6, 6, None)], key=str)
    elif key:
        assert counts(report) == (3, 1, 0, 2, 0, 0), "an event that was there before the load does not change"
        assert found == sorted([*odd, (2, 2, None), (4, 4, None), (5, 5, 7), (6, 6, None)], key=str)
    else:
        assert counts(report) == (3, 3, 0, 0, 0, 0)
        assert len(found) == 4 + 6
    check_rebuild(lenient, warehouse, destination, "raw_erp.t")


@pytest.mark.parametrize(
    ("write", "key"),
    [("append", ("id",)), ("append", ()), ("replace", ("id",)), ("replace", ()), ("merge", ("id",))],
)
def test_a_whole_load_of_every_disposition_is_there_once(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, write: str, key: tuple[str, ...]
) -> None:
    strict, lenient = (strict_table(write, key=key, contract=each) for each in ("discard_value", "evolve"))
    connection = source_database(TABLE)
    load_table(strict, connection, warehouse, destination)
    connection.execute("delete from t where id = 1; insert into t values (5, 5), (6, 6);" + DRIFT)
    second = load_table(strict, connection, warehouse, destination)
    for _ in range(2):
        [report] = again(lenient, destination, load_id=second.load_id)
        assert report.extracted == 5
        found = sorted(raw(warehouse, "id, v, coalesce(extra, 0)", "raw_erp.t"))
        brought = [(2, -2, 7), (3, 3, 0), (4, -4, 7), (5, 5, 0), (6, -6, 7)]
        if write == "append":
            before = [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0)]
            assert found == sorted(before + (brought[3:] if key else brought))
        else:
            assert found == ([(1, 1, 0)] if write == "merge" else []) + brought
        check_rebuild(lenient, warehouse, destination, "raw_erp.t")


def test_of_a_replaced_stream_only_the_latest_load_is_replayed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(TABLE)
    first = load_table(strict_table("replace"), connection, warehouse, destination)
    connection.execute(DRIFT)
    load_table(strict_table("replace"), connection, warehouse, destination)
    connection.execute("update t set extra = null")
    latest = load_table(strict_table("replace"), connection, warehouse, destination)
    before = raw(warehouse, table="raw_erp.t")
    with pytest.raises(ConfigurationError, match=f"replaced by later ones, the latest of them {latest.load_id}"):
        again(strict_table("replace"), destination, load_id=first.load_id)
    assert again(strict_table("replace"), destination) == []
    assert raw(warehouse, table="raw_erp.t") == before
    assert open_rows(warehouse) == [(3,), (4,)]


def test_a_load_that_cannot_be_replayed_is_named(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Shop(api, [order(1)])
    first = load(shop_source(), api, destination)
    unknown = uuid4()
    with pytest.raises(ConfigurationError, match=f"no load {unknown} of this stream.*source shop, stream orders"):
        again(shop_source(), destination, load_id=unknown)
    shop.orders = [order(2, at="noon")]
    with pytest.raises(ContractViolationError):
        load(shop_source(), api, destination)
    [(refused,)] = warehouse.query("select load_id from ops.loads where status <> 'loaded'")
    with pytest.raises(ConfigurationError, match="is landed, not loaded"):
        again(shop_source(), destination, load_id=refused)
    warehouse.execute("drop table raw_shop.orders")
    with pytest.raises(ConfigurationError, match="no table raw_shop.orders .*headwater rebuild shop.orders"):
        again(shop_source(), destination, load_id=first.load_id)


def test_a_hole_in_the_landing_is_named_and_the_rows_stay_in_quarantine(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    source = shop_source(reject_limit=0.9)
    Shop(api, [order(1), order(2, at="noon")])
    load(source, api, destination)
    [lost] = landing_folder.rglob("manifest.json")
    lost.unlink()
    with pytest.raises(LandingCorruptError, match="manifest.json is missing"):
        again(source, destination)
    assert open_rows(warehouse) == [(2,)]
    assert warehouse.query("select status from ops.loads where kind = 'replay'") == [("failed",)]


REACHED = [name for name in FAILPOINTS if name not in ("chunk-copied", "chunk-landed", "manifest-written")]


def kills() -> list[object]:
    """Every instant of both kinds of replay; in the short form, of the one and the other by turns."""
    return [
        pytest.param(
            name, whole, id=f"{name}-{'whole' if whole else 'quarantine'}", marks=() if by_turns else pytest.mark.chaos
        )
        for number, name in enumerate(REACHED)
        for whole in (False, True)
        for by_turns in [(number % 2 == 0) == whole]
    ]


@pytest.mark.parametrize(("name", "whole"), kills())
def test_a_replay_that_is_killed_leaves_all_or_nothing_and_a_rerun_completes_it(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    name: str,
    whole: bool,
) -> None:
    connection = source_database(TABLE)
    load_table(strict_table("merge"), connection, warehouse, destination)
    connection.execute(DRIFT)
    second = load_table(strict_table("merge"), connection, warehouse, destination)
    state = "t.id, t.v, to_jsonb(t)->>'extra'", "raw_erp.t t"
    before = raw(warehouse, *state)
    evolved = strict_table("merge", contract="evolve")
    kill_at(name, partial(again, evolved, destination, load_id=second.load_id if whole else None))
    after = [(1, 1, None), (2, -2, "7"), (3, 3, None), (4, -4, "7")]
    committed = name == "committed"
    assert raw(warehouse, *state) == (after if committed else before)
    assert open_rows(warehouse) == ([] if committed else [(3,), (4,)])
    reports = again(evolved, destination, load_id=second.load_id if whole else None)
    assert len(reports) == (0 if committed and not whole else 1)
    assert raw(warehouse, *state) == after
    assert open_rows(warehouse) == []
    statuses = warehouse.query("select status from ops.loads where kind = 'replay' order by started_at")
    assert set(statuses) <= {("failed",), ("loaded",)}
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
    check_rebuild(strict_table("merge", contract="evolve"), warehouse, destination, "raw_erp.t")


@pytest.mark.parametrize("name", ["load-begun", "all-copied", "landed-noted"])
def test_a_replay_that_wakes_up_after_its_successor_commits_nothing(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, landing_folder: Path, name: str
) -> None:
    connection = source_database(TABLE)
    load_table(strict_table("merge"), connection, warehouse, destination)
    connection.execute(DRIFT)
    load_table(strict_table("merge"), connection, warehouse, destination)
    options = {"run": "the victim", "lease_seconds": 1}
    with sleeper(name, partial(again, strict_table("merge", contract="evolve"), destination, **options)) as victim:
        lease_over = "select from ops.streams where lease_until < now() and holder = 'the victim'"
        until(lambda: warehouse.query(lease_over), "its lease ends")
        [report] = again(strict_table("merge", contract="evolve"), destination)
        after = raw(warehouse, table="raw_erp.t"), ledger(warehouse)
        victim.send(signal.SIGCONT)
        assert victim.wait() == 1
    assert "FencedError: This run lost the stream" in victim.said
    assert (raw(warehouse, table="raw_erp.t"), ledger(warehouse)) == after
    assert warehouse.query("select status from ops.loads where kind = 'replay' order by status") == [
        ("failed",),
        ("loaded",),
    ]
    assert report.updated == 2
