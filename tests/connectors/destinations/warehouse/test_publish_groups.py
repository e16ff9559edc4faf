"""Groups: all marts of one move together, and one that must not move holds up no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from connectors.destinations.warehouse.marts import Verdict
from connectors.destinations.warehouse.rollback import release, roll_back
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import (
    ALL,
    BUILD,
    ORDERS,
    RAISE_TOTALS,
    STAFF,
    SUMS,
    change,
    read,
    run,
)

BOTH_MOVE = f"{RAISE_TOTALS}; update marts.dim_staff set name = name || '!'"


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    change(warehouse, BUILD)
    run(warehouse)
    return warehouse


def served(warehouse: Warehouse) -> tuple[object, object, object]:
    """The sum of the orders, that of their sums, and how many of the staff have changed."""
    row = read(
        warehouse,
        "select (select sum(total)::int from serving.fct_orders), (select sum(total)::int from serving.fct_sums),"
        " (select count(*) from serving.dim_staff where name like '%!')",
    )[0]
    return row[0], row[1], row[2]


def test_a_group_that_failed_keeps_its_last_good_generation_and_the_other_moves(built: Warehouse) -> None:
    change(built, BOTH_MOVE)
    report = run(built, verdicts={"fct_sums": Verdict(passed=3, failed=1, why="test of sums failed")})
    assert (report.generation, report.groups, report.held_back) == (2, ("people",), {"sales": "test of sums failed"})
    assert served(built) == (50500, 50500, 10)
    report = run(built)
    assert (report.generation, report.groups) == (3, ("people", "sales"))
    assert served(built) == (50600, 50600, 10)


def test_if_every_group_failed_there_is_no_generation(built: Warehouse) -> None:
    change(built, BOTH_MOVE)
    report = run(built, verdicts={mart.name: Verdict(failed=1, why="bad") for mart in ALL})
    assert (report.generation, report.groups, [*report.held_back]) == (None, (), ["people", "sales"])
    assert built.query("select max(generation) from ops.publishes") == [(1,)]
    assert served(built) == (50500, 50500, 0)


def test_a_mart_whose_key_is_bad_holds_back_the_groups_that_are_built_from_it(built: Warehouse) -> None:
    change(built, f"{BOTH_MOVE}; insert into marts.fct_orders values (1, 0, 'twin')")
    report = run(built, ORDERS, replace(SUMS, group="summaries"), STAFF)
    assert report.groups == ("people",)
    assert [*report.held_back] == ["sales", "summaries"]
    assert all("key (id) of the mart `fct_orders`" in why for why in report.held_back.values())
    assert served(built) == (50500, 50500, 10)


def test_a_mart_that_left_a_group_that_failed_is_served_until_the_group_moves(built: Warehouse) -> None:
    run(built, ORDERS, STAFF, verdicts={"fct_orders": Verdict(why="bad")})
    assert read(built, "select count(*) from serving.fct_sums") == [(3,)]
    run(built, ORDERS, STAFF)
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(built, "select * from serving.fct_sums")


def test_a_group_that_is_no_longer_there_leaves_nothing_behind(built: Warehouse) -> None:
    change(built, BOTH_MOVE)
    run(built)
    run(built, STAFF)
    assert built.query("select mart from ops.serving_marts") == [("dim_staff",)]
    assert built.query("select mart_group from ops.serving_groups") == [("people",)]
    left = "select count(*) from pg_class where relnamespace = 'undo'::regnamespace and relkind = 'r'"
    assert built.query(left) == [(1,)]


@contextmanager
def reader_throughout(built: Warehouse) -> Iterator[set[tuple[object, ...]]]:
    """A reader that looks all the time, in statements that read both marts of a group. Fails on any error."""
    stop, seen, trouble = threading.Event(), set(), []

    def poll() -> None:
        try:
            while not stop.is_set():
                with built.connect("reader") as connection:
                    for _ in range(20):
                        row = connection.execute(
                            "select (select sum(total) from serving.fct_orders),"
                            " (select sum(total) from serving.fct_sums),"
                            " (select count(distinct generation) from serving.data_status where mart_group = 'sales')"
                        ).fetchone()
                        seen.add(row or ())
        except Exception as error:  # noqa: BLE001 - said where the test can hear it
            trouble.append(error)

    readers = [threading.Thread(target=poll) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        yield seen
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not trouble
    assert len(seen) > 2


def test_readers_see_no_error_and_no_mixed_generation_whatever_happens(built: Warehouse) -> None:
    """While generations come, are held back, are taken back, and dbt drops its tables."""
    with reader_throughout(built) as seen:
        for number in range(4):
            change(built, RAISE_TOTALS)
            run(built)
            change(built, "update marts.fct_orders set total = -1")
            run(built, verdicts={"fct_orders": Verdict(why="bad")})
            change(built, f"update marts.fct_orders set total = id * 10 + {number + 1}")
            if number % 2:
                roll_back(built.url("publisher"), group="sales", by="test")
                release(built.url("publisher"))
    assert {row[2] for row in seen} == {1}
    assert not [row for row in seen if row[0] != row[1]]
