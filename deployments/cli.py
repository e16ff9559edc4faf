"""The command `headwater`: the local stack, the demo, and what a deployment needs once.

Everything else is Prefect's own: `prefect deployment run`, the dashboard, schedules.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.engine import make_url

from connectors.backfill import ROWS_AT_ONCE, BackfillState, backfills, progress, set_state
from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.migrations import upgrade
from connectors.destinations.warehouse.rollback import release, roll_back
from connectors.errors import HeadwaterError
from connectors.export import ExportFormat, export
from connectors.ingest import LANDING, WAREHOUSE_LOADER, WAREHOUSE_OWNER, Destination
from connectors.model import Source, Stream, stream_of
from connectors.rebuild import rebuild
from connectors.reconcile import MOST_WINDOWS, reconcile
from connectors.registry import SOURCES, source_named
from connectors.replay import replay
from connectors.sweep import sweep
from connectors.windows import Mode, WindowState, plan_backfill, windows_of
from deployments.bi.commands import app as bi_app
from deployments.demo import clock as simulated_clock
from deployments.demo import systems
from deployments.demo.summary import print_summary
from deployments.local.errors import LocalStackError
from deployments.local.layout import PROJECT_ROOT, default_home
from deployments.local.stack import LocalStack
from deployments.scaffold import Kind, NewSource, scaffold

WAREHOUSE_PUBLISHER = Database("warehouse_publisher")

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
backfill_app = typer.Typer(help="Fill windows: plan, run, pause, resume, cancel.", no_args_is_help=True)
app.add_typer(backfill_app, name="backfill")
app.add_typer(bi_app, name="bi")
# A terminal narrower than the tables folds their lines; a cell that ends in … could not be copied.
console = Console(highlight=False, soft_wrap=True, width=max(Console().width, 120))
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command; an error of ours is one message and exit code 1, never a traceback."""
    try:
        app()
    except (HeadwaterError, LocalStackError) as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(1)
    except OSError as error:
        errors.print(
            Text.assemble(("error: ", "bold red"), f"{error}. Free what it names, then run the command again.")
        )
        sys.exit(1)


Clock = Annotated[
    datetime | None, typer.Option(help="Where the demo's simulated clock stands at first, in UTC: 2013-07-01T12:00:00.")
]


@app.callback()
def _setup(verbose: Annotated[bool, typer.Option("--verbose", help="Say more.")] = False) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr
    )
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@app.command()
def up(demo: bool = True, clock: Clock = None) -> None:
    """Start the local stack: PostgreSQL, Prefect server and worker, and the demo's source systems."""
    with _step("Local stack"):
        environment = _up(LocalStack(default_home()), demo=demo, clock=clock)
    _print_addresses(environment)


@app.command()
def down() -> None:
    """Stop everything that `up` started. Data stays."""
    stopped = LocalStack(default_home()).down()
    console.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


@app.command()
def destroy(yes: Annotated[bool, typer.Option("--yes")] = False) -> None:
    """Stop everything and delete the local warehouse, landing and Prefect history. There is no way back."""
    home = default_home()
    if not yes:
        typer.confirm(f"Delete {home} and every database in it?", abort=True)
    LocalStack(home).destroy()
    console.print(f"{home} is gone.")


@app.command()
def status() -> None:
    """How each part of the local stack is; exit code 1 if one that should run does not."""
    services = LocalStack(default_home()).status()
    if not services:
        console.print("The local stack was never started; `headwater up` does.")
        return
    table = Table("service", "condition", "pid", "address", "log", box=None, pad_edge=False)
    for service in services:
        colour = "green" if service.is_healthy else "red"
        condition = f"[{colour}]{service.condition}[/]"
        table.add_row(service.name, condition, str(service.pid or ""), service.address or "", str(service.log))
    console.print(table)
    if not all(service.is_healthy for service in services):
        raise typer.Exit(1)


@app.command()
def demo(clock: Clock = None) -> None:
    """Start everything, run the pipeline on real data, and show what came of it."""
    stack = LocalStack(default_home())
    with _step("Local stack"):
        environment = _up(stack, demo=True, clock=clock)
    _run_pipeline()
    print_summary(EnvironmentConnections(), console)
    _print_addresses(environment)


