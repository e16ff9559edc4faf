"""What has been loaded: compare it with its source, make it anew, take it elsewhere, clean up after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from connectors.connections import EnvironmentConnections
from connectors.destinations.landing import Landing
from connectors.export import ExportFormat, export
from connectors.ingest import LANDING, WAREHOUSE_LOADER, Destination
from connectors.rebuild import rebuild
from connectors.reconcile.run import MOST_WINDOWS, reconcile
from connectors.registry import SOURCES
from connectors.replay import replay
from connectors.sweep import sweep
from deployments.commands.terminal import DATA, console, errors, stream_named

app = typer.Typer()


@app.command("reconcile", rich_help_panel=DATA)
def reconcile_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    most_windows: Annotated[int, typer.Option(help="Those that were compared longest ago.")] = MOST_WINDOWS,
    heal: Annotated[bool, typer.Option("--heal", help="Read again what differs, and mark what is gone.")] = False,
) -> None:
    """Hold raw against the source, and name the rows that differ; exit code 1 if raw is not what the source is."""
    source, definition = stream_named(stream)
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
        console.print(f"{stream} has nothing to compare there yet.")
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


@app.command("rebuild", rich_help_panel=DATA)
def rebuild_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
) -> None:
    """Empty a raw table and fill it again from the landing alone, without asking the source."""
    source, definition = stream_named(stream)
    report = rebuild(source, definition, Destination.of(EnvironmentConnections()))
    console.print(f"raw_{stream} has {report.rows:,} rows, from {report.loads} loads.")


@app.command("replay", rich_help_panel=DATA)
def replay_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    load: Annotated[
        UUID | None, typer.Option(help="The whole of this load again, instead of what is in quarantine.")
    ] = None,
) -> None:
    """Load rows from quarantine (or a whole load) again, from the landing, by the present definition."""
    source, definition = stream_named(stream)
    reports = replay(source, definition, Destination.of(EnvironmentConnections()), load_id=load)
    for report in reports:
        console.print(f"Load {report.load_id}: {report}.")
    if not reports:
        console.print(f"Nothing of {stream} is in quarantine.")


@app.command("export", rich_help_panel=DATA)
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
    source, definition = stream_named(stream)
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


@app.command("sweep", rich_help_panel=DATA)
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
