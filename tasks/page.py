"""The status page, made anew when a run ends: whatever became of the run, and without anything that could become of it.

A hook of the flow, not a task: it comes when the run's state is settled and all else is written down.
"""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from connectors.registry import SOURCES
from tasks.bounded import within_deadline
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

    def make() -> tuple[str, ...]:
        location = write_page(PrefectConnections(), SOURCES.values(), run=f"flow run {flow_run.name}")
        log.info("The status page is at %s.", location.url)
        return ()

    if problems := within_deadline(make, MOST_SECONDS, "status page"):
        log.warning("The status page was not made anew, the next run does it: %s", "; ".join(problems))