@app.command()
def advance(by: Annotated[str, typer.Argument(help="How far, e.g. 12h or 1d.")], run: bool = True) -> None:
    """Move the demo's simulated clock forward, so that flights land and files arrive; then run the pipeline."""
    stack = LocalStack(default_home())
    now = systems.advance(stack, by=simulated_clock.parse_duration(by))
    console.print(f"It is now {now:%Y-%m-%d %H:%M} UTC in the demo.")
    if run:
        os.environ.update(stack.environment())
        _run_pipeline()
        print_summary(EnvironmentConnections(), console)


@app.command()
def sources() -> None:
    """The registered sources, their streams, and the variables that they need."""
    for source in SOURCES.values():
        console.print(f"[bold]{source.name}[/]")
        for requirement in source.requirements:
            console.print(f"  needs {requirement.environment_variable} ({requirement.kind})")
        for stream in source.streams:
            key = f" by {', '.join(stream.primary_key)}" if stream.primary_key else ""
            cursor = f", changes since {stream.cursor.field}" if stream.cursor else ""
            windows = f", windows of {stream.event_time}" if stream.event_time else ""
            deletes = ", deletions by key" if stream.deletes else ""
            console.print(f"  {stream.name}: {stream.write.value}{key}{cursor}{windows}{deletes}")


@app.command("new-source")
def new_source(
    name: Annotated[str, typer.Argument(help="What it is called: tickets_api, crm_db.")],
    kind: Annotated[Kind, typer.Option(help="How it is read.")],
    stream: Annotated[str, typer.Option(help="Its first stream, which becomes a raw table.")] = "records",
) -> None:
    """Write a new source: definition, deployment, dbt staging, and tests that pass."""
    new = NewSource(name, kind, stream)
    written = scaffold(PROJECT_ROOT, new)
    for path in written.created:
        console.print(f"wrote    {path}")
    for path in written.changed:
        console.print(f"changed  {path}")
    definition, stand_in, *_ = written.created
    console.print(
        f"\nIt is an example that works. Change {definition} until it tells what the system is like,\n"
        f"and {stand_in} until it looks like the system. This says whether the two fit:\n"
        f"  pytest tests/sources -k {name}\n"
        "To read the system itself, set these variables, then `headwater register` and `headwater deploy`:"
    )
    for requirement in new.requirements:
        console.print(f"  {requirement.environment_variable} ({requirement.kind})")


def _stream_named(name: str) -> tuple[Source, Stream]:
    source_name, _, stream_name = name.partition(".")
    source = source_named(source_name)
    return source, stream_of(source, stream_name)


@app.command("windows")
def windows_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    state: Annotated[WindowState | None, typer.Option(help="Only those.")] = None,
) -> None:
    """How each window of a stream is, by the ledger, raw and the landing."""
    source, definition = _stream_named(stream)
    found = windows_of(
        source,
        definition,
        Destination.of(EnvironmentConnections()),
        start=definition.windows.instant(start, "start") if start else None,
        end=definition.windows.instant(end, "end") if end else None,
    )
    table = Table("window", "state", "rows", "in raw", "attempts", "changed or read", "why", box=None, pad_edge=False)
    for each in found:
        if state is None or each.state is state:
            rows = "" if each.rows is None else f"{each.rows:,}"
            at = f"{each.at:%Y-%m-%d %H:%M:%S}" if each.at else ""
            table.add_row(
                str(each.window), each.state, rows, f"{each.in_raw:,}", str(each.attempts), at, Text(each.why)
            )
    console.print(table)
    states = Counter(each.state for each in found)
    console.print(", ".join(f"{count:,} {name}" for name, count in sorted(states.items())) or "No windows yet.")


@backfill_app.command("plan")
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

    source, definition = _stream_named(stream)
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


@backfill_app.command("run")
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
    from deployments.watch import run_deployment

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
    with _step("Backfill"):
        run_deployment(deployment, lambda line: console.print(f"  {line}", style="dim"), parameters=parameters)


@backfill_app.command("list")
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


@backfill_app.command("pause")
def backfill_pause(backfill_id: BackfillId) -> None:
    """Let a backfill rest once the batches that are being loaded are in raw."""
    _set_backfill(backfill_id, BackfillState.PAUSED, "Paused")


