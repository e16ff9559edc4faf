"""Housekeeping: what killed runs left in the landing goes, a week later; what dbt's runs did, after a season.

Write mode: only objects that no manifest lists are deleted, and history of dbt and freshness. Rerun safety: any time,
also beside loads; a stream that is being loaded is waited for, or left to the next night.
"""

from __future__ import annotations

from datetime import timedelta

from prefect import flow
from prefect.artifacts import create_table_artifact

from connectors.destinations.warehouse.history import check_kept
from connectors.sweep import SweepReport, check_age
from tasks.bounded import show
from tasks.history import forget_old_history
from tasks.housekeeping import sweep_landing
from tasks.schedules import do_missed_runs_at_once
from tasks.stopping import stoppable


@flow(name="housekeeping", flow_run_name="housekeeping", on_running=[do_missed_runs_at_once], persist_result=False)
def housekeeping(older_than_days: float = 7, history_days: float = 90) -> list[SweepReport]:
    """Sweep the landing, and forget what dbt's runs did long ago.

    Args:
        older_than_days: how many days ago an orphan must have been written; one at least.
        history_days: for how many days results of dbt and freshness are kept; seven at least.
    """
    check_age(timedelta(days=older_than_days))
    check_kept(timedelta(days=history_days))
    with stoppable():
        reports = sweep_landing(older_than_days)
    show(
        lambda: create_table_artifact(
            key="sweep",
            description="Orphans deleted from the landing, and what was left alone.",
            table=[
                {
                    "stream": f"{report.source}.{report.stream}",
                    "objects": report.objects,
                    "bytes": report.bytes,
                    "left alone": " ".join(report.doubts),
                }
                for report in reports
            ],
        ),
        "orphans",
    )
    forget_old_history(history_days)
    return reports
