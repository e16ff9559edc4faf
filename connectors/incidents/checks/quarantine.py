"""Rows that the latest load of a stream has set aside, and that are still in quarantine."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, stream_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign


def check_quarantine(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Streams whose latest load that brought anything has rows in quarantine: it grows.

    What older loads left there is in the trust record, and no news.
    """
    found = connection.execute(
        """
        select l.source, l.stream, l.load_id, l.run_id, q.rows, l.rows_extracted, q.reason
        from (select distinct source, stream from ops.streams) streams
        cross join lateral (
            select * from ops.loads
            where loads.source = streams.source and loads.stream = streams.stream
              and kind <> 'keys' and status = 'loaded' and rows_extracted > 0
            order by started_at desc limit 1
        ) l
        cross join lateral (
            select count(*) as rows, mode() within group (order by reason) as reason from ops.quarantine
            where quarantine.source = l.source and quarantine.stream = l.stream
              and quarantine.load_id = l.load_id and replayed_by is null
        ) q
        where l.rows_quarantined > 0 and q.rows > 0
        order by l.source, l.stream
        """
    )
    return Seen(
        tuple(
            Sign(
                key=f"quarantine {source}.{stream}",
                kind=Kind.ROWS_QUARANTINED,
                severity=Severity.WARNING,
                title=f"{rows:,} of {extracted:,} rows of the latest load of {source}.{stream} are in quarantine",
                cause=f"Values that raw cannot hold, or that the contract refuses; most often: {reason}. Mend the "
                "source, or the definition and replay them.",
                next_command=commands.replay(source, stream),
                node=stream_node(source, stream),
                run_id=run_id,
            )
            for source, stream, _, run_id, rows, extracted, reason in found
        )
    )
