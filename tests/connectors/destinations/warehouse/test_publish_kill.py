"""A publish or a rollback that is killed at any instant: serving is as it was or as it should be; a rerun ends it."""

from __future__ import annotations

from functools import partial

import pytest

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.publish import publish
from connectors.destinations.warehouse.rollback import release, roll_back
from connectors.failpoints import PUBLISH_FAILPOINTS
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import ALL, BUILD, RAISE_TOTALS, change, content, run
from tests.victims import kill_at


def prepare_and_publish(warehouse: Warehouse) -> None:
    prepare(warehouse.url("transformer"), ALL)
    publish(warehouse.url("publisher"), ALL, invocation_id="the victim")


INSTANTS = [*PUBLISH_FAILPOINTS, "mart-written:3"]
SERVED = PUBLISH_FAILPOINTS[-1]


def everything(built: Warehouse) -> list[object]:
    """What readers see, and what is kept of it."""
    return [
        *(content(built, f"serving.{mart.name}") for mart in ALL),
        built.query("select mart, generation, rows, status from serving.data_status order by 1"),
        built.query("select tablename from pg_tables where schemaname in ('published', 'undo') order by 1"),
        built.query("select max(generation) from ops.publishes"),
    ]


@pytest.fixture
def changed(warehouse: Warehouse) -> Warehouse:
    """Two generations of a shape each, and a change that is not published."""
    change(warehouse, BUILD)
    run(warehouse)
    change(warehouse, f"alter table marts.fct_orders add note text; {RAISE_TOTALS}")
    run(warehouse)
    return warehouse


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_publish_that_is_killed_leaves_serving_as_it_was(changed: Warehouse, instant: str) -> None:
    change(
        changed, f"{RAISE_TOTALS}; alter table marts.dim_staff add age int; delete from marts.fct_orders where id = 1"
    )
    before = everything(changed)
    kill_at(instant, partial(prepare_and_publish, changed))
    assert (everything(changed) == before) == (instant != SERVED)
    report = run(changed)
    assert report.generation == (4 if instant == SERVED else 3)
    for mart in ALL:
        assert content(changed, f"serving.{mart.name}") == content(changed, f"marts.{mart.name}")


@pytest.mark.parametrize("instant", [instant for instant in INSTANTS if instant != "publish-begun"])
def test_a_rollback_that_is_killed_leaves_serving_as_it_was(changed: Warehouse, instant: str) -> None:
    before = everything(changed)
    kill_at(instant, partial(roll_back, changed.url("publisher"), by="the victim"))
    assert (everything(changed) == before) == (instant != SERVED)
    if instant != SERVED:
        roll_back(changed.url("publisher"), by="test")
    assert changed.query("select sum(total), count(*) from serving.fct_orders") == [(50500, 100)]
    release(changed.url("publisher"))
    run(changed)
    assert content(changed, "serving.fct_orders") == content(changed, "marts.fct_orders")
