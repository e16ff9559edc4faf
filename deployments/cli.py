"""The command `headwater`: the local stack, setting up, looking, and mending.

Flows are run and scheduled by Prefect's own: `prefect deployment run`, the dashboard. docs/operations.md says what to
type when.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import httpx
import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.engine import make_url

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.migrations import upgrade
from connectors.errors import HeadwaterError
from connectors.ingest import WAREHOUSE_OWNER
from connectors.masking import without_credentials
from connectors.registry import SOURCES
from connectors.unsaid import UNSAID
from deployments.commands import (
    alerts,
    backfill,
    backup,
    bi,
    doctor,
    forget,
    incidents,
    loads,
    page,
    publishing,
    review,
    spark,
    watch,
    windows,
)
from deployments.commands.terminal import DATA, GOING_BACK, LOCAL, LOOKING, SETTING_UP, console, errors, step
from deployments.demo import clock as simulated_clock
from deployments.demo import systems
from deployments.demo.summary import print_summary
from deployments.local.errors import LocalStackError
from deployments.local.layout import BACKUPS, PROJECT_ROOT, default_home
from deployments.local.stack import LocalStack
from deployments.scaffold import Kind as SourceKind
from deployments.scaffold import NewSource, scaffold
from deployments.work_pools.pools import KIND_VARIABLE, Kind
from tasks.status_page.site import INDEX, write_page

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for commands in (windows.app, loads.app, forget.app, publishing.app, watch.app, page.app, doctor.app, spark.app):
    app.add_typer(commands)
app.add_typer(backup.restore_app)
app.add_typer(backfill.app, name="backfill", rich_help_panel=DATA)
app.add_typer(backup.app, name="backup", rich_help_panel=GOING_BACK)
app.add_typer(incidents.app, name="incidents", rich_help_panel=LOOKING)
app.add_typer(alerts.app, name="alerts", rich_help_panel=LOOKING)
app.add_typer(bi.app, name="bi", rich_help_panel=LOCAL)
app.add_typer(review.app, name="review", rich_help_panel=SETTING_UP)


def main() -> None:
    """Run the command; an error of ours is one message and exit code 1, never a traceback. SIGTERM breaks it off as
    Ctrl-C does: what it had not committed leaves no trace."""
    sys.excepthook = lambda _kind, error, _trace: sys.stderr.write(UNSAID.traceback(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except (HeadwaterError, LocalStackError) as error:
        _give_up(str(error))
    except httpx.HTTPError as error:  # a source that fails is a HeadwaterError: this is Prefect's client
        _give_up(_of_prefect(error))
    except OSError as error:
        _give_up(f"{error}. Free what it names, then run the command again.")


def _give_up(said: str) -> NoReturn:
    errors.print(Text.assemble(("error: ", "bold red"), UNSAID(said)))
    sys.exit(1)


def _of_prefect(error: httpx.HTTPError) -> str:
    url = without_credentials(os.environ.get("PREFECT_API_URL", "")) or "of Prefect's profile"
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        remedy = "Set PREFECT_API_AUTH_STRING to what the server was started with" if status == 401 else "See its log"
        return f"The Prefect server {url} answered {status} to {error.request.url.path}. {remedy}, then try again."
    return (
        f"The Prefect server {url} did not answer: {error}. Start it (`headwater up` starts the local one) or correct"
        " PREFECT_API_URL, then run the command again."
    )


Clock = Annotated[
    datetime | None, typer.Option(help="Where the demo's simulated clock stands at first, in UTC: 2013-07-01T12:00:00.")
]


def _say_version(wanted: bool) -> None:
    if wanted:
        console.print(f"headwater {metadata.version('headwater')}")
        raise typer.Exit


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr
    )
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@app.command(rich_help_panel=LOCAL)
def up(
    demo: Annotated[bool, typer.Option(help="With the demo's source systems and its deployments.")] = True,
    clock: Clock = None,
) -> None:
    """Start the local stack: PostgreSQL, Prefect server and worker, and the demo's source systems."""
    with step("Local stack"):
        environment = _up(LocalStack(default_home()), demo=demo, clock=clock)
    _print_addresses(environment)


@app.command(rich_help_panel=LOCAL)
def down() -> None:
    """Stop everything that `up` started. Data stays."""
    stopped = LocalStack(default_home()).down()
    console.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


