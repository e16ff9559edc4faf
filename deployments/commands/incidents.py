"""What is wrong now, and what became of what was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from getpass import getuser
from typing import Annotated

import typer
from rich.text import Text
from sqlalchemy.engine import URL

from connectors.alerts.routing import read_routing
from connectors.connections import Database, EnvironmentConnections
from connectors.incidents import desk
from connectors.incidents.announcing import announcer
from connectors.incidents.checks import take_stock
from connectors.incidents.record import Incident
from connectors.incidents.rules import span
from connectors.incidents.signs import Severity
from deployments.commands.terminal import console, errors

WAREHOUSE_WATCHER = Database("warehouse_watcher")

app = typer.Typer(help="What is wrong now: list, show, snooze, wake, close.", invoke_without_command=True)

_COLOURS = {Severity.WARNING: "yellow", Severity.ERROR: "red", Severity.CRITICAL: "bold red"}
Number = Annotated[int, typer.Argument(help="As `headwater incidents` shows it, without the #.")]
Why = Annotated[str, typer.Option(help="The story of the incident says so.")]


def _warehouse() -> URL:
    return EnvironmentConnections().database(WAREHOUSE_WATCHER)


@app.callback()
def incidents_command(
    context: typer.Context,
    closed: Annotated[int, typer.Option(help="Also so many that were closed last.")] = 0,
    look: Annotated[bool, typer.Option("--look", help="Look now, instead of what the last run has seen.")] = False,
) -> None:
    """List the open incidents, the worst first (HEADWATER_WAREHOUSE_WATCHER_URL)."""
    if context.invoked_subcommand is not None:
        return
    if look:
        for problem in take_stock(
            _warehouse(), run_id="headwater incidents --look", announce=announcer(read_routing())
        ).problems:
            errors.print(Text(f"This could not be checked: {problem}"))
    found = desk.incidents(_warehouse(), closed=closed)
    for each in found:
        _print_short(each)
    is_open = sum(each.closed_at is None for each in found)
    if not is_open:
        console.print("No incident is open.")
    else:
        console.print(
            f"{is_open} open. `headwater incidents show {found[0].incident_id}` tells what happened; docs/incidents.md"
            " says what to do about each kind.",
            markup=False,
        )


@app.command("show")
def show_command(number: Number) -> None:
    """What shows an incident, and what happened to it, in order."""
    found = desk.story(_warehouse(), number)
    incident = found.incident
    _print_short(incident)
    facts = {
        "likely cause": incident.cause,
        "begins at": incident.root or "nothing of the lineage",
        "opened": _instant(incident.opened_at),
        "last seen": f"{_instant(incident.last_seen_at)}, {incident.times_seen:,} times in all",
    }
    if incident.snoozed_until is not None:
        facts["snoozed"] = f"until {_instant(incident.snoozed_until)} by {incident.snoozed_by}: {incident.snoozed_why}"
    if incident.closed_at is not None:
        facts["closed"] = f"{_instant(incident.closed_at)}: {incident.closed_why}"
    for name, said in facts.items():
        _print_fact(name, said)
    if found.signs:
        console.print("\nWhat shows it now")
    for sign in found.signs:
        console.print(Text.assemble("  ", (sign.severity, _COLOURS[sign.severity]), f"  {sign.kind}: {sign.title}"))
    console.print("\nWhat happened")
    for event in found.events:
        by = f"  ({event.run_id})" if event.run_id else ""
        console.print(Text(f"  {_instant(event.at)}  {event.event:<9}  {event.detail}{by}"))


@app.command("snooze")
def snooze_command(
    number: Number,
    for_: Annotated[str, typer.Option("--for", help="How long: 90m, 2h, 1d.")],
    why: Why,
) -> None:
    """Have no reminders of an incident for a while. If it gets worse, you hear of it all the same."""
    incident = desk.snooze(_warehouse(), number, span=span(for_), by=getuser(), why=why)
    assert incident.snoozed_until is not None  # noqa: S101 - just set
    console.print(f"#{number} is quiet until {_instant(incident.snoozed_until)}. Its recovery is told as ever.")


@app.command("wake")
def wake_command(number: Number) -> None:
    """End the snooze of an incident."""
    was_snoozed = desk.wake(_warehouse(), number, by=getuser())
    console.print(f"#{number} is awake." if was_snoozed else f"#{number} was not snoozed.")


@app.command("close")
def close_command(number: Number, why: Why) -> None:
    """Close an incident by hand. What is still wrong is seen by the next run, and opens another one."""
    desk.close(_warehouse(), number, by=getuser(), why=why, announce=announcer(read_routing()))
    console.print(f"#{number} is closed. What is still wrong opens another one; to have quiet, snooze it instead.")


def _print_short(incident: Incident) -> None:
    state = "closed" if incident.closed_at is not None else f"open for {_age(datetime.now(UTC) - incident.opened_at)}"
    if incident.snoozed_until is not None:
        state += f", snoozed until {_instant(incident.snoozed_until)}"
    console.print(
        Text.assemble(
            (f"#{incident.incident_id} ", "bold"),
            (incident.severity, _COLOURS[incident.severity]),
            f"  {incident.title}  ",
            (f"({state})", "dim"),
        )
    )
    _print_fact("owner", incident.owner or "nobody")
    if affected := ", ".join([*incident.affected_dashboards, *incident.affected_marts]):
        _print_fact("affects", affected)
    if incident.closed_at is None:
        _print_fact("next", incident.next_command)


def _print_fact(name: str, said: str) -> None:
    console.print(Text(f"  {name:<13} {said}"))


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _age(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
