"""Transform: dbt builds and tests every layer, then what passed is published.

A node that fails holds back the groups of marts that depend on it; the others are published, and the run fails with the
reasons. Build and publish are one unit under one lease: a build that began while another was being published would
otherwise be shown half done. Write mode: models as their configuration says; serving is brought up to date row by row.
Rerun safety: any time; a group that is held back leaves its readers with the last good generation.
"""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from connectors.destinations.warehouse.ledger import Lease
from connectors.destinations.warehouse.marts import PublishReport
from connectors.destinations.warehouse.positions import positions
from connectors.destinations.warehouse.windows import unbuilt_windows
from connectors.failpoints import reach
from connectors.registry import SOURCES
from tasks.credentials import WAREHOUSE_TRANSFORMER, PrefectConnections
from tasks.page import rebuild_page
from tasks.publish import check, publish_marts
from tasks.schedules import do_missed_runs_at_once
from tasks.transform import build, write_docs

WAIT_SECONDS = 3600.0
"""How long a transform waits for the one before it."""


@flow(
    name="transform",
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def transform(select: str | None = None, full_refresh: bool = False) -> PublishReport | None:
    """Build, test and publish.

    Args:
        select: dbt node selection, e.g. `stg_flights_api__flights+`. A selection is built and tested, and not
            published: only a build of the whole project has passed every test.
        full_refresh: build incremental models from the beginning.
    """
    transformer = PrefectConnections().database(WAREHOUSE_TRANSFORMER)
    run = f"flow run {flow_run.name} ({flow_run.id})"
    with Lease(transformer, "dbt", "transform", run, wait_seconds=WAIT_SECONDS) as lease:
        # What changes from here on may be half in this build: the next one has it.
        windows = unbuilt_windows(transformer)
        reached = positions(transformer, SOURCES.values())
        reach("build-begun")
        report = build(select=select, full_refresh=full_refresh)
        reach("build-ended")
        log = get_run_logger()
        log.info("dbt built %s models; %s tests passed, %s warned.", report.built, report.tested, report.warned)
        if select:
            report.check("A selection is not published.")
            log.info("A selection is not published.")
            return None
        published = publish_marts(report, run, windows, reached, lease.fence)
        # Readers have their data: the run is not worse for want of a page.
        write_docs(return_state=True)
        check(report, published)
        return published
