"""One stream, source → landing → raw, as a Prefect task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import Task

from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import DestinationUnavailableError, HeadwaterError, SecretsUnavailableError
from connectors.ingest import WAREHOUSE_LOADER, Destination, ingest
from connectors.model import Window, stream_of
from connectors.registry import source_named
from connectors.shared_read import SharedRead, shared_read
from connectors.unsaid import UNSAID
from tasks.credentials import PrefectConnections
from tasks.names import task_named
from tasks.openlineage import load_events
from tasks.progress import LoadProgress


def worth_another_try(task: Task, run: TaskRun, state: State) -> bool:  # type: ignore[type-arg]  # noqa: ARG001 - Prefect's signature
    """Only the trouble of the warehouse, the landing and the store of secrets: a source is asked again inside its
    connector, once is enough."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, DestinationUnavailableError | SecretsUnavailableError)


@task(
    name="ingest",
    task_run_name=task_named("ingest"),
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def ingest_stream(
    source: str,
    stream: str,
    start: str | None = None,
    end: str | None = None,
    full_refresh: bool = False,
    shared: SharedRead | None = None,
) -> list[LoadReport]:
    """Bring one stream up to date: what changed, one window of its event time (start and end), or all (full_refresh);
    with `shared`, as of the same instant as other streams of its source.

    A rerun is safe at any time: a load commits rows and position together, once.

    Raises:
        HeadwaterError: see `connectors.ingest.ingest`.
    """
    system = source_named(source)
    definition = stream_of(system, stream)
    connections = PrefectConnections()
    window = Window.parse(start, end) if start and end else None
    with (
        cleared(),
        LoadProgress(system, definition, connections, window, is_full=full_refresh) as watch,
        load_events(system, definition, connections, window) as told,
    ):
        told.reports = ingest(
            system,
            definition,
            connections,
            Destination.of(connections),
            window=window,
            full_refresh=full_refresh,
            shared=shared,
            run=run_name(),
            log=get_run_logger(),
            watch=watch,
        )
    return told.reports


@contextmanager
def cleared() -> Iterator[None]:
    """What is raised within is cleared of secrets: Prefect makes the task run's state of it."""
    try:
        yield
    except Exception as error:
        UNSAID.clear(error)
        raise


@contextmanager
def one_instant(source: str, streams: Iterable[str], *, full_refresh: bool = False) -> Iterator[SharedRead | None]:
    """Have streams of a source read as of one instant, where the source can; see `connectors.shared_read`.

    If it cannot be held on to, each stream is read for itself, and says for itself what is wrong.
    """
    system = source_named(source)
    connections = PrefectConnections()
    with ExitStack() as stack:
        try:
            shared = stack.enter_context(
                shared_read(
                    system,
                    [stream_of(system, stream) for stream in streams],
                    connections,
                    connections.database(WAREHOUSE_LOADER),
                    full_refresh=full_refresh,
                )
            )
        except HeadwaterError as error:
            get_run_logger().warning("The streams of %s are not read as of one instant: %s", source, error)
            shared = None
        yield shared


def run_name() -> str:
    """Who works on the stream, for others that wait: the flow run, as the dashboard names it."""
    context = FlowRunContext.get()
    return f"flow run {context.flow_run.name} ({context.flow_run.id})" if context and context.flow_run else "task run"
