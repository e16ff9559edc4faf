"""Streams of which raw is not what the source is, and comparisons that did not come to an end."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, stream_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign


def check_reconciliations(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Rows that differed when their window (or range of keys) was last compared, and comparisons that failed last."""
    return Seen((*_different(connection), *_failed(connection)))


def _different(connection: psycopg.Connection) -> list[Sign]:
    found = connection.execute(
        """
        select d.source, d.stream, count(*), bool_or(r.is_at_least), min(d.window_start), max(d.window_end),
               (array_agg(r.run_id order by r.started_at desc))[1]
        from ops.differences d
        join ops.reconciliations r using (reconciliation_id)
        where d.healed_at is null and d.is_certain and case
            when d.window_start is not null then exists (
                select from ops.reconciled_windows w
                where w.source = d.source and w.stream = d.stream and w.window_start = d.window_start
                  and w.reconciliation_id = d.reconciliation_id
            )
            else not exists (
                select from ops.reconciliations later
                where later.source = r.source and later.stream = r.stream and later.started_at > r.started_at
                  and later.status in ('equal', 'different', 'healed')
                  and later.key_from is not distinct from r.key_from
            )
        end
        group by d.source, d.stream order by d.source, d.stream
        """
    )
    return [
        Sign(
            key=f"differences {source}.{stream}",
            kind=Kind.ROWS_DIFFER,
            severity=Severity.ERROR,
            title=f"{'At least ' if is_at_least else ''}{count:,} rows of {source}.{stream} are not as at the source",
            cause="They were changed without their cursor, deleted at the source, or lost here. ops.differences names "
            "them by key.",
            next_command=commands.heal(source, stream, start, end),
            node=stream_node(source, stream),
            run_id=run_id,
        )
        for source, stream, count, is_at_least, start, end, run_id in found
    ]


def _failed(connection: psycopg.Connection) -> list[Sign]:
    found = connection.execute(
        """
        select source, stream, error, run_id from (
            select distinct on (source, stream) * from ops.reconciliations
            where status <> 'running' order by source, stream, started_at desc
        ) latest
        where status = 'failed'
        """
    )
    return [
        Sign(
            key=f"reconciliation {source}.{stream}",
            kind=Kind.RECONCILIATION_FAILED,
            severity=Severity.WARNING,
            title=f"Whether raw_{source}.{stream} is what the source is could not be found out",
            cause=f"The comparison did not come to its end: {error or 'nothing says why'}",
            next_command=commands.reconciliation(source),
            node=stream_node(source, stream),
            run_id=run_id,
        )
        for source, stream, error, run_id in found
    ]
