"""Cursors of MySQL and SQLite that lose no row: late commits, shared instants, restored sources, windows."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError, SourceRewoundError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, NullCursor, Window
from connectors.sql import SqlSource
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, counts, raw
from tests.connectors.sql.sql_databases import MySql, Sqlite, connections, load_sql, sql_erp

EVENTS = "create table t (id int primary key, v varchar(40), changed timestamp(6) null default current_timestamp(6))"


def events(**changes: Any) -> SqlSource:
    definition = {"name": "t", "primary_key": ("id",), "cursor": Cursor("changed"), "settle_seconds": 0, **changes}
    return sql_erp(**definition)


def watermark(warehouse: Warehouse) -> str | None:
    return next((value for (value,) in warehouse.query("select value from ops.watermarks")), None)


def test_rows_that_share_the_watermark_are_found_by_microseconds(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        EVENTS,
        "insert into t values (1, 'a', '2024-01-01 10:00:00.123456'), (2, 'b', '2024-01-01 10:00:00.123455'),"
        " (3, 'c', null)",
    )
    assert counts(load_sql(events(), mysql, destination)) == (3, 3, 0, 0, 0, 0)
    assert watermark(warehouse) == "2024-01-01 10:00:00.123456+00"
    mysql.execute(
        "insert into t values (4, 'd', '2024-01-01 10:00:00.123456')",
        "update t set v = 'not seen' where id = 2",
        "update t set v = 'of no time, so read each time' where id = 3",
    )
    assert counts(load_sql(events(), mysql, destination)) == (3, 1, 1, 1, 0, 0)
    assert raw(warehouse, "id, v", "raw_erp.t")[1] == (2, "b")
    assert load_sql(events(), mysql, destination, full_refresh=True).updated == 1
    rejecting = events(cursor=Cursor("changed", nulls=NullCursor.REJECT), reject_limit=1)
    assert load_sql(rejecting, mysql, destination).quarantined == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int unsigned", ["1", "4294967295", "4294967295"]),
        ("bigint unsigned", ["1", "18446744073709551615", "18446744073709551615"]),
        ("decimal(30, 10)", ["0.5", "12345678901234567890.0123456789", "12345678901234567890.0123456789"]),
        ("float", ["0.1", "0.7", "0.7"]),
        ("double", ["0.1", "0.3", "0.1e0 + 0.2e0"]),
        ("date", ["'2024-01-01'", "'2024-01-02'", "'2024-01-02'"]),
        ("datetime(3)", ["'2024-01-01 00:00:00.001'", "'2024-01-01 00:00:00.002'", "'2024-01-01 00:00:00.002'"]),
        ("timestamp null", ["'2024-03-10 02:30:00'", "'2024-03-10 03:30:00'", "'2024-03-10 03:30:00'"]),
        ("year", ["2001", "2024", "2024"]),
    ],
)
def test_a_watermark_of_any_type_finds_the_rows_from_it_on(
    kind: str, values: list[str], mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    first, second, third = values
    mysql.execute(
        f"create table t (id int primary key, changed {kind})", f"insert into t values (1, {first}), (2, {second})"
    )
    assert load_sql(events(), mysql, destination).inserted == 2
    mysql.execute(f"insert into t values (3, {third})")
    assert counts(load_sql(events(), mysql, destination)) == (2, 1, 0, 1, 0, 0)


def test_a_row_that_is_committed_after_later_ones_is_not_lost(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(EVENTS, "insert into t (id) values (1)")
    load_sql(events(), mysql, destination)
    before = watermark(warehouse)
    late = mysql.session(autocommit=False)
    late.cursor().execute("insert into t (id, v) values (2, 'late')")
    mysql.execute("insert into t (id, v) values (3, 'early')")
    assert load_sql(events(), mysql, destination).inserted == 1
    assert watermark(warehouse) == before, "a transaction is open that may commit rows below"
    late.commit()
    late.close()
    assert load_sql(events(), mysql, destination).inserted == 1
    assert raw(warehouse, "id, v", "raw_erp.t") == [(1, None), (2, "late"), (3, "early")]
    assert watermark(warehouse) > (before or "")
    assert warehouse.query("select pending from ops.watermarks") == [([],)]


def test_a_statement_that_has_its_time_and_is_still_running_is_not_lost(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(EVENTS, "insert into t (id) values (1)")
    # Its time is that of its beginning; that it sleeps comes before it touches the table.
    slow = threading.Thread(
        target=mysql.execute, args=["insert into t select 2, sleep(1.5), now(6) from (select 1) one"]
    )
    slow.start()
    time.sleep(0.3)
    mysql.execute("insert into t (id) values (3)")
    assert load_sql(events(), mysql, destination).inserted == 2
    slow.join()
    assert load_sql(events(), mysql, destination).inserted == 1


def test_a_short_transaction_is_waited_for(mysql: MySql, warehouse: Warehouse, destination: Destination) -> None:
    mysql.execute("create table t (id serial primary key, v varchar(9))")
    late = mysql.session(autocommit=False)
    late.cursor().execute("insert into t (v) values ('late')")
    mysql.execute("insert into t (v) values ('early')")
    ending = threading.Timer(0.5, late.commit)
    ending.start()
    source = events(cursor=Cursor("id"), settle_seconds=20)
    assert load_sql(source, mysql, destination).inserted == 2
    assert watermark(warehouse) == "2"
    ending.join()
    late.close()


def test_those_who_only_read_are_not_waited_for(mysql: MySql, warehouse: Warehouse, destination: Destination) -> None:
    mysql.execute(EVENTS, "insert into t (id) values (1)")
    reader = mysql.session()
    reader.cursor().execute("start transaction read only")
    reader.cursor().execute("select * from t")
    asleep = threading.Thread(target=mysql.execute, args=["select sleep(1)"])
    asleep.start()
    time.sleep(0.2)
    load_sql(events(), mysql, destination)
    assert watermark(warehouse) is not None
    asleep.join()
    reader.close()


@pytest.fixture
def modest(mysql: MySql) -> EnvironmentConnections:
    """As a user who may read the tables, and see nobody's transactions."""
    user = f"u{str(mysql.url.database)[-12:]}"
    mysql.execute(
        f"create user {user}@'localhost' identified by 'modest-secret'",
        f"grant select on {mysql.url.database}.* to {user}@'localhost'",
    )
    url = mysql.url.set(username=user, password="modest-secret")
    return connections(url.render_as_string(hide_password=False))


