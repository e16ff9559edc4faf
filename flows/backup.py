"""Backup: the warehouse as of one instant, into the store of backups; those that are too old go.

Write mode: a new folder each time. Rerun safety: any time, beside loads; a transform that is under way is waited for,
and waits in its turn.
"""

from __future__ import annotations

from prefect import flow

from connectors.backups.backup import KEPT
from tasks.backup import back_up_warehouse
from tasks.incidents import BACKED_UP, noticed
from tasks.schedules import do_missed_runs_at_once


@flow(name="backup", flow_run_name="backup", on_running=[do_missed_runs_at_once], persist_result=False)
def backup(with_raw: bool = True, keep_days: float = KEPT.total_seconds() / 86400) -> str:
    """Back the warehouse up.

    Args:
        with_raw: also the rows of raw; without them a restore takes them from the landing.
        keep_days: how old backups may be; the latest three are always kept.

    Returns:
        The backup's id.
    """
    with noticed(*BACKED_UP):
        return str(back_up_warehouse(with_raw, keep_days).backup_id)
