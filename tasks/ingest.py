"""One stream, source → landing → raw, as a Prefect task."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import Task

from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import DestinationUnavailableError
from connectors.ingest import Destination, ingest
from connectors.model import Window, stream_of
from connectors.registry import source_named
from tasks.credentials import PrefectConnections


def worth_another_try(task: Task, run: TaskRun, state: State) -> bool:  # type: ignore[type-arg]  # noqa: ARG001 - Prefect's signature
    """Only the warehouse's and landing's own trouble: a source is asked again inside its connector, once is enough."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, DestinationUnavailableError)


@task(
    name="ingest",
    task_run_name="ingest {source}.{stream}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def ingest_stream(
    source: str, stream: str, start: str | None = None, end: str | None = None, full_refresh: bool = False
) -> list[LoadReport]:
    """Bring one stream up to date: what changed, one window of its event time (start and end), or all (full_refresh).

    A rerun is safe at any time: a load commits rows and position together, once.

    Raises:
        HeadwaterError: see `connectors.ingest.ingest`.
    """
    system = source_named(source)
    connections = PrefectConnections()
    return ingest(
        system,
        stream_of(system, stream),
        connections,
        Destination.of(connections),
        window=Window.parse(start, end) if start and end else None,
        full_refresh=full_refresh,
        run=run_name(),
        log=get_run_logger(),
    )


def run_name() -> str:
    """Who works on the stream, for others that wait: the flow run, as the dashboard names it."""
    context = FlowRunContext.get()
    return f"flow run {context.flow_run.name} ({context.flow_run.id})" if context and context.flow_run else "task run"
