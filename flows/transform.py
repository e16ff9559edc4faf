"""Transform: dbt builds and tests every layer, then what passed is published.

A node that fails holds back the groups of marts that depend on it; the others are published, and the run fails with the
reasons. Build and publish are one unit under one lease: a build that began while another was being published would
otherwise be shown half done. Write mode: models as their configuration says; serving is brought up to date row by row.
Rerun safety: any time; a group that is held back leaves its readers with the last good generation.
"""

from __future__ import annotations

from typing import cast

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.utilities.annotations import opaque

from connectors.destinations.warehouse.ledger import Lease
from connectors.destinations.warehouse.marts import PublishReport
from connectors.destinations.warehouse.positions import positions
from connectors.destinations.warehouse.windows import unbuilt_windows
from connectors.failpoints import reach
from connectors.registry import SOURCES
from tasks.credentials import WAREHOUSE_TRANSFORMER, PrefectConnections
from tasks.history import show_results, written_down
from tasks.incidents import BUILT, noticed
from tasks.links import show_links
from tasks.names import transform_name
from tasks.openlineage import build_events
from tasks.page import rebuild_page
from tasks.publish import check, publish_marts
from tasks.schedules import do_missed_runs_at_once
from tasks.transform import BuildReport, build, write_docs

WAIT_SECONDS = 3600.0
"""How long a transform waits for the one before it."""


@flow(
    name="transform",
    flow_run_name=transform_name,
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
    # Looked at when the lease is given free: a build that still has it is not over.
    with noticed(*BUILT), Lease(transformer, "dbt", "transform", run, wait_seconds=WAIT_SECONDS) as lease:
        # What changes from here on may be half in this build: the next one has it.
        windows = unbuilt_windows(transformer)
        reached = positions(transformer, SOURCES.values())
        published = None
        with (
            written_down(run, select, reached, is_full_refresh=full_refresh) as history,
            build_events(history, PrefectConnections()),
        ):
            reach("build-begun")
            report = history.build = build(select=select, full_refresh=full_refresh)
            reach("build-ended")
            log = get_run_logger()
            log.info("dbt built %s models; %s tests passed, %s warned.", report.built, report.tested, report.warned)
            show_results(report)
            if not select:
                # Opaque: looking for tasks to wait for in thousands of results takes Prefect more than a second.
                whole = cast("BuildReport", opaque(report))
                published = publish_marts(whole, run, windows, reached, lease.fence)
                history.generation = published.generation
        if published is None:
            report.check("A selection is not published.")
            log.info("A selection is not published.")
            return None
        # Readers have their data: the run is not worse for want of a page.
        write_docs(return_state=True)
        show_links()
        check(report, published)
        return published
