"""Backups in the ledger (`ops.backups`), written as `headwater_watcher`: what was made, what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg

from connectors.backups.store import Backup
from connectors.errors import StreamBusyError

_LOCK = "hashtextextended('headwater.backup', 0)"


@contextmanager
def one_at_a_time(connection: psycopg.Connection) -> Iterator[None]:
    """Keep other backups of this warehouse from beginning; those that still seem to run were killed, and are closed.

    Raises:
        StreamBusyError: another one is being made.
    """
    row = connection.execute(f"select pg_try_advisory_lock({_LOCK})".encode()).fetchone()
    if row != (True,):
        raise StreamBusyError("Another backup is being made.", remedy="Let it finish: `headwater backup list`.")
    try:
        connection.execute(
            "update ops.backups set status = 'failed', ended_at = clock_timestamp(), error = 'It was killed.'"
            " where status = 'running'"
        )
        yield
    finally:
        if not connection.closed and not connection.broken:
            connection.execute(f"select pg_advisory_unlock({_LOCK})".encode())


def begin(connection: psycopg.Connection, backup_id: UUID, kind: str, place: str, run: str) -> None:
    """Write a backup down."""
    connection.execute(
        "insert into ops.backups (backup_id, kind, place, run_id) values (%s, %s, %s, %s)",
        [backup_id, kind, place, run],
    )


def end(connection: psycopg.Connection, backup: Backup) -> None:
    """It is done."""
    found = backup.fingerprints
    connection.execute(
        "update ops.backups set status = 'done', as_of = %s, ended_at = clock_timestamp(), bytes = %s, tables = %s,"
        " rows = %s where backup_id = %s",
        [backup.as_of, backup.bytes, len(found), sum(each.rows for each in found), backup.backup_id],
    )


def fail(connection: psycopg.Connection, backup_id: UUID, error: BaseException) -> None:
    """It came to no end."""
    connection.execute(
        "update ops.backups set status = 'failed', ended_at = clock_timestamp(), error = %s where backup_id = %s",
        [(str(error) or type(error).__name__)[:4000], backup_id],
    )


def note_check(connection: psycopg.Connection, backup_id: UUID, error: BaseException | None) -> None:
    """It was restored elsewhere and compared."""
    connection.execute(
        "update ops.backups set checked_at = clock_timestamp(), check_error = %s where backup_id = %s",
        [str(error)[:4000] if error else None, backup_id],
    )


def note_deleted(connection: psycopg.Connection, place: str) -> None:
    """It is kept no longer."""
    connection.execute("update ops.backups set deleted_at = clock_timestamp() where place = %s", [place])
