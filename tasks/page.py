"""The status page, made anew when a run ends: whatever became of the run, and without anything that could become of it.

A hook of the flow, not a task: it comes when the run's state is settled and all else is written down.
"""

from __future__ import annotations

import threading
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from connectors.registry import SOURCES
from tasks.credentials import PrefectConnections
from tasks.status_page.site import write_page

MOST_SECONDS = 60.0
"""How long a run waits for its page; one that takes longer is left undone."""


def rebuild_page(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:  # noqa: ARG001 - Prefect's signature
    """Make the status page anew. For `on_completion` and `on_failure` of a flow; of one within another the outer one
    does it. Trouble is logged, with what to do, and is no trouble of the run."""
    if flow_run.parent_task_run_id is not None:
        return
    log = flow_run_logger(flow_run, flow)

    def make() -> None:
        try:
            location = write_page(PrefectConnections(), SOURCES.values(), run=f"flow run {flow_run.name}")
            log.info("The status page is at %s.", location.url)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is not worse for want of a page
            log.warning("The status page was not made anew: %s", error)

    # A thread of its own, that nobody waits for when the process ends: a store that hangs holds up nothing.
    maker = threading.Thread(target=make, name="status page", daemon=True)
    maker.start()
    maker.join(MOST_SECONDS)
    if maker.is_alive():
        log.warning("The status page was not made within %.0f s; the next run makes it.", MOST_SECONDS)
