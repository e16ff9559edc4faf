"""How windows are."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from connectors.connections import EnvironmentConnections
from connectors.ingest import Destination
from connectors.windows import WindowState, windows_of
from deployments.commands.terminal import DATA, console, stream_named

app = typer.Typer()


@app.command("windows", rich_help_panel=DATA)
def windows_command(
    stream: Annotated[str, typer.Argument(help="Source and stream, e.g. flights_api.flights.")],
    start: Annotated[str | None, typer.Option(help="From here on, ISO 8601, in the windows' time zone.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive.")] = None,
    state: Annotated[WindowState | None, typer.Option(help="Only those.")] = None,
) -> None:
    """How each window of a stream is, by the ledger, raw and the landing."""
    source, definition = stream_named(stream)
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
    if not found:
        console.print("There is no window that is over." if start or end else "No windows yet.")
        return
    console.print(table)
    states = Counter(each.state for each in found)
    console.print(", ".join(f"{count:,} {name}" for name, count in sorted(states.items())))
