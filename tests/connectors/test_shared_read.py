"""Several streams of a database, read as of one instant: what they say of each other fits together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from connectors.connections import Database
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import SourceUnavailableError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, Stream
from connectors.postgres import PostgresSource, TableStream
from connectors.shared_read import SharedRead, shared_read
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, database
from tests.waiting import until

CHANGED = "changed timestamptz not null default now()"
TABLES = f"""
create table orders (id int primary key, {CHANGED});
create table items (id int primary key, "order" int not null references orders, {CHANGED});
"""
SOURCE = PostgresSource(
    name="erp",
    database=Database("erp"),
    settle_seconds=0,
    streams=(
        TableStream(name="items", primary_key=("id",), cursor=Cursor("changed")),
        TableStream(name="orders", primary_key=("id",), cursor=Cursor("changed")),
    ),
)
ITEMS, ORDERS = SOURCE.streams


class Shop:
    """Orders and their items, and raw."""

    def __init__(self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination) -> None:
        self.connection = connection
        self.warehouse = warehouse
        self.destination = destination
        self.connections = database(connection, warehouse)

    def sell(self, number: int, session: psycopg.Connection | None = None) -> None:
        with (session or self.connection).transaction():
            for statement in ("insert into orders values (%s)", 'insert into items (id, "order") values (%s, %s)'):
                values = [number] * statement.count("%s")
                (session or self.connection).execute(statement.encode(), values)

    @contextmanager
    def shared(self) -> Iterator[SharedRead]:
        with shared_read(SOURCE, SOURCE.streams, self.connections, self.destination.warehouse) as shared:
            assert shared is not None
            yield shared

    def load(self, stream: Stream, shared: SharedRead | None = None) -> LoadReport:
        return ingest(SOURCE, stream, self.connections, self.destination, shared=shared)[-1]

    def numbers(self, table: str) -> list[int]:
        return [number for (number,) in self.warehouse.query(f"select id from raw_erp.{table} order by id")]

    def held(self) -> int:
        """Sessions that keep the source from cleaning up."""
        row = self.connection.execute(
            "select count(*) from pg_stat_activity where application_name = 'headwater extract'"
            " and state = 'idle in transaction' and datname = current_database()"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def wait_until_let_go(self) -> None:
        """The server notices a moment after a session was closed."""
        until(lambda: self.held() == 0, "the source was let go")

    def session(self) -> psycopg.Connection:
        return psycopg.connect(self.connection.info.dsn, password=self.connection.info.password)


@pytest.fixture
def shop(source_database: Prepare, warehouse: Warehouse, destination: Destination) -> Shop:
    shop = Shop(source_database(TABLES), warehouse, destination)
    shop.sell(1)
    return shop


def test_streams_are_read_as_of_the_same_instant(shop: Shop) -> None:
    with shop.shared() as shared:
        shop.load(ITEMS, shared)
        shop.sell(2)
        shop.load(ORDERS, shared)
    assert shop.numbers("orders") == shop.numbers("items") == [1]
    with shop.shared() as shared:
        shop.load(ORDERS, shared)
        shop.load(ITEMS, shared)
    assert shop.numbers("orders") == shop.numbers("items") == [1, 2]


def test_every_item_has_its_order_however_busy_the_source_is(shop: Shop) -> None:
    stop = threading.Event()

    def sell() -> None:
        with shop.session() as session:
            session.autocommit = True
            number = 1
            while not stop.is_set():
                shop.sell(number := number + 1, session)

    seller = threading.Thread(target=sell)
    seller.start()
    try:
        for _ in range(5):
            with shop.shared() as shared:
                loads = [threading.Thread(target=shop.load, args=[stream, shared]) for stream in SOURCE.streams]
                for load in loads:
                    load.start()
                for load in loads:
                    load.join()
            assert shop.numbers("orders") == shop.numbers("items")
    finally:
        stop.set()
        seller.join()
    assert len(shop.numbers("orders")) > 1


def test_the_source_is_let_go_when_the_last_has_begun(shop: Shop) -> None:
    with shop.shared() as shared:
        shop.load(ITEMS, shared)
        assert shop.held() == 1
        shop.load(ORDERS, shared)
        shop.wait_until_let_go()


def test_the_source_is_let_go_when_some_never_begin(shop: Shop) -> None:
    with shop.shared():
        assert shop.held() == 1
    shop.wait_until_let_go()


def test_a_stream_that_was_loaded_meanwhile_is_not_put_back(shop: Shop) -> None:
    with shop.shared() as shared:
        shop.connection.execute("delete from items; delete from orders")
        shop.sell(2)
        shop.load(ORDERS)
        shop.load(ORDERS, shared)
        shop.load(ITEMS, shared)
    assert shop.numbers("orders") == [2]
    assert shop.numbers("items") == [1]


def test_a_row_that_is_committed_after_the_instant_is_not_lost(shop: Shop) -> None:
    with shop.session() as late:
        late.execute("select")  # a transaction that what follows is a part of
        shop.sell(2, late)
        shop.sell(3)
        with shop.shared() as shared:
            shop.load(ORDERS, shared)
            shop.load(ITEMS, shared)
        assert shop.numbers("orders") == shop.numbers("items") == [1, 3]
        late.commit()
    with shop.shared() as shared:
        shop.load(ORDERS, shared)
        shop.load(ITEMS, shared)
    assert shop.numbers("orders") == shop.numbers("items") == [1, 2, 3]


def test_an_instant_that_is_gone_is_said_and_nothing_is_loaded(shop: Shop) -> None:
    with shop.shared() as shared:
        shop.load(ITEMS, shared)
        shop.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'headwater extract'"
        )
        with pytest.raises(SourceUnavailableError, match="instant that the streams were to be read as of is gone"):
            shop.load(ORDERS, shared)
    assert shop.load(ORDERS).inserted == 1


def test_a_single_stream_shares_with_nobody(shop: Shop) -> None:
    with shared_read(SOURCE, [ORDERS], shop.connections, shop.destination.warehouse) as shared:
        assert shared is None


def test_a_source_that_ends_while_the_instant_is_taken_is_said_as_its_own_trouble(shop: Shop) -> None:
    patient = replace(SOURCE, settle_seconds=20.0)
    waits = "select pid from pg_stat_activity where application_name = 'headwater extract'"

    def end() -> None:
        until(lambda: shop.connection.execute(waits.encode()).fetchone(), "somebody waits")
        shop.connection.execute("select pg_terminate_backend(pid) from (" + waits + ") w")  # type: ignore[arg-type]

    with shop.session() as open_transaction:
        open_transaction.execute("select")
        ending = threading.Thread(target=end)
        ending.start()
        with (
            pytest.raises(SourceUnavailableError, match="The source's database broke off"),
            shared_read(patient, patient.streams, shop.connections, shop.destination.warehouse),
        ):
            pass
        ending.join()
