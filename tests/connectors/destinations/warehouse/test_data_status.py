"""The trust record: what it says of each mart, and that it says so by itself when nobody publishes any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from connectors.destinations.warehouse.marts import Feed, Verdict
from connectors.destinations.warehouse.positions import Position
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import BUILD, ORDERS, STAFF, SUMS, change, read, run

ORDERS_FEED = Feed("shop", "orders", timedelta(hours=2), timedelta(hours=4))
RATES_FEED = Feed("shop", "rates", timedelta(days=30))
STAFF_FEED = Feed("hr", "staff")
MARTS = (
    replace(ORDERS, feeds=(ORDERS_FEED, RATES_FEED)),
    replace(SUMS, feeds=(ORDERS_FEED,)),
    replace(STAFF, feeds=(STAFF_FEED,)),
)


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    change(warehouse, BUILD)
    return warehouse


def reached(*, orders_hours: float = 1, rates_days: float = 1) -> tuple[Position, ...]:
    """How far the streams were, as an age."""
    now = datetime.now(UTC)
    orders, rates = now - timedelta(hours=orders_hours), now - timedelta(days=rates_days)
    return (Position("shop", "orders", orders, orders), Position("shop", "rates", rates, rates),
            Position("hr", "staff", now, now))  # fmt: skip


def status(built: Warehouse, mart: str) -> tuple[object, str]:
    [(of, why)] = read(built, f"select status, why from serving.data_status where mart = '{mart}'")
    return of, str(why)


def test_data_is_as_of_the_oldest_stream_behind_it(built: Warehouse) -> None:
    positions = reached()
    run(built, *MARTS, positions=positions)
    assert read(built, "select mart, mart_group, generation, rows, data_as_of, status, why from serving.data_status"
                " order by mart") == [
        ("dim_staff", "people", 1, 10, positions[2].as_of, "fresh", ""),
        ("fct_orders", "sales", 1, 100, positions[1].as_of, "fresh", ""),
        ("fct_sums", "sales", 1, 3, positions[0].as_of, "fresh", ""),
    ]  # fmt: skip


def test_a_pipeline_that_stopped_turns_late_and_stale_by_itself(built: Warehouse) -> None:
    run(built, *MARTS, positions=reached(orders_hours=3, rates_days=31))
    of, why = status(built, "fct_sums")
    assert of == "late"
    assert why.startswith("Late: shop.orders is known up to ")
    assert status(built, "fct_orders")[1].count("shop.") == 2
    built.execute(
        "update ops.published_sources set late_at = late_at - interval '2 h', stale_at = stale_at - interval '2 h'"
    )
    of, why = status(built, "fct_orders")
    assert of == "stale"
    assert why.startswith("Stale: shop.orders is known up to ")
    assert "Late: shop.rates" in why
    assert status(built, "dim_staff") == ("fresh", "")


def test_a_stream_that_was_never_loaded_is_stale_and_the_age_of_the_data_unknown(built: Warehouse) -> None:
    run(built, *MARTS, positions=reached()[1:])
    assert status(built, "fct_sums") == ("stale", "Stale: shop.orders. Never loaded: shop.orders.")
    assert read(built, "select data_as_of from serving.data_status where mart = 'fct_orders'") == [(None,)]


def test_a_group_that_is_held_back_says_why_and_what_is_served_keeps_its_age(built: Warehouse) -> None:
    first = reached(orders_hours=1.5)
    run(built, *MARTS, positions=first)
    bad = Verdict(passed=6, failed=1, warned=2, why="unique_id: Got 2 results")
    run(built, *MARTS, positions=reached(), verdicts={"fct_orders": bad, "fct_sums": Verdict(passed=2)})
    of, why = status(built, "fct_sums")
    assert of == "held back"
    assert why.startswith("Held back since ")
    assert why.endswith("UTC: unique_id: Got 2 results.")
    assert read(built, "select mart, generation, data_as_of, tests_passed, tests_failed, tests_warned"
                " from serving.data_status where mart_group = 'sales' order by mart") == [
        ("fct_orders", 1, first[1].as_of, 6, 1, 2),
        ("fct_sums", 1, first[0].as_of, 2, 0, 0),
    ]  # fmt: skip
    run(built, *MARTS, positions=reached())
    assert status(built, "fct_sums") == ("fresh", "")


def test_a_mart_that_was_never_published_is_held_back(built: Warehouse) -> None:
    run(built, *MARTS, verdicts={"dim_staff": Verdict(failed=1, why="bad")})
    of, why = status(built, "dim_staff")
    assert of == "held back"
    assert "bad" in why
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(built, "select * from serving.dim_staff")


def test_rows_in_quarantine_behind_a_mart_are_counted_until_they_are_replayed(built: Warehouse) -> None:
    run(built, *MARTS, positions=reached())
    built.execute(
        """
        insert into ops.loads (load_id, source, stream, status, attempt)
        select gen_random_uuid(), 'shop', s, 'landed', 1 from unnest(array['orders', 'rates']) s;
        insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload)
        select source, stream, load_id, n, 'bad', '{}' from ops.loads, generate_series(1, 3) n;
        """
    )
    counts = "select mart, quarantined_rows from serving.data_status order by mart"
    assert read(built, counts) == [("dim_staff", 0), ("fct_orders", 6), ("fct_sums", 3)]
    built.execute("update ops.quarantine set replayed_by = load_id where row_in_load < 3 and stream = 'orders'")
    assert read(built, counts) == [("dim_staff", 0), ("fct_orders", 4), ("fct_sums", 1)]


def test_readers_have_the_record_through_its_view_alone_and_every_column_is_explained(built: Warehouse) -> None:
    run(built, *MARTS)
    for table in ("ops.serving_marts", "ops.serving_groups", "ops.published_sources", "ops.quarantine"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            read(built, f"select * from {table}")
    unexplained = built.query(
        "select attname from pg_attribute where attrelid = 'serving.data_status'::regclass and attnum > 0"
        " and col_description(attrelid, attnum) is null"
    )
    assert unexplained == []


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("publisher", "update marts.fct_orders set total = 0"),
        ("publisher", "insert into changes.x values (1)"),
        ("publisher", "create table changes.y (n int)"),
        ("publisher", "drop view serving.data_status"),
        ("publisher", "delete from ops.publishes"),
        ("publisher", "update ops.published_marts set rows_total = 0"),
        ("publisher", "delete from ops.published_groups"),
        ("transformer", "update ops.serving_groups set hold_since = null"),
        ("transformer", "select * from published.fct_orders"),
        ("transformer", "create table undo.y (n int)"),
        ("loader", "select * from undo.x"),
        ("reader", "select * from published.fct_orders"),
        ("reader", "select ops.note_changes()"),
    ],
)
def test_no_role_may_do_more_than_it_has_to(built: Warehouse, role: str, statement: str) -> None:
    run(built, *MARTS)
    change(built, "update marts.fct_orders set total = 1 where id = 1")
    run(built, *MARTS)
    names = dict(built.query("select relnamespace::regnamespace::text, relname from pg_class where relkind = 'r'"
                             " and relnamespace in ('changes'::regnamespace, 'undo'::regnamespace)"))  # fmt: skip
    for schema in ("changes", "undo"):
        statement = statement.replace(f"{schema}.x", f'{schema}."{names[schema]}"')
    with pytest.raises(psycopg.errors.InsufficientPrivilege), built.connect(role) as connection:
        connection.execute(statement.encode())
