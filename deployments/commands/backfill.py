"""Fill windows: plan, run, follow, pause, resume, cancel."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from connectors.backfill.books import ROWS_AT_ONCE, BackfillState, backfills, progress, set_state
from connectors.backfill.plan import Mode, plan_backfill
from connectors.connections import EnvironmentConnections
from connectors.ingest import WAREHOUSE_LOADER, Destination
from connectors.model import stream_of
from connectors.registry import source_named
from deployments.commands.terminal import console, step, stream_named

app = typer.Typer(help="Fill windows: plan, run, pause, resume, cancel.", no_args_is_help=True)


@app.command("plan")
def backfill_plan(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    mode: Annotated[Mode, typer.Option(help="Which windows.")] = Mode.MISSING,
    replay: Annotated[bool, typer.Option("--replay", help="From the landing alone, without the source.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What a backfill would do; nothing is done."""
    from tasks.backfill import plan_lines
    from tasks.transform import downstream

    source, definition = stream_named(stream)
    connections = EnvironmentConnections()
    plan = plan_backfill(
        source,
        definition,
        Destination.of(connections),
        start=definition.windows.instant(start, "start") if start else None,
        end=definition.windows.instant(end, "end") if end else None,
        mode=mode,
        replay=replay,
        connections=connections,
    )
    if json_:
        models = [{"model": each.model, "how": each.how} for each in downstream(plan.source, plan.stream)]
        console.print_json(json.dumps({**plan.as_json(), "downstream": models}))
        return
    for line in plan_lines(plan):
        console.print(line, markup=False)


@app.command("run")
def backfill_run(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    mode: Annotated[Mode, typer.Option(help="Which windows.")] = Mode.MISSING,
    replay: Annotated[bool, typer.Option("--replay", help="From the landing alone, without the source.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="The latest window first.")] = False,
    at_once: Annotated[int, typer.Option(help="How many runs work on it at most.")] = 4,
    rows_at_once: Annotated[int, typer.Option(help="Rows that are read as one load at most.")] = ROWS_AT_ONCE,
    deployment: Annotated[str, typer.Option(help="The deployment that is run.")] = "backfill/nyc",
) -> None:
    """Run a backfill on the work pool, and follow it."""
    from deployments.follow import run_deployment

    source_name, _, stream_name = stream.partition(".")
    stream_of(source_named(source_name), stream_name)
    parameters = {
        "source": source_name,
        "streams": [stream_name],
        "start": start,
        "end": end,
        "mode": mode.value,
        "replay": replay,
        "backward": backward,
        "at_once": at_once,
        "rows_at_once": rows_at_once,
    }
    with step("Backfill"):
        run_deployment(deployment, lambda line: console.print(f"  {line}", style="dim"), parameters=parameters)


@app.command("list")
def backfill_list() -> None:
    """The latest backfills."""
    table = Table(
        "backfill", "stream", "state", "loaded", "failed", "left", "rows", "seconds", box=None, pad_edge=False
    )
    for each in backfills(EnvironmentConnections().database(WAREHOUSE_LOADER)):
        counts = (each.loaded, each.failed, each.waiting + each.running, each.rows)
        name = f"{each.source}.{each.stream}"
        table.add_row(str(each.backfill_id), name, each.state, *(f"{n:,}" for n in counts), f"{each.seconds:.0f}")
    console.print(table)


def _set_backfill(backfill_id: UUID, state: BackfillState, said: str) -> None:
    warehouse = EnvironmentConnections().database(WAREHOUSE_LOADER)
    set_state(warehouse, backfill_id, state)
    console.print(f"{said}: {progress(warehouse, backfill_id)}.")


BackfillId = Annotated[UUID, typer.Argument(help="As `headwater backfill list` shows it.")]


@app.command("pause")
def backfill_pause(backfill_id: BackfillId) -> None:
    """Let a backfill rest once the batches that are being loaded are in raw."""
    _set_backfill(backfill_id, BackfillState.PAUSED, "Paused")


@app.command("resume")
def backfill_resume(backfill_id: BackfillId) -> None:
    """Let a paused backfill go on."""
    _set_backfill(backfill_id, BackfillState.RUNNING, "Goes on")


@app.command("cancel")
def backfill_cancel(backfill_id: BackfillId) -> None:
    """End a backfill; the batches that are being loaded are loaded. What is left is in the next plan."""
    _set_backfill(backfill_id, BackfillState.CANCELLED, "Cancelled")
