"""Rollback: serving as it was, to the byte, at one word, and it stays so until it is released."""

from __future__ import annotations

import random
from dataclasses import replace

import psycopg
import pytest

from connectors.destinations.warehouse import generations
from connectors.destinations.warehouse.rollback import RolledBack, release, roll_back
from connectors.errors import ConfigurationError, UnknownNameError
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import (
    ALL,
    BUILD,
    ORDERS,
    RAISE_TOTALS,
    STAFF,
    SUMS,
    change,
    content,
    read,
    run,
)


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    change(warehouse, BUILD)
    run(warehouse)
    return warehouse


def back(
    built: Warehouse, group: str | None = None, to: int | None = None, why: str = "wrong totals"
) -> list[RolledBack]:
    return roll_back(built.url("publisher"), group=group, to=to, by="ana", why=why)


def everything(built: Warehouse) -> dict[str, list[tuple[object, ...]]]:
    names = built.query("select viewname from pg_views where schemaname = 'serving' and viewname <> 'data_status'")
    return {name: content(built, f"serving.{name}") for (name,) in sorted(names)}


def test_the_last_generation_that_changed_anything_is_taken_back(built: Warehouse) -> None:
    before = everything(built)
    change(built, RAISE_TOTALS)
    run(built)
    run(built)
    assert back(built) == [RolledBack("people", 3, 1), RolledBack("sales", 3, 1)]
    assert everything(built) == before
    assert read(built, "select distinct generation, status from serving.data_status") == [(1, "held back")]


def test_a_group_alone_goes_back_and_builds_do_not_move_it_until_it_is_released(built: Warehouse) -> None:
    change(built, RAISE_TOTALS)
    run(built)
    assert back(built, "sales") == [RolledBack("sales", 2, 1)]
    change(built, f"{RAISE_TOTALS}; update marts.dim_staff set name = 'new'")
    report = run(built)
    assert report.groups == ("people",)
    assert report.on_hold == {"sales": "wrong totals (generation 2 to 1)"}
    assert read(built, "select sum(total) from serving.fct_orders") == [(50500,)]
    status = dict(read(built, "select mart, status || '|' || why from serving.data_status"))
    assert "held back|On hold since" in str(status["fct_sums"])
    assert "by ana: wrong totals (generation 2 to 1)." in str(status["fct_sums"])
    assert status["dim_staff"] == "fresh|"
    assert release(built.url("publisher"), group="sales") == ["sales"]
    assert run(built).groups == ("people", "sales")
    assert everything(built) == {name: content(built, f"marts.{name}") for name in everything(built)}


def test_release_of_what_is_not_on_hold_does_nothing(built: Warehouse) -> None:
    assert release(built.url("publisher")) == []


CHANGES = (
    "update marts.fct_orders set kind = kind || '!' where id in (select id from marts.fct_orders order by id limit 3)",
    "update marts.fct_orders set id = id + 1000 where id < 5",
    "delete from marts.fct_orders where id % 17 = 0",
    "insert into marts.fct_orders (id, kind) select 2000 + coalesce(max(id), 0), 'n' from marts.fct_orders",
    "update marts.fct_sums set total = total + 1 where kind = 'k1'",
    "alter table marts.fct_orders add column if not exists note text default 'x'",
    "alter table marts.fct_orders drop column if exists note",
    "alter table marts.fct_orders alter total type text",
    "truncate marts.dim_staff",
    "without sums",
    "",
)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(3, 30))])
def test_any_generation_that_is_kept_can_be_had_again(built: Warehouse, seed: int) -> None:
    chance = random.Random(seed)
    states = {1: everything(built)}
    for _ in range(12):
        statement = chance.choice(CHANGES)
        change(built, "" if statement == "without sums" else statement)
        generation = run(built, *((ORDERS, STAFF) if statement == "without sums" else ALL)).generation
        assert generation is not None
        states[generation] = everything(built)
    for to in sorted(chance.sample(sorted(states)[:-1], 3), reverse=True):
        before = everything(built)
        try:
            back(built, to=to)
        except ConfigurationError as error:
            assert "no longer kept" in str(error)  # noqa: PT017 - either that, or all is as it was
            assert everything(built) == before
            break
        assert everything(built) == states[to]
        status = built.query("select mart, rows from serving.data_status where generation is not null order by 1")
        assert status == [(name, len(rows)) for name, rows in sorted(states[to].items())]
    release(built.url("publisher"))
    run(built)
    assert everything(built) == {mart.name: content(built, f"marts.{mart.name}") for mart in ALL}


def test_what_is_kept_has_bounds(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "KEPT_GENERATIONS", 3)
    for number in range(6):
        change(built, f"update marts.fct_orders set total = {number} where id = 1")
        run(built)
    assert built.query("select count(*) from pg_tables where schemaname = 'undo'") == [(3,)]
    with pytest.raises(ConfigurationError, match="no longer kept. Generations that it can go back to: 6, 5, 4."):
        back(built, "sales", 3)
    back(built, "sales", 4)
    assert read(built, "select total from serving.fct_orders where id = 1") == [(2,)]


def test_what_is_kept_is_no_second_copy_of_the_data(built: Warehouse) -> None:
    """Of generations that replaced every row, only the latest can be taken back."""
    for _ in range(4):
        change(built, RAISE_TOTALS)
        run(built)
    rows = "select sum(undo_rows) from ops.published_marts where mart_group = 'sales'"
    assert built.query(rows) == [(103,)]
    change(built, "delete from marts.fct_orders where id > 1")
    for _ in range(2):
        run(built)
    assert built.query(rows) == [(99,)]
    change(built, "delete from marts.fct_orders")
    assert back(built, "sales") == [RolledBack("sales", 7, 5)]


def test_what_cannot_be_gone_back_to_is_said(built: Warehouse) -> None:
    with pytest.raises(UnknownNameError, match="no group of marts `wages`. .*`people`, `sales`"):
        back(built, "wages")
    with pytest.raises(ConfigurationError, match="Nothing that was published can be taken back"):
        back(built)
    with pytest.raises(ConfigurationError, match="Nothing is served that is newer than generation 1"):
        back(built, to=1)
    with pytest.raises(ConfigurationError, match="`sales` cannot go back to generation 0"):
        back(built, "sales", 0)


def test_a_generation_is_not_taken_back_past_a_mart_that_has_gone_to_another_group(built: Warehouse) -> None:
    change(built, "update marts.fct_orders set total = 1 where id = 1")
    run(built)
    run(built, ORDERS, replace(SUMS, group="sums"), STAFF)
    before = everything(built)
    with pytest.raises(ConfigurationError, match="the mart `fct_sums` has gone to the group `sums` since"):
        back(built, "sales", 1)
    assert everything(built) == before


def test_a_mart_does_not_leave_a_group_that_is_on_hold(built: Warehouse) -> None:
    change(built, RAISE_TOTALS)
    run(built)
    back(built, "sales")
    report = run(built, ORDERS, replace(SUMS, group="sums"), STAFF)
    assert "of the group `sales`, which is on hold" in report.held_back["sums"]
    assert read(built, "select sum(total) from serving.fct_sums") == [(50500,)]


def test_only_the_publisher_can_go_back(built: Warehouse) -> None:
    change(built, RAISE_TOTALS)
    run(built)
    for role in ("reader", "loader", "transformer"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roll_back(built.url(role), by="mallory")
