"""What tests of incidents share: signs, lineages, an outbox, and how to read what came of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from connectors.incidents.observe import Observed, observe
from connectors.incidents.record import Announcement
from connectors.incidents.rules import Rules
from connectors.incidents.signs import Severity, Sign
from tests.conftest import Warehouse

STREAM = "stream.shop.orders"
MART = "model.shop.fct_orders"


def sign(key: str, node: str | None = None, severity: Severity = Severity.ERROR, **more: Any) -> Sign:
    facts = {"title": f"{key} is wrong", "cause": "nobody knows", "next_command": "headwater incidents", **more}
    return Sign(key=key, kind="test failed", severity=severity, node=node, **facts)


def outbox(connection: psycopg.Connection, announcement: Announcement) -> None:
    """Messages to one channel."""
    connection.execute(
        "insert into ops.alerts (alert_id, incident_id, channel, kind, number, subject, body, due_at)"
        " values (%s, %s, 'slack', %s, %s, %s, %s, coalesce(%s, clock_timestamp()))",
        [
            uuid4(),
            announcement.incident.incident_id,
            announcement.kind,
            announcement.number,
            announcement.incident.title,
            Jsonb({"severity": announcement.incident.severity, "owner": announcement.incident.owner}),
            announcement.due_at,
        ],
    )


def see(warehouse: Warehouse, *signs: Sign, scope: str = "test", rules: Rules | None = None) -> Observed:
    return observe(warehouse.url("watcher"), scope, signs, rules=rules or Rules(), announce=outbox)


def draw(warehouse: Warehouse, nodes: Mapping[str, Mapping[str, str]], edges: Iterable[tuple[str, str]]) -> None:
    """Have the lineage be this graph."""
    with warehouse.connect("watcher") as connection, connection.transaction():
        connection.execute("delete from ops.lineage_edges")
        connection.execute("delete from ops.lineage_nodes")
        for node, facts in nodes.items():
            known = {"kind": "model", "name": node.rpartition(".")[2], "layer": None, "mart_group": None, "owner": None}
            connection.execute(
                "insert into ops.lineage_nodes (node, kind, name, layer, mart_group, owner)"
                " values (%(node)s, %(kind)s, %(name)s, %(layer)s, %(mart_group)s, %(owner)s)",
                {**known, **facts, "node": node},
            )
        for parent, child in edges:
            connection.execute("insert into ops.lineage_edges values (%s, %s)", [parent, child])


def shop(warehouse: Warehouse, models: int = 20) -> list[str]:
    """A source with so many models behind it, one after the other, the last a mart with a dashboard; and another source
    with a mart of its own. The names of the models."""
    names = [f"model.shop.m{number}" for number in range(models - 1)] + [MART]
    chain = [STREAM, "source.shop.shop.orders", *names, "exposure.shop.board"]
    draw(
        warehouse,
        {
            STREAM: {"kind": "stream"},
            "source.shop.shop.orders": {"kind": "source", "owner": "platform"},
            **{key: {} for key in names},
            MART: {"layer": "marts", "mart_group": "sales", "owner": "sales"},
            "exposure.shop.board": {"kind": "exposure", "owner": "board"},
            "stream.crm.staff": {"kind": "stream"},
            "model.shop.dim_staff": {"layer": "marts", "mart_group": "people", "owner": "people"},
        },
        [*itertools.pairwise(chain), ("stream.crm.staff", "model.shop.dim_staff")],
    )
    return names


def incidents(warehouse: Warehouse, columns: str = "incident_id", where: str = "closed_at is null") -> list[Any]:
    found = warehouse.query(f"select {columns} from ops.incidents where {where} order by incident_id")
    return [row[0] if len(row) == 1 else row for row in found]


def events(warehouse: Warehouse, incident_id: int = 1) -> list[str]:
    return [
        event
        for (event,) in warehouse.query(
            "select event from ops.incident_events where incident_id = %s order by id", [incident_id]
        )
    ]


def messages(warehouse: Warehouse, *, withdrawn: bool = False) -> list[tuple[Any, ...]]:
    """Incident, kind and number of what is to be delivered, now or later."""
    return warehouse.query(
        "select incident_id, kind, number from ops.alerts where (given_up_at is not null) = %s order by created_at",
        [withdrawn],
    )


def shift(warehouse: Warehouse, hours: float) -> None:
    """Let all that has happened have happened so much earlier."""
    for table, columns in {
        "incidents": ("opened_at", "last_seen_at", "snoozed_until", "closed_at"),
        "incident_events": ("at",),
        "alerts": ("created_at", "due_at"),
    }.items():
        changes = ", ".join(f"{column} = {column} - {hours} * interval '1 hour'" for column in columns)
        warehouse.execute(f"update ops.{table} set {changes}")