@backfill_app.command("resume")
def backfill_resume(backfill_id: BackfillId) -> None:
    """Let a paused backfill go on."""
    _set_backfill(backfill_id, BackfillState.RUNNING, "Goes on")


@backfill_app.command("cancel")
def backfill_cancel(backfill_id: BackfillId) -> None:
    """End a backfill; the batches that are being loaded are loaded. What is left is in the next plan."""
    _set_backfill(backfill_id, BackfillState.CANCELLED, "Cancelled")


@app.command("reconcile")
def reconcile_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    most_windows: Annotated[int, typer.Option(help="Those that were compared longest ago.")] = MOST_WINDOWS,
    heal: Annotated[bool, typer.Option("--heal", help="Read again what differs, and mark what is gone.")] = False,
) -> None:
    """Hold raw against the source, and name the rows that differ; exit code 1 if raw is not what the source is."""
    source, definition = _stream_named(stream)
    connections = EnvironmentConnections()
    found = reconcile(
        source,
        definition,
        connections,
        Destination.of(connections),
        start=definition.windows.instant(start, "start") if start else None,
        end=definition.windows.instant(end, "end") if end else None,
        most_windows=most_windows,
        heal=heal,
        run="headwater reconcile",
    )
    if found is None:
        console.print(f"{stream} has nothing to compare yet.")
        return
    if found.findings.differences:
        table = Table("window", "key", "what", "columns", "certain", "healed", box=None, pad_edge=False)
        for each in found.findings.differences:
            said = ["yes" if answer else "no" for answer in (each.is_certain, each.is_healed)]
            table.add_row(
                str(each.window or ""), Text(", ".join(each.key)), each.kind, Text(", ".join(each.columns)), *said
            )
        console.print(table)
    console.print(f"{stream}: {found}.", markup=False)
    if found.error:
        errors.print(Text(found.error))
    if found.findings.is_alarming:
        raise typer.Exit(1)


@app.command("rebuild")
def rebuild_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
) -> None:
    """Empty a raw table and fill it again from the landing alone, without asking the source."""
    source, definition = _stream_named(stream)
    report = rebuild(source, definition, Destination.of(EnvironmentConnections()))
    console.print(f"raw_{stream} has {report.rows:,} rows, from {report.loads} loads.")


@app.command("replay")
def replay_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    load: Annotated[
        UUID | None, typer.Option(help="The whole of this load again, instead of what is in quarantine.")
    ] = None,
) -> None:
    """Load rows from quarantine (or a whole load) again, from the landing, by the present definition."""
    source, definition = _stream_named(stream)
    reports = replay(source, definition, Destination.of(EnvironmentConnections()), load_id=load)
    for report in reports:
        console.print(f"Load {report.load_id}: {report}.")
    if not reports:
        console.print(f"Nothing of {stream} is in quarantine.")


