"""What is served: go back, and let it move again."""

from __future__ import annotations

from getpass import getuser
from typing import Annotated

import typer

from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.warehouse.rollback import release, roll_back
from deployments.commands.terminal import GOING_BACK, console

WAREHOUSE_PUBLISHER = Database("warehouse_publisher")

app = typer.Typer()

Group = Annotated[str | None, typer.Option(help="Only this group of marts; all without it.")]


@app.command("rollback", rich_help_panel=GOING_BACK)
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


@app.command("release", rich_help_panel=GOING_BACK)
def release_command(group: Group = None) -> None:
    """Let the next publish move groups of marts that a rollback has put on hold."""
    released = release(EnvironmentConnections().database(WAREHOUSE_PUBLISHER), group=group)
    for name in released:
        console.print(f"{name} moves with the next publish.")
    if not released:
        console.print("Nothing was on hold.")