def test_who_cannot_see_open_transactions_needs_a_lag_or_a_promise(
    mysql: MySql, modest: EnvironmentConnections, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(EVENTS, "insert into t values (1, '', '2024-01-01 10:00:00'), (2, '', '2024-01-01 12:00:00')")

    def load(source: SqlSource) -> tuple[int, ...]:
        return counts(ingest(source, source.streams[0], modest, destination)[-1])

    with pytest.raises(ConfigurationError, match="may not see which transactions are open.*Grant it PROCESS"):
        load(events())
    lagging = events(cursor=Cursor("changed", lag=timedelta(hours=1)))
    assert load(lagging) == (2, 2, 0, 0, 0, 0)
    mysql.execute(
        "insert into t values (3, 'too late', '2024-01-01 10:59:59.999999'), (4, 'late', '2024-01-01 11:00:00')"
    )
    assert load(lagging) == (2, 1, 0, 1, 0, 0)
    assert load(events(commits_in_order=True)) == (1, 0, 0, 1, 0, 0)
    assert load(events(cursor=None))[:2] == (4, 1), "without a cursor nothing can be missed"


def test_values_ahead_of_the_clock_do_not_become_the_watermark(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        EVENTS.replace("timestamp(6) null default current_timestamp(6)", "datetime"),
        "insert into t values (1, '', '2024-01-01'), (2, '', '9999-12-31'),"
        " (3, '', utc_timestamp() + interval 15 hour)",
    )
    load_sql(events(), mysql, destination)
    assert watermark(warehouse) == "2024-01-01 00:00:00"
    assert load_sql(events(), mysql, destination).unchanged == 3


def test_a_source_that_was_put_back_stops_the_load_and_deleted_rows_do_not(
    mysql: MySql, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    mysql.execute(EVENTS, "insert into t values (1, '', '2024-01-01'), (2, '', '2024-01-02')")
    load_sql(events(), mysql, destination)
    mysql.execute("delete from t where id = 2")
    assert load_sql(events(), mysql, destination).extracted == 0
    assert "its newest rows were deleted" in caplog.text
    time.sleep(1.1)  # a table's age is told in seconds
    mysql.execute("drop table t", EVENTS, "insert into t values (1, '', '2024-01-01')")
    with pytest.raises(SourceRewoundError, match="restored from a backup"):
        load_sql(events(), mysql, destination)
    assert load_sql(events(), mysql, destination, full_refresh=True).extracted == 1
    assert watermark(warehouse) == "2024-01-01 00:00:00+00"


@pytest.mark.parametrize("kind", ["timestamp(6) null", "datetime(6)"])
def test_a_window_of_mysql_is_half_open(
    kind: str, mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        f"create table t (id int primary key, at {kind})",
        "insert into t values (1, '2023-12-31 23:59:59.999999'), (2, '2024-01-01 00:00:00'),"
        " (3, '2024-01-01 23:59:59.999999'), (4, '2024-01-02 00:00:00'), (5, null)",
    )
    source = events(cursor=None, event_time="at")
    load_sql(source, mysql, destination, window=Window.parse("2024-01-01T01:00:00+01:00", "2024-01-02"))
    assert raw(warehouse, "id", "raw_erp.t") == [(2,), (3,)]


def test_a_window_of_days_holds_those_that_begin_in_it(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "create table t (id int primary key, at date)",
        "insert into t values (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03')",
    )
    source = events(cursor=None, event_time="at")
    load_sql(source, mysql, destination, window=Window.parse("2024-01-01T12:00:00", "2024-01-02T12:00:00"))
    assert raw(warehouse, "id", "raw_erp.t") == [(2,)]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"cursor": Cursor("v")}, "cursor v is of type text"),
        ({"cursor": Cursor("v"), "columns": {"v": "timestamptz"}}, "text, declared as timestamp with time zone"),
        ({"cursor": None, "event_time": "v"}, "event_time v is of type text"),
        ({"cursor": Cursor("id", lag=timedelta(days=1))}, "has a lag, which is a span of time"),
        ({"cursor": Cursor("changed", initial="yesterday")}, "start at `yesterday`"),
    ],
)
def test_a_cursor_that_databases_order_differently_is_refused(
    changes: dict[str, Any], what: str, mysql: MySql, destination: Destination
) -> None:
    mysql.execute(EVENTS)
    window = Window.parse("2024-01-01", "2024-01-02") if "event_time" in changes else None
    with pytest.raises(ConfigurationError, match=what):
        load_sql(events(**changes), mysql, destination, window=window)