@app.command(rich_help_panel=LOCAL)
def destroy(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop everything and delete the local warehouse, landing and Prefect history. Backups stay; there is no other way
    back."""
    home = default_home()
    if not yes:
        typer.confirm(f"Delete {home} and every database in it?", abort=True)
    LocalStack(home).destroy()
    backups = home / BACKUPS
    console.print(f"{home} is gone, but for {backups}." if backups.exists() else f"{home} is gone.", soft_wrap=True)


@app.command(rich_help_panel=LOCAL)
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
    console.print(f"\nAlerts: {alerts.destinations()}", markup=False)
    if not all(service.is_healthy for service in services):
        raise typer.Exit(1)


@app.command(rich_help_panel=LOCAL)
def demo(clock: Clock = None) -> None:
    """Start everything, run the pipeline on real data, and show what came of it."""
    stack = LocalStack(default_home())
    with step("Local stack"):
        environment = _up(stack, demo=True, clock=clock)
    _run_pipeline()
    print_summary(EnvironmentConnections(), console)
    _print_addresses(environment)


@app.command(rich_help_panel=LOCAL)
def advance(
    by: Annotated[str, typer.Argument(help="How far, e.g. 12h or 1d.")],
    run: Annotated[bool, typer.Option(help="Run the pipeline then.")] = True,
) -> None:
    """Move the demo's simulated clock forward, so that flights land and files arrive; then run the pipeline."""
    stack = LocalStack(default_home())
    now = systems.advance(stack, by=simulated_clock.parse_duration(by))
    console.print(f"It is now {now:%Y-%m-%d %H:%M} UTC in the demo.")
    if run:
        os.environ.update(stack.environment())
        _run_pipeline()
        print_summary(EnvironmentConnections(), console)


@app.command(rich_help_panel=SETTING_UP)
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


@app.command("new-source", rich_help_panel=SETTING_UP)
def new_source(
    name: Annotated[str, typer.Argument(help="What it is called: tickets_api, crm_db.")],
    kind: Annotated[SourceKind, typer.Option(help="How it is read.")],
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


@app.command(rich_help_panel=SETTING_UP)
def migrate() -> None:
    """Bring the warehouse's own schemas up to date (HEADWATER_WAREHOUSE_OWNER_URL). Data is kept."""
    upgrade(EnvironmentConnections().database(WAREHOUSE_OWNER))
    console.print("The warehouse is up to date.")


@app.command("register", rich_help_panel=SETTING_UP)
def register_command() -> None:
    """Write Prefect's blocks and variables from HEADWATER_* in the environment."""
    from deployments.deploy import register_blocks
    from deployments.doctor.prefect_server import refuse_open_server

    refuse_open_server(os.environ.get("PREFECT_API_URL"))
    for name in register_blocks():
        console.print(name)


@app.command(rich_help_panel=SETTING_UP)
def deploy(
    pool: Annotated[
        Kind | None, typer.Option("--pool", envvar=KIND_VARIABLE, help="Where runs run; process, if not said.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep deployments that prefect.yaml no longer has.")] = False,
) -> None:
    """Make the work pool, apply every deployment of prefect.yaml and the automations, delete what has gone from it."""
    from deployments.deploy import deploy_all, ensure_work_pool, prune
    from deployments.doctor.prefect_server import refuse_open_server

    refuse_open_server(os.environ.get("PREFECT_API_URL"))
    kind = pool or Kind.PROCESS
    name = ensure_work_pool(kind)
    deploy_all(kind)
    for each in [] if keep else prune():
        console.print(f"deleted  {each}", markup=False)
    console.print(
        f"All deployments are applied; `prefect deployment ls` lists them. Their runs wait for a worker:\n"
        f"  prefect worker start --pool {name} --type {kind}",
        markup=False,
    )


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
    from prefect.context import refresh_global_settings_context

    from deployments.deploy import deploy_all, ensure_work_pool, register_blocks

    # The server may have got another port since Prefect was imported: who has that one is not to be written to.
    refresh_global_settings_context()
    register_blocks()
    ensure_work_pool()
    deploy_all()


def _run_pipeline() -> None:
    from deployments.follow import run_deployment

    with step("Pipeline"):
        run_deployment("pipeline/nyc", lambda line: console.print(f"  {line}", style="dim"))
    # The run does so itself, a moment after its end; here nobody has to wait for that moment.
    write_page(EnvironmentConnections(), SOURCES.values(), run="headwater demo")


def _print_addresses(environment: Mapping[str, str]) -> None:
    home = Path(environment["HEADWATER_HOME"])
    reader = make_url(environment["HEADWATER_WAREHOUSE_READER_URL"]).set(drivername="postgresql")
    for name, address in (
        ("Dashboard", environment["PREFECT_API_URL"].removesuffix("/api")),
        ("Status page", (home / "page" / INDEX).as_uri()),
        ("dbt docs", (Path(environment["HEADWATER_DBT_TARGET"]) / "static_index.html").as_uri()),
        ("Warehouse, to read", reader.render_as_string(hide_password=False)),
        ("A shell with all of it", f". {home / 'env'}"),
    ):
        console.print(f"{name:<24}{address}", markup=False)


if __name__ == "__main__":
    main()
