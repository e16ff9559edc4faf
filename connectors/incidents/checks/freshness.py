"""Streams that are older than they may be, by now."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, stream_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign


def check_freshness(connection: psycopg.Connection, lineage: Lineage) -> Seen:
    """Streams that are late or stale by what the latest build knew of them, and by the clock of now.

    The build says up to when each stream was complete, and when that will be too old; so a pipeline that has stopped
    is late by itself, and windows from long ago that are read again make nothing fresh.
    """
    found = connection.execute(
        """
        with told as (
            select checked_at as at, source, stream, as_of, late_at, stale_at from ops.freshness
            where checked_at = (select max(checked_at) from ops.freshness)
            union all
            select p.published_at, s.source, s.stream, s.as_of, s.late_at, s.stale_at
            from ops.published_sources s join ops.publishes p using (generation)
            where s.generation in (select generation from ops.serving_groups)
        ), latest as (
            select distinct on (source, stream) * from told order by source, stream, at desc, late_at
        )
        select t.source, t.stream, t.as_of, t.stale_at <= clock_timestamp(), l.loaded_at, l.loaded_at > t.at
        from latest t
        left join lateral (
            select max(raw_loaded_at) as loaded_at from ops.loads
            where loads.source = t.source and loads.stream = t.stream and kind = 'rows' and status = 'loaded'
        ) l on true
        where least(t.late_at, t.stale_at) <= clock_timestamp()
        order by t.source, t.stream
        """
    )
    return Seen(tuple(_sign(lineage, *facts) for facts in found))


def _sign(
    lineage: Lineage, source: str, stream: str, as_of: object, is_stale: bool, loaded_at: object, is_newer: bool
) -> Sign:
    node = stream_node(source, stream)
    severity = Severity.WARNING
    if is_stale:
        severity = Severity.CRITICAL if lineage.dashboards(node) else Severity.ERROR
    known = f"readers have it up to {as_of:%Y-%m-%d %H:%M} UTC" if as_of else "readers have nothing of it yet"
    word = "stale" if is_stale else "late"
    last = f"Its last load was committed at {loaded_at:%Y-%m-%d %H:%M} UTC" if loaded_at else "It was never loaded"
    why = (
        "after the last build: the transform has not run since, or not to its end."
        if is_newer
        else "before the last build: its ingest does not run, fails, or the source has nothing newer."
    )
    return Sign(
        key=f"freshness {source}.{stream}",
        kind=Kind.STREAM_STALE if is_stale else Kind.STREAM_LATE,
        severity=severity,
        title=f"{source}.{stream} is {word}: {known}",
        cause=f"{last}, {why}" if loaded_at else f"{last}.",
        next_command=commands.TRANSFORM if is_newer else commands.ingest(source),
        node=node,
    )
