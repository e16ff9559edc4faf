"""Prove a backup: restore it into a database of its own, compare every table, and empty that database again."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sqlalchemy.engine import URL

from connectors.backups import records
from connectors.backups.copying import Target, check_fits
from connectors.backups.parts import Part
from connectors.backups.store import Backup, BackupStore
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import BackupCorruptError, HeadwaterError, StreamBusyError
from connectors.ingest import Logger


def check(
    backup: Backup,
    store: BackupStore,
    urls: Mapping[Part, URL],
    watcher: URL | None = None,
    *,
    log: Logger | None = None,
) -> None:
    """Restore a backup, compare it with what the warehouse held, and clear it away.

    Args:
        urls: of a scratch database's four roles; it is empty, before and after.
        watcher: of the warehouse whose backup it is, to note how the check went; None to note nothing.

    Raises:
        BackupCorruptError: it does not come back as it was.
        ConfigurationError: the scratch database is not empty, or does not fit.
    """
    log = log or logging.getLogger("headwater")
    target = Target(urls)
    with translated_errors(), target.connect() as lock:
        if lock.execute("select pg_try_advisory_lock(hashtextextended('headwater.restore', 0))").fetchone() != (True,):
            raise StreamBusyError("Another check or restore is at work there.", remedy="Let it finish.")
        target.progress()
        check_fits(backup, target)
        error: HeadwaterError | None = None
        try:
            for dump in backup.dumps:
                store.verify(dump)
            target.begin(backup)
            target.copy(backup, store, log)
            if said := target.differences(backup):
                raise BackupCorruptError(
                    f"The backup {backup.backup_id} did not come back as it was: {'; '.join(said[:5])}"
                    f"{' …' if len(said) > 5 else ''}.",
                    remedy="Make another one (`headwater backup run`) and check it; do not rely on this one.",
                )
        except HeadwaterError as found:
            error = found
            raise
        finally:
            target.clear()
            if watcher is not None:
                with connect(watcher, "backup check", autocommit=True) as connection:
                    records.note_check(connection, backup.backup_id, error)