# SQLite: times are texts there


@pytest.mark.parametrize(
    ("kind", "columns", "times"),
    [
        ("datetime", {}, ["2024-01-01 10:00:00", "2024-01-01T10:00:01.500", "2024-01-01 10:00:01.500000"]),
        ("datetime", {}, ["2024-01-01", "2024-01-02", "2024-01-02 00:00"]),
        (
            "text",
            {"changed": "timestamptz"},
            ["2024-01-02T00:00:00+02:00", "2024-01-01 23:00:00Z", "2024-01-01T23:00Z"],
        ),
        (
            "text",
            {"changed": "timestamp"},
            ["2024-01-01 09:59:59.9", "2024-01-01 10:00:00.1", "2024-01-01T10:00:00.100"],
        ),
        ("date", {}, ["2024-01-01", "2024-01-02", "2024-01-02"]),
        ("integer", {}, [1, 2**53 + 1, 2**53 + 1]),
        ("real", {}, [0.1, 0.1 + 0.2, 0.1 + 0.2]),
        ("numeric", {}, [1, 2.5, 2.5]),
    ],
)
def test_times_of_sqlite_are_followed_however_they_are_written(
    kind: str, columns: dict[str, str], times: list[Any], tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    database = Sqlite(tmp_path / "erp.db")
    create = f"create table t (id integer primary key, changed {kind})"
    database.execute(create, "insert into t values (?, ?)", rows=[(1, times[0]), (2, times[1]), (3, None)])
    source = events(columns=columns)
    assert load_sql(source, database, destination).inserted == 3
    database.execute("insert into t values (?, ?)", rows=[(4, times[2])])
    assert counts(load_sql(source, database, destination)) == (3, 1, 0, 2, 0, 0), watermark(warehouse)


def test_a_window_of_sqlite_is_half_open(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    database = Sqlite(tmp_path / "erp.db")
    times = [
        "2023-12-31 23:59:59.9999",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01 23:59:59.999999",
        "2024-01-02",
        None,
    ]
    database.execute(
        "create table t (id integer primary key, at datetime)",
        "insert into t values (?, ?)",
        rows=list(enumerate(times)),
    )
    source = events(cursor=None, event_time="at")
    load_sql(source, database, destination, window=Window.parse("2024-01-01", "2024-01-02"))
    assert raw(warehouse, "id", "raw_erp.t") == [(1,), (2,), (3,)]


# PostgreSQL, as any other database


def test_a_database_whose_transactions_cannot_be_seen_needs_a_lag(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, changed timestamptz);"
        "insert into t values (1, '2024-01-01 10:00Z'), (2, '2024-01-01 12:00Z')"
    )
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)

    def load(source: SqlSource) -> tuple[int, ...]:
        return counts(ingest(source, source.streams[0], connections(url), destination)[-1])

    with pytest.raises(ConfigurationError, match="yet to be committed.*PostgresSource"):
        load(events())
    lagging = events(cursor=Cursor("changed", lag=timedelta(hours=1)))
    assert load(lagging) == (2, 2, 0, 0, 0, 0)
    connection.execute("insert into t values (3, '2024-01-01 11:00+00')")
    assert load(lagging) == (2, 1, 0, 1, 0, 0)
