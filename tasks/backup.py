"""A backup as a Prefect task."""

from __future__ import annotations

from datetime import timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.backups.backup import back_up, keep
from connectors.backups.store import BACKUPS, Backup, BackupStore
from tasks.credentials import PrefectConnections
from tasks.ingest import run_name, worth_another_try


@task(
    name="back up",
    retries=1,
    retry_delay_seconds=60,
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def back_up_warehouse(with_raw: bool, keep_days: float) -> Backup:
    """Make a backup, and then delete those that are too old.

    Raises:
        HeadwaterError: see `connectors.backups.backup.back_up`.
    """
    connections = PrefectConnections()
    store = BackupStore(connections.object_store(BACKUPS))
    log = get_run_logger()
    made = back_up(connections, store, with_raw=with_raw, run=run_name(), log=log)
    for folder in keep(connections, store, kept=timedelta(days=keep_days)):
        log.info("Deleted %s: it is older than %s days.", folder, keep_days)
    return made
