"""Reconciliation: a row that raw lacks, has otherwise, or has too many is named; nothing else is; and it is healed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.comparison.differences import Kind, Limits
from connectors.connections import EnvironmentConnections, Secret
from connectors.destinations.warehouse.ledger import Lease, LoadReport
from connectors.errors import ConfigurationError, DataError, StreamBusyError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, Deletes, SchemaContract, Window, Windows, WriteDisposition
from connectors.privacy import Dropped, Hashed, Masked, Treatment
from connectors.reconcile.run import Reconciliation, reconcile
from tests.conftest import Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    connections,
    database,
    erp,
    load,
    load_table,
    order,
    raw,
    shop_source,
)
from tests.connectors.sql.sql_databases import MySql, Sqlite, load_sql, sql_erp

DAYS, PER_DAY = 10, 40
FIRST = datetime(2024, 3, 1, tzinfo=UTC)
TABLE = f"""
create table t (id int primary key, at timestamptz, v text, changed timestamptz not null default now());
insert into t
select n, '2024-03-01Z'::timestamptz + n / {PER_DAY} * interval '1 day' + n % {PER_DAY} * interval '1 minute', 'v' || n,
       '2024-04-01Z'::timestamptz + n * interval '1 second'
from generate_series(0, {DAYS * PER_DAY - 1}) n;
"""
WINDOWS = Windows(first="2024-03-01", until="2024-03-11")
NOW = "update t set v = v || '!', changed = now() where id "


def day(number: int) -> Window:
    return Window(FIRST + timedelta(days=number), FIRST + timedelta(days=number + 1))


def named(found: Reconciliation | None) -> list[tuple[Any, ...]]:
    """What differs: day, key, kind, columns."""
    assert found is not None
    return [
        (each.window and (each.window.start - FIRST).days, each.key, each.kind.value, each.columns)
        for each in found.findings.differences
    ]


class Erp:
    """A table of an ERP and its raw table."""

    def __init__(
        self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination, **changes: Any
    ) -> None:
        definition = {
            "name": "t",
            "primary_key": ("id",),
            "cursor": Cursor("changed"),
            "event_time": "at",
            "windows": WINDOWS,
            "deletes": Deletes(),
            **changes,
        }
        self.connection, self.warehouse, self.destination = connection, warehouse, destination
        self.source = erp(**definition)

    def at_source(self, statements: str) -> None:
        self.connection.execute(statements.encode())

    def load(self) -> LoadReport:
        return load_table(self.source, self.connection, self.warehouse, self.destination)

    def reconcile(self, **options: Any) -> Reconciliation | None:
        where = database(self.connection, self.warehouse)
        return reconcile(self.source, self.source.streams[0], where, self.destination, **options)

    def watermark(self) -> Any:
        return self.warehouse.query("select value, pending from ops.watermarks")


Open = Callable[..., Erp]


@pytest.fixture
def open_erp(source_database: Prepare, warehouse: Warehouse, destination: Destination) -> Open:
    def make(statements: str = TABLE, **changes: Any) -> Erp:
        made = Erp(source_database(statements), warehouse, destination, **changes)
        made.load()
        return made

    return make


def disturb(shop: Erp) -> None:
    shop.warehouse.execute("delete from raw_erp.t where id = 45; update raw_erp.t set v = 'x' where id = 90")
    shop.at_source("delete from t where id = 395")


DISTURBED = [
    (1, ("45",), "missing", ()),
    (2, ("90",), "different", ("v",)),
    (9, ("395",), "deleted", ()),
]


def test_a_row_removed_from_raw_one_changed_and_one_deleted_at_the_source_are_named(open_erp: Open) -> None:
    shop = open_erp()
    disturb(shop)
    found = shop.reconcile()
    assert sorted(named(found)) == DISTURBED
    assert found is not None
    assert (found.findings.rows_at_source, found.findings.rows_in_raw) == (398, 398)
    assert found.findings.is_alarming
    assert shop.warehouse.query(
        "select status, compared_by, windows, missing, different, deleted, is_at_least from ops.reconciliations"
    ) == [("different", "digests", 10, 1, 1, 1, False)]
    assert shop.warehouse.query(
        "select stream, window_start::date::text, key, kind, columns, is_certain, healed_at"
        " from ops.differences order by 2"
    ) == [
        ("t", "2024-03-02", ["45"], "missing", [], True, None),
        ("t", "2024-03-03", ["90"], "different", ["v"], True, None),
        ("t", "2024-03-10", ["395"], "deleted", [], True, None),
    ]


def test_they_are_healed_when_told_and_the_watermark_stays(open_erp: Open) -> None:
    shop = open_erp()
    before, watermark = raw(shop.warehouse, "id, at, v, changed", "raw_erp.t"), shop.watermark()
    disturb(shop)
    found = shop.reconcile(heal=True)
    assert sorted(named(found)) == DISTURBED
    assert found is not None
    assert not found.findings.open
    assert found.error is None
    assert shop.watermark() == watermark
    live = raw(shop.warehouse, "id, at, v, changed", "raw_erp.t where _deleted_at is null")
    assert live == [row for row in before if row[0] != 395]
    assert shop.warehouse.query("select status from ops.reconciliations") == [("healed",)]
    assert shop.warehouse.query("select count(*) from ops.differences where healed_at is null") == [(0,)]
    # Two windows were read again, not ten.
    assert shop.warehouse.query("select count(*) from ops.loads where window_start is not null") == [(1,)]
    assert named(shop.reconcile()) == []


def test_what_cannot_be_healed_stays_open_with_the_reason(open_erp: Open) -> None:
    shop = open_erp(deletes=None)
    disturb(shop)
    found = shop.reconcile(heal=True)
    assert found is not None
    assert [each.kind for each in found.findings.open] == [Kind.DELETED]
    assert "deletions are not looked for" in str(found.error)
    assert shop.warehouse.query("select status, error is not null from ops.reconciliations") == [("different", True)]


def test_changes_that_the_next_load_brings_are_no_differences(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source(f"{NOW} = 5; insert into t values (1000, '2024-03-02T12:00Z', 'new')")
    shop.at_source("update t set at = '2024-03-09T12:00Z', changed = now() where id = 7")  # to another window
    found = shop.reconcile()
    assert named(found) == []
    assert found is not None
    # The newest row that was loaded shares its cursor with the watermark: it is read again by each load.
    assert found.findings.changed_since == 4
    shop.load()
    assert named(shop.reconcile()) == []


def test_a_row_that_moved_to_another_window_without_its_cursor_is_named_once(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("update t set at = '2024-03-09T12:00Z' where id = 7")
    assert named(shop.reconcile()) == [(8, ("7",), "different", ("at",))]


def test_a_row_that_raw_has_as_deleted_and_the_source_still_has_is_missing(open_erp: Open) -> None:
    shop = open_erp()
    shop.warehouse.execute("update raw_erp.t set _deleted_at = now() where id = 7")
    assert named(shop.reconcile(heal=True)) == [(0, ("7",), "missing", ("_deleted_at",))]
    assert named(shop.reconcile()) == []


def test_nothing_is_reported_while_rows_change_and_loads_go_on(open_erp: Open) -> None:
    shop = open_erp()
    done = threading.Event()

    def disturb_and_load() -> None:
        with psycopg.connect(
            shop.connection.info.dsn, password=shop.connection.info.password, autocommit=True
        ) as other:
            while not done.is_set():
                other.execute(
                    f"{NOW} in (select (random() * {DAYS * PER_DAY})::int from generate_series(1, 20))".encode()
                )
                shop.load()

    thread = threading.Thread(target=disturb_and_load)
    thread.start()
    try:
        found = [shop.reconcile() for _ in range(6)]
    finally:
        done.set()
        thread.join()
    assert [named(each) for each in found] == [[]] * 6


def test_only_so_many_windows_a_run_and_those_longest_ago_first(open_erp: Open) -> None:
    shop = open_erp()
    spans = []
    for _ in range(4):
        found = shop.reconcile(most_windows=4)
        assert found is not None
        spans.append([(window.start - FIRST).days for window in found.span.windows])
    assert spans == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 8, 9], [2, 3, 4, 5]]
    found = shop.reconcile(limits=Limits(rows=100))
    assert found is not None
    assert len(found.span.windows) == 2
    found = shop.reconcile(start=day(3).start, end=day(5).start)
    assert found is not None
    assert list(found.span.windows) == [day(3), day(4)]


def test_what_is_to_be_healed_is_what_was_found_before(open_erp: Open) -> None:
    shop = open_erp()
    disturb(shop)
    assert len(named(shop.reconcile(most_windows=3))) == 2
    found = shop.reconcile(most_windows=3, heal=True)
    assert found is not None
    assert list(found.span.windows) == [day(1), day(2), day(3)]
    assert not found.findings.open
    assert sorted(named(shop.reconcile())) == DISTURBED[2:]


def test_a_range_of_keys_is_healed_before_the_next_one_is_compared(open_erp: Open) -> None:
    shop = open_erp(event_time=None)
    disturb(shop)
    first = shop.reconcile(limits=Limits(rows=100))
    healed = shop.reconcile(limits=Limits(rows=100), heal=True)
    following = shop.reconcile(limits=Limits(rows=100), heal=True)
    assert first is not None
    assert healed is not None
    assert following is not None
    assert healed.span == first.span
    assert not healed.findings.open
    assert following.span.key_from == first.span.key_to


def test_rows_from_before_the_cursors_initial_value_were_never_asked_for(open_erp: Open) -> None:
    shop = open_erp(event_time=None, cursor=Cursor("changed", initial="2024-04-01T00:03:20Z"))
    assert raw(shop.warehouse, "count(*)", "raw_erp.t") == [(200,)]
    disturb(shop)
    found = shop.reconcile()
    assert named(found) == [(None, ("395",), "deleted", ())]
    assert found is not None
    assert found.findings.rows_at_source == 198


def test_a_key_that_grew_at_the_source_is_looked_for_in_raw(open_erp: Open) -> None:
    shop = open_erp(event_time=None)
    shop.at_source("alter table t alter id type bigint; insert into t values (5000000000, null, 'far', '2024-04-01Z')")
    assert named(shop.reconcile()) == [(None, ("5000000000",), "missing", ())]


def test_windows_that_no_load_has_brought_are_left_to_backfills(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Erp(source_database(TABLE), warehouse, destination, cursor=Cursor("changed", initial="2024-04-01T00:03:20Z"))
    assert shop.reconcile() is None
    shop.load()
    assert shop.reconcile() is None
    where = database(shop.connection, warehouse)
    ingest(shop.source, shop.source.streams[0], where, destination, window=day(2))
    found = shop.reconcile()
    assert found is not None
    assert (found.span.windows, named(found)) == ((day(2),), [])


MANY = """
create table t (id int primary key, at timestamptz, v text, changed timestamptz not null default now());
insert into t select n, '2024-03-01Z'::timestamptz + n * interval '1 second', 'v' || n, '2024-04-01Z' from
    generate_series(1, {rows}) n;