@app.command("export")
def export_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    to: Annotated[Path, typer.Option(help="A new file, or a folder for a file named after the load.")],
    load: Annotated[UUID | None, typer.Option(help="This load.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="The latest load that landed.")] = False,
    form: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.PARQUET,
) -> None:
    """Write a load from the landing as one file of Parquet or JSON lines, for other engines to read."""
    if latest == (load is not None):
        raise typer.BadParameter("Give either --load or --latest.")
    source, definition = _stream_named(stream)
    connections = EnvironmentConnections()
    report = export(
        source,
        definition,
        Landing(connections.object_store(LANDING)),
        to,
        form,
        load_id=load,
        warehouse=lambda: connections.database(WAREHOUSE_LOADER),
    )
    rejected = f", {report.rejected:,} of them as text with a reason" if report.rejected else ""
    console.print(f"{report.path} has {report.rows:,} rows of load {report.load_id}{rejected}.")


@app.command("sweep")
def sweep_command(
    older_than: Annotated[float, typer.Option(help="How many days ago it must have been written; one at least.")] = 7,
) -> None:
    """Delete what killed runs have left in the landing: objects that no manifest lists."""
    destination = Destination.of(EnvironmentConnections())
    reports = sweep(SOURCES.values(), destination, older_than=timedelta(days=older_than), run="headwater sweep")
    table = Table("stream", "objects", "bytes", "left alone", box=None, pad_edge=False)
    for report in reports:
        name = f"{report.source}.{report.stream}"
        table.add_row(name, f"{report.objects:,}", f"{report.bytes:,}", Text("\n".join(report.doubts)))
    console.print(table)


Group = Annotated[str | None, typer.Option(help="Only this group of marts; all without it.")]


@app.command("rollback")
def rollback_command(
    group: Group = None,
    to: Annotated[
        int | None, typer.Option(help="The generation whose data is to be served; else the one before.")
    ] = None,
    why: Annotated[str, typer.Option(help="The trust record says so.")] = "rolled back",
) -> None:
    """Serve an earlier generation again, until it is released (HEADWATER_WAREHOUSE_PUBLISHER_URL)."""
    publisher = EnvironmentConnections().database(WAREHOUSE_PUBLISHER)
    for each in roll_back(publisher, group=group, to=to, by=getuser(), why=why):
        console.print(f"{each.group}: generation {each.generation} is served, no longer {each.before}. It is on hold.")
    console.print("No build moves what is on hold; `headwater release` lets the next one do so.")


@app.command("release")
def release_command(group: Group = None) -> None:
    """Let the next publish move groups of marts that a rollback has put on hold."""
    released = release(EnvironmentConnections().database(WAREHOUSE_PUBLISHER), group=group)
    for name in released:
        console.print(f"{name} moves with the next publish.")
    if not released:
        console.print("Nothing was on hold.")


@app.command()
def migrate() -> None:
    """Bring the warehouse's own schemas up to date (HEADWATER_WAREHOUSE_OWNER_URL). Data is kept."""
    upgrade(EnvironmentConnections().database(WAREHOUSE_OWNER))
    console.print("The warehouse is up to date.")


@app.command("register")
def register_command() -> None:
    """Write Prefect's blocks and variables from HEADWATER_* in the environment."""
    from deployments.deploy import register_blocks

    for name in register_blocks():
        console.print(name)


@app.command()
def deploy() -> None:
    """Make the work pool and apply every deployment of prefect.yaml."""
    from deployments.deploy import deploy_all, ensure_work_pool

    ensure_work_pool()
    deploy_all()
    console.print("All deployments are applied; `prefect deployment ls` lists them.")


def _up(stack: LocalStack, *, demo: bool, clock: datetime | None) -> Mapping[str, str]:
    """Bring the stack up and return its environment, which this process then has too."""

    if clock is not None:
        simulated_clock.set_to(stack.home, clock.replace(tzinfo=clock.tzinfo or UTC))
    stack.up(migrate=_migrate, systems=systems.start if demo else None, deploy=_deploy if demo else None)
    environment = stack.environment()
    os.environ.update(environment)
    return environment


def _migrate(stack: LocalStack) -> None:
    upgrade(EnvironmentConnections(stack.environment()).database(WAREHOUSE_OWNER))
    # Prefect takes its settings when it is imported. That takes seconds, which pass while its server starts.
    os.environ.update(stack.environment())
    importlib.import_module("deployments.deploy")


def _deploy(stack: LocalStack) -> None:
    os.environ.update(stack.environment())
    from deployments.deploy import deploy_all, ensure_work_pool, register_blocks

    register_blocks()
    ensure_work_pool()
    deploy_all()


def _run_pipeline() -> None:
    from deployments.watch import run_deployment

    with _step("Pipeline"):
        run_deployment("pipeline/nyc", lambda line: console.print(f"  {line}", style="dim"))


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    console.print(f"[bold]{name}[/] …")
    yield
    console.print(f"[bold]{name}[/] [green]done[/] in {time.monotonic() - started:.0f} s.")


def _print_addresses(environment: Mapping[str, str]) -> None:
    home = Path(environment["HEADWATER_HOME"])
    reader = make_url(environment["HEADWATER_WAREHOUSE_READER_URL"]).set(drivername="postgresql")
    for name, address in (
        ("Dashboard", environment["PREFECT_API_URL"].removesuffix("/api")),
        ("dbt docs", (Path(environment["HEADWATER_DBT_TARGET"]) / "static_index.html").as_uri()),
        ("Warehouse, to read", reader.render_as_string(hide_password=False)),
        ("A shell with all of it", f". {home / 'env'}"),
    ):
        console.print(f"{name:<24}{address}", markup=False)
