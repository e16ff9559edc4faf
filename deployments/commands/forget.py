"""Erase rows by their keys, for good."""

from __future__ import annotations

from collections.abc import Iterable
from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forget_requests import RequestStatus, open_requests
from connectors.forget.derived import Lineage
from connectors.forget.keys import children_of, subject_of
from connectors.forget.run import ForgetReport, Roles, forget, let_come_again, look, resume
from connectors.ingest import WAREHOUSE_OWNER, Destination
from deployments.commands.terminal import DATA, console, step, stream_named

app = typer.Typer()

_NOT_REACHED = (
    "Out of reach: backups and archived WAL of the warehouse, older versions of objects in a bucket that keeps them, "
    "logs, extracts and caches of BI, exports, and the source itself. docs/privacy.md says what to do about each."
)


@app.command("forget", rich_help_panel=DATA)
def forget_command(
    stream: Annotated[
        str | None, typer.Argument(help="Source and stream, e.g. crm_db.people; none with --resume for all.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="A row, as id=17 or order_id=7,line=2; as often as there are rows.")
    ] = None,
    keys_from: Annotated[
        Path | None, typer.Option(help="A file of keys, one a line.", exists=True, dir_okay=False)
    ] = None,
    why: Annotated[str | None, typer.Option(help="For the ledger; name nobody.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_children: Annotated[
        bool, typer.Option("--with-children", help="Also what other streams of the API have of them.")
    ] = False,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Also unreadable records that have a key among their words.")
    ] = False,
    build: Annotated[bool, typer.Option(help="Run the transform afterwards, if tables lose rows only by it.")] = True,
    deployment: Annotated[str, typer.Option(help="The deployment that builds.")] = "transform/nyc",
    resume_: Annotated[bool, typer.Option("--resume", help="Go on with requests that are not done.")] = False,
    again: Annotated[bool, typer.Option("--allow-again", help="Let rows of these keys be loaded again.")] = False,
) -> None:
    """Erase rows by their key from raw, landing, quarantine, models and serving. Loads leave them out from then on."""
    connections = EnvironmentConnections()
    destination = Destination.of(connections)
    if resume_:
        _resume(stream, connections, destination, build=build, deployment=deployment)
        return
    if stream is None:
        raise typer.BadParameter("Name a stream.")
    source, definition = stream_named(stream)
    lines = keys_from.read_text().splitlines() if keys_from is not None else []
    subject = subject_of(source, definition, [*(key or []), *lines], connections)
    children = children_of(subject)
    if again:
        owner = connections.database(WAREHOUSE_OWNER)
        for each in [subject, *(children if with_children else [])]:
            known = let_come_again(each, destination, owner, by=getuser(), why=why)
            console.print(f"{each}: {known:,} of {len(each.keys):,} keys were forgotten and may come again.")
        return
    subjects = [subject, *(children if with_children else [])]
    for child in children if not with_children else ():
        console.print(
            f"{child} carries the key as {', '.join(child.columns)} and stays as it is: --with-children erases it too."
        )
    roles = _roles(connections)
    lineages = _lineages(roles, [str(each) for each in subjects])
    if dry_run or not yes:
        for each in subjects:
            _print(each, look(each, destination, roles, lineages[str(each)]))
    if dry_run:
        return
    if not yes:
        typer.confirm("Erase this for good? There is no way back.", abort=True)
    reports = [
        (
            each,
            forget(
                each,
                destination,
                roles,
                lineages[str(each)],
                by=getuser(),
                why=why,
                with_unreadable=unreadable,
            ),
        )
        for each in subjects
    ]
    for each, report in reports:
        _print(each, report)
    if any(report.status is RequestStatus.TO_BE_BUILT for _, report in reports):
        _build(build=build, deployment=deployment)
        for each in subjects if build else ():
            _resume(str(each), connections, destination, build=False, deployment=deployment)
    console.print(_NOT_REACHED, markup=False)


def _resume(
    stream: str | None, connections: EnvironmentConnections, destination: Destination, *, build: bool, deployment: str
) -> None:
    """Go on with what is not done, all of it or that of one stream."""
    roles = _roles(connections)
    names = stream.partition(".")[::2] if stream is not None else (None, None)
    with connect(roles.owner, "forget", autocommit=True) as connection:
        requests = open_requests(connection, *names)
    if not requests:
        console.print("No request is open.")
        return
    lineages = _lineages(roles, [f"{each.source}.{each.stream}" for each in requests])
    is_waiting = False
    for request in requests:
        name = f"{request.source}.{request.stream}"
        source, definition = stream_named(name)
        report = resume(request, source, definition, destination, roles, lineages[name])
        _print(name, report)
        is_waiting |= report.status is RequestStatus.TO_BE_BUILT
    if is_waiting:
        _build(build=build, deployment=deployment)
        if build:
            _resume(stream, connections, destination, build=False, deployment=deployment)


def _build(*, build: bool, deployment: str) -> None:
    if not build:
        console.print(
            f"The tables that are named lose the rows with the next build: run {deployment}, then "
            "`headwater forget --resume`."
        )
        return
    from deployments.follow import run_deployment

    with step("Build"):
        run_deployment(deployment, lambda line: console.print(f"  {line}", style="dim"))


def _lineages(roles: Roles, streams: Iterable[str]) -> dict[str, Lineage]:
    """What was made of each stream, by the dbt project as it is now."""
    from tasks.forget_lineage import lineage_of
    from tasks.transform import parsed

    manifest = parsed(roles.transformer)
    return {name: lineage_of(manifest, *name.split(".")) for name in streams}


def _roles(connections: EnvironmentConnections) -> Roles:
    return Roles(
        owner=connections.database(WAREHOUSE_OWNER),
        transformer=connections.database(Database("warehouse_transformer")),
        publisher=connections.database(Database("warehouse_publisher")),
    )


def _print(name: object, report: ForgetReport) -> None:
    table = Table("place", "rows", box=None, pad_edge=False)
    for place, rows in report.places.items():
        if rows:
            table.add_row(Text(place), f"{rows:,}")
    said = {None: "would be erased", RequestStatus.TO_BE_BUILT: "erased; to be built", RequestStatus.DONE: "erased"}
    request = f", request {report.request_id}" if report.request_id else ""
    console.print(f"[bold]{name}[/]: {said[report.status]}{request}.")
    console.print(table if table.row_count else "Nothing was there.")
    if report.doubtful:
        console.print(
            f"{report.doubtful:,} records that no row could be made of have a key among their words, and stay: "
            "--unreadable erases them too."
        )
    if report.to_be_built:
        console.print(f"By the next build: {', '.join(report.to_be_built)}.", markup=False)
    for remark in report.remarks:
        console.print(remark, markup=False)
