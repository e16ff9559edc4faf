"""Whether there is a backup to go back to."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import Lineage
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign

OLDEST = timedelta(hours=36)
"""How old the last good backup may be. They are made each night; one that fails is mended in the morning."""


def check_backups(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """The last good backup is too old, or the last one that was tried out did not come back as it was. Where none was
    ever begun, nobody misses one: the run that should have made it fails."""
    return Seen((*_late(connection), *_damaged(connection)))


def _late(connection: psycopg.Connection) -> list[Sign]:
    row = connection.execute(
        """
        select max(as_of) filter (where status = 'done'),
               (array_agg(error order by started_at desc) filter (where status = 'failed'))[1],
               (array_agg(run_id order by started_at desc))[1]
        from ops.backups
        where deleted_at is null or status = 'done'
        having coalesce(max(as_of) filter (where status = 'done'), min(started_at)) < clock_timestamp() - %s
        """,
        [OLDEST],
    ).fetchone()
    if row is None:
        return []
    as_of, error, run_id = row
    return [
        Sign(
            key="backup",
            kind=Kind.BACKUP_LATE,
            severity=Severity.ERROR,
            title="There is no backup of the last day and a half",
            cause=f"The last good one is {f'of {as_of:%Y-%m-%d %H:%M} UTC' if as_of else 'none yet'}. "
            f"{f'The last one that failed said: {error}' if error else 'None was begun since.'}",
            next_command=commands.BACKUP,
            run_id=run_id,
        )
    ]


def _damaged(connection: psycopg.Connection) -> list[Sign]:
    row = connection.execute(
        "select backup_id, as_of, check_error from ops.backups where checked_at is not null"
        " order by checked_at desc limit 1"
    ).fetchone()
    if row is None or row[2] is None:
        return []
    backup_id, as_of, error = row
    return [
        Sign(
            key="backup check",
            kind=Kind.BACKUP_DAMAGED,
            severity=Severity.ERROR,
            title=f"The backup of {as_of:%Y-%m-%d %H:%M} UTC does not come back as it was",
            cause=f"`headwater backup check` restored {backup_id} elsewhere: {error}",
            next_command=commands.BACKUP,
        )
    ]
