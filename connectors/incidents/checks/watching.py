"""Whether anybody watches what cannot speak for itself: see docs/watching.md."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign
from connectors.incidents.watching import WATCHER

SILENCE = timedelta(minutes=10)
"""How long the watcher may be silent before runs say so; the Prefect server does earlier, if it has a channel."""


def check_watching(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Whether the watcher has fallen silent. Where there never was one, nobody misses it."""
    row = connection.execute(
        "select beat_at, detail ->> 'host' from ops.heartbeats where name = %s and beat_at < clock_timestamp() - %s",
        [WATCHER, SILENCE],
    ).fetchone()
    if row is None:
        return Seen()
    beat_at, host = row
    return Seen(
        (
            Sign(
                key="watcher",
                kind=Kind.WATCHER_SILENT,
                severity=Severity.ERROR,
                title="The watcher is silent: what does not run goes unnoticed",
                cause=f"It was last heard at {beat_at:%Y-%m-%d %H:%M} UTC, on {host or 'an unknown host'}. Its process "
                "was ended, or it does not reach the warehouse.",
                next_command="headwater watch",
            ),
        )
    )
