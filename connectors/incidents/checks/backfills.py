"""Windows that could not be read, and backfills whose runs were killed."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.checks.loads import IS_LIVE
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, stream_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign

_SILENT = "10 minutes"
"""For how long a backfill that goes on may do nothing: its batches are taken within seconds of each other."""


def check_backfills(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Windows of each stream whose last read failed or was killed, and latest backfills that nobody works on."""
    return Seen((*_failed_windows(connection), *_killed_backfills(connection)))


def _failed_windows(connection: psycopg.Connection) -> list[Sign]:
    found = connection.execute(
        f"""
        with failed as (
            select l.source, l.stream, l.window_start, l.window_end, l.started_at,
                   coalesce(l.error, 'its run was killed') as error, l.run_id
            from ops.loads l
            where l.status in ('extracting', 'landed', 'failed') and l.kind = 'rows' and l.window_start is not null
              and (l.attempt > 1 or not {IS_LIVE}) and l.error_kind is distinct from 'StoppedError'
            union all
            select f.source, f.stream, w.window_start, w.window_end, w.started_at, w.error, f.run_id
            from (
                select distinct on (source, stream) backfill_id, source, stream, run_id
                from ops.backfills order by source, stream, started_at desc
            ) f
            join ops.backfill_windows w using (backfill_id)
            where w.state = 'failed'
        ), open as (
            select f.* from failed f
            where not coalesce((
                select range_agg(case
                           when r.window_start is null then tstzrange(null, null)
                           else tstzrange(r.window_start, r.window_end)
                       end) @> tstzrange(f.window_start, f.window_end)
                from ops.loads r
                where r.source = f.source and r.stream = f.stream and r.kind = 'rows' and r.status = 'loaded'
                  and r.raw_loaded_at > f.started_at
                  and (r.window_start < f.window_end and r.window_end > f.window_start or r.full_refresh)
            ), false)
        )
        select source, stream, count(distinct window_start), min(window_start), max(window_end),
               (array_agg(error order by started_at desc))[1], (array_agg(run_id order by started_at desc))[1]
        from open group by source, stream order by source, stream
        """.encode()  # noqa: S608 - a constant
    )
    return [
        Sign(
            key=f"windows {source}.{stream}",
            kind=Kind.WINDOWS_FAILED,
            severity=Severity.ERROR,
            title=f"{count:,} window{'s' if count != 1 else ''} of {source}.{stream} could not be read",
            cause=f"Between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M} UTC. The last one said: {error}",
            next_command=commands.backfill(source, stream, start, end),
            node=stream_node(source, stream),
            run_id=run_id,
        )
        for source, stream, count, start, end, error, run_id in found
    ]


def _killed_backfills(connection: psycopg.Connection) -> list[Sign]:
    found = connection.execute(
        """
        select f.source, f.stream, f.backfill_id, f.window_start, f.window_end, f.run_id, w.waiting
        from (
            select distinct on (source, stream) * from ops.backfills order by source, stream, started_at desc
        ) f
        cross join lateral (
            select count(*) filter (where state in ('waiting', 'running')) as waiting,
                   max(greatest(started_at, ended_at)) as acted_at,
                   bool_or(state = 'running' and exists (
                       select from pg_stat_activity a where a.pid = holder_pid
                   )) as is_live
            from ops.backfill_windows where backfill_id = f.backfill_id
        ) w
        where f.state = 'running' and w.waiting > 0 and not coalesce(w.is_live, false)
          and greatest(f.started_at, w.acted_at) < clock_timestamp() - %s::interval
        order by f.source, f.stream
        """,
        [_SILENT],
    )
    return [
        Sign(
            key=f"backfill {source}.{stream}",
            kind=Kind.BACKFILL_KILLED,
            severity=Severity.ERROR,
            title=f"A backfill of {source}.{stream} stopped with {waiting:,} windows left, and nobody works on it",
            cause=f"The runs that worked on backfill {backfill_id} were killed, or lost their machine. What they have "
            "loaded is in raw; a new backfill takes the rest.",
            next_command=commands.backfill(source, stream, start, end),
            node=stream_node(source, stream),
            run_id=run_id,
        )
        for source, stream, backfill_id, start, end, run_id, waiting in found
    ]
