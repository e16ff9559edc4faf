"""The drill: drop everything but the backup and the landing, and come back to equal marts, with real dbt.

Between the backup and the loss rows were loaded, built and served, and somebody was forgotten. The long form, on the
demo as it is, is tests/test_drill.py (`make drill`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from connectors.connections import Secret, Setting
from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.publish import publish
from connectors.forget.derived import Derived, Lineage
from connectors.model import Cursor
from connectors.rest import ApiKeyHeader, RestSource, RestStream
from tests.conftest import ROLE_PASSWORD, Answer, Api, Request, Server, Warehouse
from tests.connectors.backups.drill import Drill
from tests.connectors.examples import IMPATIENT
from tests.connectors.forget.forgetting import check_gone, forgotten
from tests.shop import FILES, Shop

SNAPSHOT = """
{% snapshot snap_staff %}
{{ config(schema='snapshots', unique_key='id', strategy='check', check_cols=['name']) }}
select * from {{ ref('stg_staff') }}
{% endsnapshot %}
"""
STAMP = "2024-01-0{}T00:00:00Z"


def _stream(name: str) -> RestStream:
    return RestStream(
        name=name,
        path=f"/{name}",
        records="rows",
        primary_key=("id",),
        cursor=Cursor("changed"),
        since_parameter="since",
        columns={"changed": "timestamptz", "at": "timestamptz"},
    )


SHOP = RestSource(
    name="shop",
    base_url=Setting("shop_url"),
    auth=ApiKeyHeader("X-Key", Secret("shop_key")),
    retries=IMPATIENT,
    streams=(_stream("orders"), _stream("staff")),
)
LINEAGES = {
    "shop.orders": Lineage(
        "shop.orders",
        (
            Derived("fct_orders", "marts", keeps_rows=True, key={"id": "id"}, group="sales"),
            Derived("all_in_one", "marts", keeps_rows=False, key={"id": "id"}),
        ),
    )
}


class System:
    """What the source has, by stream and key."""

    def __init__(self, api: Api) -> None:
        self.orders = {n: self._order(n, 1) for n in range(1, 7)}
        self.staff = {n: {"id": n, "name": f"name {n}", "size": 1, "changed": STAMP.format(1)} for n in (1, 2)}
        api.answer = self._answer

    def change(self, day: int) -> None:
        """An order is new, one has changed, and somebody has another name."""
        self.orders[10 + day] = self._order(10 + day, day)
        self.orders[day] = self._order(day, day) | {"total": 2}
        self.staff[1] = {**self.staff[1], "name": f"name of day {day}", "changed": STAMP.format(day)}

    @staticmethod
    def _order(number: int, day: int) -> dict[str, Any]:
        stamp = STAMP.format(day)
        return {"id": number, "total": 1, "staff_id": 1, "note": f"canary-{number}", "at": stamp, "changed": stamp}

    def _answer(self, request: Request) -> Answer:
        rows = (self.orders if request.path == "/orders" else self.staff).values()
        since = request.parameters.get("since", "")
        found = [row for row in rows if str(row["changed"]) >= since]
        return Answer({"rows": sorted(found, key=lambda row: (str(row["changed"]), row["id"]))})


@pytest.fixture
def project(postgres: Server, tmp_path: Path) -> Callable[[Warehouse], Shop]:
    os.environ["DO_NOT_TRACK"] = "1"
    folder = tmp_path / "project"

    def project(warehouse: Warehouse) -> Shop:
        url: URL = postgres.url
        where = {"password": ROLE_PASSWORD, "host": url.host, "port": url.port, "database": warehouse.database}
        for name, text in {**FILES, "snapshots/snap_staff.sql": SNAPSHOT}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text.format(**where) if name == "profiles.yml" else text)
        return Shop(folder, warehouse)

    return project


def _build(shop: Shop) -> None:
    """Build with dbt, and publish."""
    graph, outcomes = shop.build()
    prepare(shop.warehouse.url("transformer"), graph.marts())
    verdicts = graph.judge(outcomes)
    report = publish(shop.warehouse.url("publisher"), graph.marts(), invocation_id="drill", verdicts=verdicts)
    assert not report.held_back


def _content(warehouse: Warehouse) -> dict[str, list[tuple[Any, ...]]]:
    """What people look at, and what they come from; not when it was loaded, nor when history saw it."""
    when = ["_loaded_at", "dbt_valid_from", "dbt_valid_to", "dbt_updated_at", "dbt_scd_id"]
    tables = ["raw_shop.orders", "raw_shop.staff", "snapshots.snap_staff"]
    tables += [
        f"{schema}.{mart}" for schema in ("marts", "serving") for mart in ("fct_orders", "dim_staff", "all_in_one")
    ]
    return {
        table: warehouse.query(f"select to_jsonb(t) - %s::text[] from {table} t order by 1", [when]) for table in tables
    }


@pytest.mark.parametrize("with_raw", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_marts_are_equal_after_all_but_backup_and_landing_was_dropped(
    api: Api, warehouse: Warehouse, tmp_path: Path, project: Callable[[Warehouse], Shop], with_raw: bool
) -> None:
    system, drill, shop = System(api), Drill(warehouse, tmp_path, api, SHOP), project(warehouse)
    drill.load()
    _build(shop)
    system.change(2)
    drill.load()
    _build(shop)
    history = "select to_jsonb(s) from snapshots.snap_staff s where dbt_valid_to is not null order by 1"
    closed = warehouse.query(history)
    drill.back_up(with_raw=with_raw)
    system.change(3)
    drill.load()
    forgotten(SHOP, warehouse, drill.destination, "4", lineage=LINEAGES["shop.orders"])
    _build(shop)
    before, marks = (
        _content(warehouse),
        warehouse.query("select source, stream, value from ops.watermarks order by 1, 2"),
    )
    asked = len(api.requests)
    drill.lose()

    report = drill.restore(lineages=lambda names: {name: LINEAGES[name] for name in names})
    _build(shop)
    assert _content(warehouse) == before
    assert warehouse.query("select source, stream, value from ops.watermarks order by 1, 2") == marks
    assert set(map(str, closed)) <= set(map(str, warehouse.query(history))), "history from before is as it was"
    assert (report.loads, report.requests, len(api.requests)) == (2, 1, asked)
    check_gone(warehouse, drill.landing, "canary-4")
    with warehouse.connect("reader") as reader:
        assert reader.execute("select generation from serving.data_status").fetchall() == [(3,)] * 3
    assert [(each.inserted, each.forgotten) for each in drill.load()] == [(0, 0), (0, 0)]
