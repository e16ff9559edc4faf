"""Backfills as Prefect tasks: the plan as an artifact, each batch a task run with its log, and who helps."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from connectors.backfill.books import Progress, progress
from connectors.backfill.plan import BackfillPlan, estimated
from connectors.backfill.run import load
from connectors.backfill.worker import Batch, Worker
from connectors.errors import HeadwaterError
from connectors.ingest import WAREHOUSE_LOADER, Destination
from connectors.model import stream_of
from connectors.registry import source_named
from tasks.bounded import show, within_deadline
from tasks.credentials import PrefectConnections
from tasks.ingest import run_name, worth_another_try
from tasks.names import task_named
from tasks.openlineage import load_events
from tasks.progress import BackfillProgress, LoadProgress
from tasks.transform import Downstream, downstream

_MOST_SPANS = 50
_SERVER_SECONDS = 15.0
"""How long a backfill waits for the server to do something about its helpers."""


@task(
    task_run_name=task_named("load"),
    name="load windows",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def load_batch(source: str, stream: str, batch: Batch) -> int:
    """Read the windows of a batch, or bring their rows back from the landing; how many rows that changed.

    Raises:
        HeadwaterError: see `connectors.backfill.run.load`.
    """
    system = source_named(source)
    definition = stream_of(system, stream)
    connections = PrefectConnections()
    with (
        LoadProgress(system, definition, connections, batch.window) as watch,
        load_events(system, definition, connections, batch.window),
    ):
        return load(
            batch,
            system,
            definition,
            connections,
            Destination.of(connections),
            run=run_name(),
            log=get_run_logger(),
            watch=watch,
        )


def work_on(source: str, stream: str, backfill_id: UUID) -> Progress:
    """Load batches of a backfill, one after the other, until nothing is left of it. Call it inside a flow.

    Raises:
        HeadwaterError: the warehouse does not answer, or there is no such backfill.
    """
    warehouse = PrefectConnections().database(WAREHOUSE_LOADER)
    log = get_run_logger()
    with (
        BackfillProgress(f"backfill-{backfill_id}", f"{source}.{stream}") as show_progress,
        Worker(warehouse, backfill_id, run_name()) as worker,
    ):
        for batch in worker.batches():
            state = load_batch(source, stream, batch, return_state=True)
            error = state.result(raise_on_failure=False)
            if state.is_completed():
                worker.done(batch)
            else:
                worker.failed(batch, error if isinstance(error, HeadwaterError) else RuntimeError(str(state.message)))
            found = progress(warehouse, backfill_id)
            left = f", about {estimated(found.seconds_left)} left" if found.seconds_left else ""
            log.info("%s%s.", found, left)
            show_progress(found.percent, f"{source}.{stream}: {found}{left}")
    return progress(warehouse, backfill_id)


def call_for_help(deployment: str, source: str, stream: str, backfill_id: UUID, helpers: int) -> list[UUID]:
    """Start runs of the helper's deployment, for workers that are free; their ids. If none can be, that is logged."""
    if helpers < 1:
        return []
    called: list[UUID] = []

    def call() -> tuple[str, ...]:
        with get_client(sync_client=True) as client:
            try:
                found = client.read_deployment_by_name(deployment)
            except ObjectNotFound:
                return (f"there is no deployment `{deployment}`",)
            parameters = {"source": source, "stream": stream, "backfill_id": str(backfill_id)}
            for number in range(helpers):
                name = f"help {flow_run.name} ({number + 1})"
                run = client.create_flow_run_from_deployment(found.id, parameters=parameters, name=name)
                called.append(run.id)
        return ()

    if problems := within_deadline(call, _SERVER_SECONDS, "helpers"):
        get_run_logger().warning("Helpers could not be called: %s.", "; ".join(problems))
    return called


def send_home(helpers: Sequence[UUID]) -> None:
    """Cancel the helpers that no worker has taken: there is nothing left to do. Those that stay find that out."""
    over = State[None](type=StateType.CANCELLED, message="The backfill was over before a worker was free.")

    def send() -> tuple[str, ...]:
        with get_client(sync_client=True) as client:
            for helper in helpers:
                state = client.read_flow_run(helper).state
                if state is not None and state.is_scheduled():
                    client.set_flow_run_state(helper, over)
        return ()

    if helpers and (problems := within_deadline(send, _SERVER_SECONDS, "helpers")):
        get_run_logger().info("Helpers could not be sent home: %s.", "; ".join(problems))


def show_plan(plan: BackfillPlan) -> None:
    """Log a plan, and keep it as an artifact of the run."""
    lines = plan_lines(plan)
    for line in lines:
        if line.endswith("."):
            get_run_logger().info(line)
    name = f"{plan.source}-{plan.stream}".replace("_", "-")
    show(
        lambda: create_markdown_artifact(
            "\n".join(f"{line}  " for line in lines),
            key=f"backfill-plan-{name}",
            description=f"{plan.source}.{plan.stream}",
        ),
        "plans",
    )


def plan_lines(plan: BackfillPlan) -> list[str]:
    """A plan as people read it."""
    if plan.window is None:
        none = f"{plan.source}.{plan.stream} has no window there that is over, or nobody knows where its windows begin"
        return [f"{none}: then give a start, or its windows a `first`."]
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(plan.counts.items()))
    lines = [f"{plan.source}.{plan.stream}, {plan.window}: {states}."]
    if plan.not_landed:
        lines.append(f"The landing has not all rows of {plan.not_landed:,} of them: these are left alone.")
    if not plan.chosen:
        return [*lines, f"Nothing to do: no window is {' or '.join(sorted(plan.mode.states))}."]
    rows = "nobody knows yet how many rows" if plan.rows is None else f"about {plan.rows:,} rows"
    if plan.requests is not None:
        rows += f", about {plan.requests:,} request{'s' if plan.requests != 1 else ''}"
    seconds = "" if plan.seconds is None else f", about {estimated(plan.seconds)} for one worker"
    lines.append(f"To load: {len(plan.chosen):,} windows, {rows}{seconds}.")
    landing = sum(bool(each.from_landing) for each in plan.chosen)
    if landing:
        lines.append(f"From the landing: {landing:,} of them; from the source: {len(plan.chosen) - landing:,}.")
    reasons = {each.window.start: each.why for each in plan.chosen}
    for window, count in plan.spans[:_MOST_SPANS]:
        whys = sorted({why for start, why in reasons.items() if window.start <= start < window.end and why})
        lines.append(f"- {window}: {count:,} window{'s' if count > 1 else ''}, {'; '.join(whys[:3]) or 'asked for'}")
    if len(plan.spans) > _MOST_SPANS:
        lines.append(f"- and {len(plan.spans) - _MOST_SPANS:,} spans more")
    models: list[Downstream] = downstream(plan.source, plan.stream)
    lines.append("Then dbt builds, tests and publishes. Of the models that read this stream it writes:")
    lines += [f"- {each.model}: {each.how}" for each in models]
    return lines
