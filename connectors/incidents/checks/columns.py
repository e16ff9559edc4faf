"""Columns that a source no longer sends."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage, stream_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign

TOLD_FOR = "3 days"
"""For how long a column that is gone is told of. It is in ops.schema_changes for good; what cannot do without it
fails, and is told of for as long as it does."""


def check_columns(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Streams that have lost columns lately, which have not returned."""
    found = connection.execute(
        """
        select source, stream, array_agg(column_name order by column_name), max(changed_at)
        from (
            select distinct on (source, stream, column_name) source, stream, column_name, change, changed_at
            from ops.schema_changes
            where change in ('removed', 'returned') and changed_at > clock_timestamp() - %s::interval
            order by source, stream, column_name, id desc
        ) latest
        where change = 'removed'
        group by source, stream order by source, stream
        """,
        [TOLD_FOR],
    )
    return Seen(
        tuple(
            Sign(
                key=f"columns {source}.{stream}",
                kind=Kind.COLUMNS_REMOVED,
                severity=Severity.WARNING,
                title=f"{source}.{stream} no longer has {', '.join(names)}",
                cause=f"The source dropped or renamed them before {at:%Y-%m-%d %H:%M} UTC. Raw keeps the columns; "
                "they are null from then on.",
                next_command=commands.export_latest(source, stream),
                node=stream_node(source, stream),
            )
            for source, stream, names, at in found
        )
    )
