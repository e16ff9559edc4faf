"""Groups of marts that readers see an older state of than there is."""

from __future__ import annotations

from datetime import datetime

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, group_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign


def check_serving(connection: psycopg.Connection, lineage: Lineage) -> Seen:
    """Groups that are held back by what failed, and those that somebody put on hold."""
    found = connection.execute(
        """
        select g.mart_group, g.held_back_since, g.held_back_why, g.hold_since, g.hold_by, g.hold_why, p.run_id,
               exists (
                   select from ops.serving_marts m
                   join ops.published_sources s on s.generation = m.generation and s.mart = m.mart
                   where m.mart_group = g.mart_group and s.stale_at <= clock_timestamp()
               )
        from ops.serving_groups g
        left join lateral (
            select i.run_id from ops.serving_marts m join ops.dbt_invocations i using (invocation_id)
            where m.mart_group = g.mart_group order by i.started_at desc limit 1
        ) p on true
        where g.held_back_since is not null or g.hold_since is not null
        order by g.mart_group
        """
    )
    signs = []
    for group, held_since, held_why, hold_since, hold_by, hold_why, run_id, is_stale in found:
        if held_since is not None:
            signs.append(_held_back(lineage, group, held_since, held_why, run_id, is_stale=is_stale))
        if hold_since is not None:
            signs.append(_on_hold(group, hold_since, hold_by, hold_why))
    return Seen(tuple(signs))


def _held_back(lineage: Lineage, group: str, since: datetime, why: str, run_id: str | None, *, is_stale: bool) -> Sign:
    node = group_node(group)
    is_critical = is_stale and bool(lineage.dashboards(node))
    return Sign(
        key=f"held back {group}",
        kind=Kind.GROUP_HELD_BACK,
        severity=Severity.CRITICAL if is_critical else Severity.ERROR,
        title=f"The marts of {group} are held back since {since:%Y-%m-%d %H:%M} UTC",
        cause=f"The last build has not passed, so readers keep what was good before: {why}",
        next_command=commands.TRANSFORM,
        node=node,
        run_id=run_id,
    )


def _on_hold(group: str, since: datetime, by: str | None, why: str) -> Sign:
    return Sign(
        key=f"on hold {group}",
        kind=Kind.GROUP_ON_HOLD,
        severity=Severity.WARNING,
        title=f"The marts of {group} are on hold since {since:%Y-%m-%d %H:%M} UTC, by {by or 'somebody'}",
        cause=f"They were rolled back: {why}. No build moves them until they are released.",
        next_command=commands.release(group),
        node=group_node(group),
    )