insert into t values (0, '2024-03-01Z', 'last', '2024-04-02Z');
"""


def test_the_number_of_questions_grows_with_the_logarithm_of_the_rows(open_erp: Open) -> None:
    shop = open_erp(MANY.format(rows=300), event_time=None)
    questions = []
    for rows in (300, 80_000):
        shop.at_source(f"insert into t select n, null, 'v' || n, '2024-04-01Z' from generate_series(301, {rows}) n")
        shop.source = replace(shop.source)
        where = database(shop.connection, shop.warehouse)
        ingest(shop.source, shop.source.streams[0], where, shop.destination, full_refresh=True)
        shop.warehouse.execute("update raw_erp.t set v = 'x' where id = 17")
        found = shop.reconcile()
        assert found is not None
        assert named(found) == [(None, ("17",), "different", ("v",))]
        questions.append(found.findings.questions)
    # The changes, the sum, one split (or two) of 256 each, the hashes, the row.
    assert questions == [5, 6]


def test_what_is_named_and_fetched_is_bounded(open_erp: Open) -> None:
    shop = open_erp()
    shop.warehouse.execute("update raw_erp.t set v = 'x'")
    found = shop.reconcile(limits=Limits(differences=10))
    assert found is not None
    assert (len(found.findings.differences), found.findings.is_at_least) == (10, True)
    assert str(found).endswith("at least 10 different")
    assert found.findings.is_alarming
    found = shop.reconcile(limits=Limits(fetched=100))
    assert found is not None
    assert (len(found.findings.differences), found.findings.is_at_least) == (80, True)


def test_more_changes_than_can_be_told_apart_ask_for_a_load_first(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source(f"{NOW} < 20")
    with pytest.raises(DataError, match="More than 10 rows have changed .* Load the stream"):
        shop.reconcile(limits=Limits(changed=10))
    assert shop.warehouse.query("select status, error is not null from ops.reconciliations") == [("failed", True)]
    assert shop.warehouse.query("select count(*) from ops.reconciled_windows") == [(0,)]


def test_a_table_without_windows_is_compared_by_ranges_of_its_key(open_erp: Open) -> None:
    shop = open_erp(event_time=None)
    shop.at_source("update t set changed = '2024-04-02Z' where id = 0")
    shop.load()
    disturb(shop)
    shop.warehouse.execute("update raw_erp.t set v = 'x' where id = 399")
    found, ranges = [], []
    for _ in range(5):
        each = shop.reconcile(limits=Limits(rows=100))
        assert each is not None
        found += named(each)
        ranges.append((each.span.key_from, each.span.key_to))
    # Of the rows that raw has.
    assert ranges == [(None, "101"), ("101", "201"), ("201", "301"), ("301", None), (None, "101")]
    assert [(key, kind) for _, (key,), kind, _ in found[:4]] == [
        ("45", "missing"),
        ("90", "different"),
        ("395", "deleted"),
        ("399", "different"),
    ]


def test_a_table_without_windows_is_healed_by_reading_it_again(open_erp: Open) -> None:
    shop = open_erp(event_time=None)
    disturb(shop)
    found = shop.reconcile(heal=True)
    assert found is not None
    assert len(found.findings.differences) == 3
    assert not found.findings.open
    assert named(shop.reconcile()) == []


def test_without_a_cursor_a_change_may_be_younger_than_the_last_load_and_alarms_nobody(open_erp: Open) -> None:
    shop = open_erp(cursor=None)
    disturb(shop)
    found = shop.reconcile()
    assert sorted(named(found)) == DISTURBED
    assert found is not None
    assert [each.kind for each in found.findings.differences if each.is_certain] == [Kind.DELETED]
    assert found.findings.uncertain == 2
    shop.at_source("insert into t values (395, '2024-03-10T12:00Z', 'back')")
    found = shop.reconcile()
    assert found is not None
    assert not found.findings.is_alarming


def test_a_replaced_table_loses_with_its_next_load_what_it_has_too_many(open_erp: Open) -> None:
    shop = open_erp(cursor=None, event_time=None, deletes=None, write=WriteDisposition.REPLACE)
    disturb(shop)
    found = shop.reconcile(heal=True)
    assert found is not None
    assert len(found.findings.differences) == 3
    assert not found.findings.open
    assert raw(shop.warehouse, "count(*)", "raw_erp.t") == [(399,)]


def test_rows_in_quarantine_are_accounted_for(open_erp: Open) -> None:
    shop = open_erp(contract=SchemaContract.DISCARD_ROW, reject_limit=1)
    shop.at_source("alter table t alter v type int using length(v); update t set changed = now() where id in (3, 4)")
    shop.at_source("alter table t alter v type text using 'v' || id; update t set changed = now() where id = 5")
    shop.at_source("alter table t add w int; update t set w = 1, changed = now() where id in (8, 9)")
    shop.load()
    shop.at_source("insert into t values (1000, '2024-03-02T12:00Z', 'last', now())")
    shop.load()
    assert shop.warehouse.query("select distinct payload::json ->> 'id' from ops.quarantine order by 1") == [
        ("8",),
        ("9",),
    ]
    found = shop.reconcile()
    assert found is not None
    assert (named(found), found.findings.quarantined) == ([], 2)


def test_values_that_the_contract_discards_are_no_differences(open_erp: Open) -> None:
    shop = open_erp(contract=SchemaContract.DISCARD_VALUE)
    shop.at_source("alter table t add w int default 7, alter at type timestamptz(3); update t set changed = now()")
    shop.load()
    assert named(shop.reconcile()) == []


def test_a_wider_type_at_the_source_or_in_raw_is_no_difference(open_erp: Open) -> None:
    shop = open_erp(
        "create table t (id int primary key, r real, n numeric(6,2), s varchar(5), e text, changed timestamptz);"
        "insert into t select n, n / 3.0, n / 7.0, n, 'e' || n, '2024-04-01'::date + n from generate_series(1, 51) n",
        event_time=None,
        columns={"r": "double precision", "e": "text", "n": "numeric"},
    )
    assert named(shop.reconcile()) == []
    shop.at_source("alter table t alter n type numeric(10,2), alter s type varchar(9), alter id type bigint")
    assert named(shop.reconcile()) == []
    shop.warehouse.execute("update raw_erp.t set r = r + 1e-9 where id = 50")
    assert [key for _, key, _, _ in named(shop.reconcile())] == [("50",)]


def test_streams_that_cannot_be_compared_say_why(open_erp: Open) -> None:
    shop = open_erp(primary_key=(), write=WriteDisposition.APPEND, cursor=None, deletes=None)
    with pytest.raises(ConfigurationError, match="no primary_key"):
        shop.reconcile()
    shop = Erp(shop.connection, shop.warehouse, shop.destination, event_time=None)
    with pytest.raises(ConfigurationError, match="no windows"):
        shop.reconcile(start=FIRST)


class Orders:
    """The shop's API and its raw table, by days."""

    def __init__(self, api: Api, warehouse: Warehouse, destination: Destination, **changes: Any) -> None:
        self.shop = Shop(
            api,
            [
                order(n, changed=f"2024-04-01T{n:02}:00:00Z", at=f"2024-03-{1 + n // 4:02}T00:00:00Z", total=n / 4)
                for n in range(20)
            ],
        )
        self.api, self.warehouse, self.destination = api, warehouse, destination
        windows = Windows(first="2024-03-01", until="2024-03-06")
        self.source = shop_source(**{"windows": windows, "deletes": Deletes(), **changes})
        self.load()

    def load(self) -> LoadReport:
        return load(self.source, self.api, self.destination)

    def reconcile(self, **options: Any) -> Reconciliation | None:
        return reconcile(self.source, self.source.streams[0], connections(self.api), self.destination, **options)

    def disturb(self) -> None:
        self.warehouse.execute(
            "delete from raw_shop.orders where id = 5; update raw_shop.orders set total = 1 where id = 9"
        )
        del self.shop.orders[13]


