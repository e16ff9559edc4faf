"""The status page."""

from __future__ import annotations

from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer

from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.registry import SOURCES
from deployments.commands.terminal import LOOKING, console
from tasks.status_page.site import INDEX, write_page

app = typer.Typer()


@app.command("page", rich_help_panel=LOOKING)
def page_command(
    out: Annotated[Path | None, typer.Option(help="A folder to write it to; else where runs put it.")] = None,
) -> None:
    """Make the status page anew, and say where it is; Prefect need not be there (HEADWATER_WAREHOUSE_WATCHER_URL)."""
    to = StoreLocation(out.absolute().as_uri()) if out is not None else None
    location = write_page(EnvironmentConnections(), SOURCES.values(), to=to, run=getuser())
    console.print(f"{location.url.rstrip('/')}/{INDEX}", markup=False)
