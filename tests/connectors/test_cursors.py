"""Cursors that lose no row: rows that are committed late, sources that were put back, values that no row exceeds."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.destinations.warehouse.watermark import Pending, advance
from connectors.errors import ConfigurationError, ContractViolationError, SourceRewoundError, WindowError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, NullCursor, SourcePosition, Window, WriteDisposition
from connectors.postgres import PostgresSource
from tests.conftest import Answer, Api, Server, Warehouse
from tests.connectors.examples import Prepare, Shop, counts, database, erp, load, order, raw, shop_source

EVENTS = "create table t (id int primary key, v text, changed timestamptz default now())"


class Table:
    """A table of a source, and the stream of it."""

    def __init__(self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination) -> None:
        self.connection = connection
        self.warehouse = warehouse
        self.destination = destination
        self.source = self.define()

    def define(self, *, settle_seconds: float = 0, **changes: Any) -> PostgresSource:
        definition: dict[str, Any] = {"name": "t", "primary_key": ("id",), "cursor": Cursor("changed"), **changes}
        self.source = replace(erp(**definition), settle_seconds=settle_seconds)
        return self.source

    def load(self, **options: Any) -> LoadReport:
        connections = database(self.connection, self.warehouse)
        return ingest(self.source, self.source.streams[0], connections, self.destination, **options)[-1]

    def session(self) -> psycopg.Connection:
        """Another session at the source, not in autocommit."""
        return psycopg.connect(self.connection.info.dsn, password=self.connection.info.password)

    @contextmanager
    def moved(self) -> Iterator[None]:
        """While the database is copied or renamed, which nobody may be connected to."""
        dsn, password = self.connection.info.dsn, self.connection.info.password
        self.connection.close()
        yield
        self.connection = psycopg.connect(dsn, password=password, autocommit=True)

    def there(self) -> list[tuple[object, ...]]:
        return self.connection.execute("select id, v from t order by id").fetchall()

    def raw(self) -> list[tuple[object, ...]]:
        return raw(self.warehouse, "id, v", "raw_erp.t")

    def watermark(self) -> str | None:
        return next((value for (value,) in self.warehouse.query("select value from ops.watermarks")), None)


@pytest.fixture
def table(source_database: Prepare, warehouse: Warehouse, destination: Destination) -> Table:
    return Table(source_database(EVENTS), warehouse, destination)


# Rows that are committed late


@pytest.mark.parametrize("has_written", [True, False], ids=["written before the read", "only begun before the read"])
def test_a_row_that_is_committed_after_later_ones_is_not_lost(table: Table, has_written: bool) -> None:
    table.connection.execute("insert into t values (1)")
    table.load()
    late = table.session()
    late.execute("insert into t values (2, 'late')" if has_written else "select now()")
    table.connection.execute("insert into t values (3, 'early')")
    before = table.watermark()
    assert table.load().inserted == 1
    assert table.watermark() == before, "a transaction is open that may commit rows below"
    late.execute("insert into t values (4, 'later still, and of the same instant')")
    late.commit()
    late.close()
    assert table.load().inserted == 1 + has_written
    assert table.raw() == table.there()
    assert table.watermark() == str(table.connection.execute("select max(changed)::text from t").fetchone()[0])  # type: ignore[index]
    assert table.warehouse.query("select pending from ops.watermarks") == [([],)]
    assert counts(table.load()) == (1, 0, 0, 1, 0, 0), "only the row at the watermark is read again"


def test_a_first_load_beside_an_open_transaction_is_repeated_rather_than_trusted(table: Table) -> None:
    late = table.session()
    late.execute("insert into t values (1, 'late')")
    table.connection.execute("insert into t select n, 'early' from generate_series(2, 9) n")
    assert (table.load().inserted, table.watermark()) == (8, None)
    late.commit()
    late.close()
    assert table.load().inserted == 1
    assert table.watermark() is not None
    assert table.raw() == table.there()


def test_a_short_transaction_is_waited_for(table: Table) -> None:
    table.define(settle_seconds=10)
    late = table.session()
    late.execute("insert into t values (1, 'late')")
    table.connection.execute("insert into t values (2, 'early')")

    def end() -> None:
        time.sleep(0.3)
        late.commit()
        late.close()

    thread = threading.Thread(target=end)
    thread.start()
    assert table.load().inserted == 2
    thread.join()
    assert table.watermark() is not None


def test_numbers_of_a_sequence_are_committed_out_of_order_too(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    table = Table(source_database("create table t (id serial primary key, v text)"), warehouse, destination)
    table.define(cursor=Cursor("id"), write=WriteDisposition.APPEND)
    late = table.session()
    late.execute("insert into t (v) values ('late')")
    table.connection.execute("insert into t (v) values ('early')")
    table.load()
    late.rollback()  # its number is never used
    late.execute("insert into t (v) values ('late again')")
    table.connection.execute("insert into t (v) values ('early again')")
    table.load()
    late.commit()
    late.close()
    table.load()
    assert [v for _, v in table.raw()] == ["early", "late again", "early again"]
    assert table.watermark() == "4"


def test_transactions_elsewhere_hold_nothing_back(table: Table, postgres: Server) -> None:
    table.connection.execute("insert into t values (1)")
    with postgres.connect("template1") as other, other.transaction():
        other.execute("select now(), pg_current_xact_id()")
        table.load()
    assert table.watermark() is not None


def test_a_reader_without_privileges_sees_enough(table: Table, postgres: Server) -> None:
    table.connection.execute("insert into t values (1); grant select on t to headwater_reader")
    url = table.warehouse.url("reader").set(database=table.connection.info.dbname)
    connections = EnvironmentConnections({"HEADWATER_ERP_URL": url.render_as_string(hide_password=False)})

    def load() -> LoadReport:
        return ingest(table.source, table.source.streams[0], connections, table.destination)[-1]

    load()
    late = table.session()
    late.execute("insert into t values (2, 'late')")
    table.connection.execute("insert into t values (3, 'early')")
    before = table.watermark()
    load()
    assert table.watermark() == before
    late.commit()
    late.close()
    load()
    assert table.raw() == table.there()


Step = tuple[str, int]


@given(st.lists(st.tuples(st.sampled_from(["begin", "commit", "read"]), st.integers(0, 5)), max_size=60))
def test_no_transaction_ever_commits_below_the_watermark(steps: list[Step]) -> None:
    """A source in which each transaction writes one row, with the instant of its begin as the cursor."""
    open_since: dict[int, int] = {}
    committed: list[int] = []
    pending: tuple[Pending, ...] = ()
    watermark = -1
    for clock, (step, who) in enumerate(steps):
        if step == "begin" and who not in open_since:
            open_since[who] = clock
        elif step == "commit" and who in open_since:
            begun = open_since.pop(who)
            assert begun > watermark, "a row is committed below the watermark: it would never be read"
            committed.append(begun)
        elif step == "read":
            names = tuple(sorted(f"{who}/{since}" for who, since in open_since.items()))
            highest = str(max(committed)) if committed else None
            sure, pending = advance(pending, SourcePosition(highest, names))
            watermark = max([watermark, *map(int, sure)])
            assert len(pending) <= len(names)
            if not names and committed:
                assert watermark == max(committed), "nothing is open, so nothing is held back"


def writer(table: Table, number: int, stop: threading.Event, seconds: float) -> None:
    random_ = random.Random(number)
    with table.session() as connection:
        while not stop.is_set():
            connection.execute("select now()")
            if random_.random() < 0.3:
                time.sleep(random_.random() * seconds / 2)
            for _ in range(random_.randint(1, 3)):
                connection.execute("insert into t (v, writer) values ('new', %s)", [number])
            connection.execute(
                "update t set v = v || 'x', changed = now() where id in"
                " (select id from t where writer = %s order by random() limit 2)",
                [number],
            )
            time.sleep(random_.random() * seconds)
            if random_.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()


@pytest.mark.parametrize(
    ("writers", "runs", "seconds"), [(8, 12, 0.5), pytest.param(16, 200, 5, marks=pytest.mark.chaos)]
)
@pytest.mark.parametrize("cursor", ["changed", "id"])
def test_writers_that_overlap_lose_no_row(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    cursor: str,
    writers: int,
    runs: int,
    seconds: float,
) -> None:
    """By the time of change every version is followed; by number only the rows are, which are not updated then."""
    table = Table(
        source_database(
            "create table t (id bigserial primary key, v text, writer int, changed timestamptz default now())"
        ),
        warehouse,
        destination,
    )
    table.define(cursor=Cursor(cursor), settle_seconds=0.2)
    stop = threading.Event()
    threads = [threading.Thread(target=writer, args=[table, n, stop, seconds]) for n in range(writers)]
    for thread in threads:
        thread.start()
    moved = 0
    try:
        for _ in range(runs):
            report = table.load()
            moved += report.inserted
            ahead = table.warehouse.query(
                f"select count(*) from ops.watermarks where value::{'timestamptz' if cursor == 'changed' else 'bigint'}"
                f" > (select max({cursor}) from raw_erp.t)"
            )
            assert ahead == [(0,)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert moved > runs, "rows came while loads ran"
    table.load()
    columns = "id, v, changed" if cursor == "changed" else "id"
    there = table.connection.execute(f"select {columns} from t order by id".encode()).fetchall()
    assert raw(table.warehouse, columns, "raw_erp.t") == there


# Sources that were put back


def test_newest_rows_that_are_deleted_stop_nothing(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    table.connection.execute("insert into t values (1, 'a', '2024-01-01Z'), (2, 'b', '2024-01-02Z')")
    table.load()
    table.connection.execute("delete from t where id = 2")
    with caplog.at_level(logging.WARNING):
        report = table.load()
    assert report.extracted == 0
    assert "its newest rows were deleted" in caplog.text
    assert table.watermark() == "2024-01-02 00:00:00+00"


@pytest.fixture
def backed_up(table: Table) -> Iterator[Table]:
    """Read once, backed up as a database beside it, changed and read again."""
    table.connection.execute("insert into t values (1, 'old', '2024-01-01Z')")
    table.load()
    name, server = table.connection.info.dbname, table.warehouse.server
    with table.moved():
        server.create_database(f"{name}_backup", template=name)
    table.connection.execute("update t set v = 'new', changed = '2024-02-01Z'")
    table.connection.execute("insert into t values (2, 'gone', '2024-02-02Z')")
    table.load()
    yield table
    table.connection.close()
    for ending in ("_backup", "_lost"):
        server.drop_database(f"{name}{ending}")


def restore_rows(table: Table) -> None:
    table.connection.execute("truncate t; insert into t values (1, 'old', '2024-01-01Z')")


def restore_database(table: Table) -> None:
    name = table.connection.info.dbname
    with table.moved(), table.warehouse.server.connect() as admin:
        admin.execute(f"alter database {name} rename to {name}_lost".encode())
        admin.execute(f"alter database {name}_backup rename to {name}".encode())


@pytest.mark.parametrize("restore", [restore_rows, restore_database])
def test_a_restored_source_stops_the_stream_until_someone_says_it_is_right(
    backed_up: Table, restore: Callable[[Table], None]
) -> None:
    table = backed_up
    before = table.raw(), table.watermark()
    restore(table)
    with pytest.raises(SourceRewoundError, match="restored from a backup.*full_refresh") as raised:
        table.load()
    assert "2024-01-01" in str(raised.value)
    assert "2024-02-02" in str(raised.value)
    assert (table.raw(), table.watermark()) == before
    report = table.load(full_refresh=True)
    assert (report.extracted, report.updated) == (1, 1), "the source's older version counts"
    assert table.raw() == [(1, "old"), (2, "gone")], "what the source has no more is found by comparing keys"
    assert table.watermark() == "2024-01-01 00:00:00+00"
    table.connection.execute("insert into t values (3, 'after', '2024-01-15Z')")
    assert table.load().inserted == 1


def test_an_emptied_table_is_a_table_put_back(table: Table) -> None:
    table.connection.execute("insert into t values (1)")
    table.load()
    table.connection.execute("truncate t")
    with pytest.raises(SourceRewoundError):
        table.load()


def test_a_full_refresh_has_no_window(table: Table) -> None:
    table.define(event_time="changed")
    with pytest.raises(WindowError, match="full refresh"):
        table.load(full_refresh=True, window=Window.parse("2024-01-01", "2024-01-02"))


def test_a_full_refresh_sees_changes_that_moved_no_cursor(table: Table) -> None:
    table.connection.execute("insert into t select n, 'a', '2024-01-01Z' from generate_series(1, 5) n")
    table.connection.execute("insert into t values (6, 'a', '2024-01-02Z')")
    table.load()
    table.connection.execute("update t set v = 'by hand' where id = 2")
    assert table.load().updated == 0
    assert counts(table.load(full_refresh=True)) == (6, 0, 1, 5, 0, 0)
    assert table.raw() == table.there()


# Values that no row exceeds


def test_infinite_and_future_cursors_do_not_become_the_watermark(table: Table) -> None:
    table.connection.execute(
        "insert into t values (1, 'a', '2024-01-01Z'), (2, 'b', 'infinity'), (3, 'c', now() + interval '90 years'),"
        " (4, 'd', '-infinity')"
    )
    table.load()
    assert table.watermark() == "2024-01-01 00:00:00+00"
    table.connection.execute("insert into t values (5, 'e', '2024-01-02Z'); update t set v = 'b2' where id = 2")
    assert counts(table.load()) == (4, 1, 1, 2, 0, 0)
    assert table.raw() == table.there()


@pytest.mark.parametrize(("kind", "last"), [("numeric", "'NaN'"), ("double precision", "'Infinity'")])
def test_numbers_without_end_do_not_become_the_watermark(table: Table, kind: str, last: str) -> None:
    table.connection.execute(f"alter table t alter changed drop default, alter changed type {kind} using 1".encode())
    table.connection.execute(f"insert into t values (1, 'a', 7), (2, 'b', {last})".encode())
    table.load()
    assert table.watermark() == "7"


def test_future_instants_of_an_api_do_not_become_the_watermark(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    far = {"changed": "9999-12-31T00:00:00Z"}
    Shop(api, [order(1), order(2, **far), order(3, changed="infinity"), order(4, changed="nonsense")])
    report = load(shop_source(reject_limit=0.5), api, destination)
    assert (report.inserted, report.quarantined, report.watermark) == (3, 1, "2024-01-01 00:00:00+00")


def test_a_database_is_asked_again_for_rows_without_a_cursor(table: Table) -> None:
    table.connection.execute("insert into t values (1, 'a', null), (2, 'b', '2024-01-01Z')")
    table.load()
    table.connection.execute("update t set v = 'a2' where id = 1")
    assert table.load().updated == 1
    assert table.raw() == table.there()


def test_rows_without_a_cursor_are_quarantined_where_the_stream_says_so(table: Table) -> None:
    table.define(cursor=Cursor("changed", nulls=NullCursor.REJECT), reject_limit=0.5)
    table.connection.execute("insert into t values (1, 'a', null), (2, 'b', '2024-01-01Z')")
    assert counts(table.load()) == (2, 1, 0, 0, 0, 1)
    assert table.warehouse.query("select reason from ops.quarantine") == [("column changed: the cursor is null",)]


def test_an_api_s_rows_without_a_cursor_are_a_choice(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    api.answer = lambda _: Answer({"result": {"orders": [order(1), order(2, changed=None)]}, "next": None})
    with pytest.raises(ContractViolationError, match="the cursor is null"):
        load(shop_source(), api, destination)
    load(shop_source(cursor=Cursor("changed", nulls=NullCursor.LOAD)), api, destination)
    assert raw(warehouse, "id, changed is null") == [(1, False), (2, True)]


def test_a_number_is_the_watermark_by_its_value_and_not_by_its_digits(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(cursor=Cursor("id"), columns={}, event_time=None, window_parameters=None)
    api.answer = lambda _: Answer({"result": {"orders": [{"id": number} for number in (8, 9, 10, 100)]}})
    load(source, api, destination)
    assert warehouse.query("select value from ops.watermarks") == [("100",)]
    [(key,)] = warehouse.query("select manifest_key from ops.loads")
    manifest = destination.landing.manifest(key)
    assert manifest is not None
    assert manifest.cursor_to == "100"
    load(source, api, destination)
    assert api.requests[-1].parameters["since"] == "100"


def test_a_lag_needs_a_cursor_of_time(source_database: Prepare, warehouse: Warehouse, destination: Destination) -> None:
    table = Table(source_database("create table t (id serial primary key, v text)"), warehouse, destination)
    table.define(cursor=Cursor("id", lag=timedelta(hours=1)))
    table.connection.execute("insert into t (v) values ('a')")
    table.load()
    with pytest.raises(ConfigurationError, match="of type integer, and has a lag"):
        table.load()