def test_an_apis_windows_are_read_again_and_compared_without_being_written(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Orders(api, warehouse, destination)
    assert named(shop.reconcile()) == []
    shop.disturb()
    before = raw(warehouse)
    found = shop.reconcile()
    assert sorted(named(found)) == [
        (1, ("5",), "missing", ()),
        (2, ("9",), "different", ("total",)),
        (3, ("13",), "deleted", ()),
    ]
    assert raw(warehouse) == before
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
    assert warehouse.query("select count(*) from ops.loads") == [(1,)]


def test_an_apis_differences_are_healed(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Orders(api, warehouse, destination)
    watermark = warehouse.query("select value from ops.watermarks")
    shop.disturb()
    found = shop.reconcile(heal=True)
    assert found is not None
    assert len(found.findings.differences) == 3
    assert not found.findings.open
    assert warehouse.query("select value from ops.watermarks") == watermark
    assert raw(warehouse, "id", "raw_shop.orders where _deleted_at is not null") == [(13,)]
    assert named(shop.reconcile()) == []


def test_changes_at_an_api_that_the_next_load_brings_are_no_differences(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Orders(api, warehouse, destination)
    shop.shop.orders[3] |= {"total": 99, "changed": "2024-04-02T00:00:00Z"}
    shop.shop.orders[4] |= {"at": "2024-03-05T00:00:00Z", "changed": "2024-04-02T00:00:00Z"}  # to another window
    shop.shop.orders.append(order(50, changed="2024-04-02T00:00:00Z", at="2024-03-02T00:00:00Z", total=1))
    assert named(shop.reconcile()) == []


def test_rows_of_an_api_that_would_go_to_quarantine_are_accounted_for(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    columns = {"changed": "timestamptz", "at": "timestamptz", "total": "numeric(6,2)"}
    shop = Orders(api, warehouse, destination, columns=columns, reject_limit=1)
    shop.shop.orders[2] |= {"total": "a lot"}
    shop.shop.orders[6] |= {"total": "more", "changed": "2024-04-02T00:00:00Z"}
    shop.load()
    found = shop.reconcile()
    assert found is not None
    assert (named(found), found.findings.quarantined) == ([], 2)


SQL_TABLE = "create table t (id integer primary key, v varchar(20), r double, changed datetime)"
SQL_ROWS = [(n, f"v{n}" if n % 3 else None, n / 7, f"2024-04-01 00:{n:02}:00") for n in range(50)]


@pytest.fixture(params=["sqlite", "mysql"])
def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "mysql":
        return request.getfixturevalue("mysql")
    return Sqlite(tmp_path / "erp.db")


def test_any_database_is_compared_by_reading_its_rows_again(
    sql_database: MySql | Sqlite, warehouse: Warehouse, destination: Destination
) -> None:
    values = ", ".join(
        f"({n}, {'null' if v is None else repr(v)}, {r!r}, '{changed}')" for n, v, r, changed in SQL_ROWS
    )
    sql_database.execute(SQL_TABLE, f"insert into t values {values}")
    source = sql_erp(name="t", primary_key=("id",), cursor=Cursor("changed"), deletes=Deletes(), settle_seconds=0)

    def compare(**options: Any) -> Reconciliation | None:
        return reconcile(source, source.streams[0], sql_database.connections, destination, **options)

    assert compare() is None
    load_sql(source, sql_database, destination)
    assert named(compare()) == []
    warehouse.execute(
        "delete from raw_erp.t where id = 5; update raw_erp.t set v = '' where id = 9;"
        "update raw_erp.t set r = r + 1e-15 where id = 1"
    )
    sql_database.execute(
        "delete from t where id = 13", "update t set v = 'new', changed = '2024-04-02 00:00:00' where id = 20"
    )
    found = compare(heal=True)
    assert sorted(named(found)) == [
        (None, ("1",), "different", ("r",)),
        (None, ("13",), "deleted", ()),
        (None, ("5",), "missing", ()),
        (None, ("9",), "different", ("v",)),
    ]
    assert found is not None
    assert not found.findings.open
    assert named(compare()) == []
    with pytest.raises(ConfigurationError, match="Raw has 49 rows: more than the 20 that are read again"):
        compare(limits=Limits(rows=20))


@pytest.mark.parametrize(
    ("privacy", "key"),
    [
        ({"v": Hashed(Secret("hash_key"))}, "45"),
        ({"v": Dropped()}, "45"),
        ({"id": Masked()}, "***"),
        ({"id": Hashed(Secret("hash_key"))}, r"[0-9a-f]{64}"),
    ],
)
def test_private_fields_are_compared_as_far_as_raw_has_them(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    privacy: dict[str, Treatment],
    key: str,
) -> None:
    connection = source_database(TABLE.replace("id int", "id text").replace("select n,", "select n::text,"))
    shop = erp(name="t", primary_key=("id",), cursor=Cursor("changed"), event_time="at", windows=WINDOWS,
               deletes=Deletes(), privacy=privacy)  # fmt: skip
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    where = EnvironmentConnections({"HEADWATER_ERP_URL": url, "HEADWATER_HASH_KEY": "a key of some length"})
    ingest(shop, shop.streams[0], where, destination)
    assert named(reconcile(shop, shop.streams[0], where, destination)) == []
    warehouse.execute("update raw_erp.t set at = at + interval '1 second' where at = '2024-03-02 00:05Z'")
    [(day, (found,), kind, columns)] = named(reconcile(shop, shop.streams[0], where, destination))
    assert (day, kind, columns) == (1, "different", ("at",))
    assert found == key or re.fullmatch(key, found)
    assert warehouse.query("select key from ops.differences") == [([found],)]


def test_a_reconciliation_that_was_killed_leaves_nothing_and_holds_nobody_up(open_erp: Open) -> None:
    shop = open_erp()
    shop.warehouse.execute(
        "insert into ops.reconciliations (reconciliation_id, source, stream, compared_by)"
        " values (gen_random_uuid(), 'erp', 't', 'digests')"
    )
    assert named(shop.reconcile()) == []
    assert shop.warehouse.query("select status, error from ops.reconciliations order by started_at") == [
        ("failed", "its run was killed"),
        ("equal", None),
    ]


def test_two_reconciliations_of_a_stream_take_turns_and_loads_do_not_wait_for_them(open_erp: Open) -> None:
    shop = open_erp()
    with Lease(shop.destination.warehouse, "erp", "t", "another run", scope="reconcile"):
        with pytest.raises(StreamBusyError):
            shop.reconcile(wait_seconds=0)
        shop.load()
