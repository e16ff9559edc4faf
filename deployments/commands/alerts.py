"""Alerts: what is undelivered and why, and whether the channels carry anything."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from getpass import getuser
from socket import gethostname
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from uuid_utils.compat import uuid7

from connectors.alerts.channel_states import ChannelState, channel_states, try_again_now
from connectors.alerts.deliver import SEND_SECONDS, deliver
from connectors.alerts.known_secrets import known_secrets
from connectors.alerts.message import Kind, Message, Outgoing, Severity, how_long
from connectors.alerts.outbox import undelivered
from connectors.alerts.routing import Routing, read_routing, routing_file
from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError, HeadwaterError
from deployments.commands.terminal import console, errors, step

WAREHOUSE_WATCHER = Database("warehouse_watcher")

app = typer.Typer(help="What is undelivered and why; send a test to each channel.")


def destinations() -> str:
    """Where alerts go, in a line."""
    channels = read_routing().channels
    if not channels:
        return f"No channel is configured, so nobody hears of trouble; {routing_file()} says how."
    return ", ".join(f"{name} ({type(each).__struct_config__.tag})" for name, each in channels.items())


@app.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """The channels, how they are, and the messages that are undelivered (HEADWATER_WAREHOUSE_WATCHER_URL)."""
    if context.invoked_subcommand is not None:
        return
    routing = read_routing()
    warehouse = EnvironmentConnections().database(WAREHOUSE_WATCHER)
    with translated_errors(), closing(connect(warehouse, "alerts", autocommit=True)) as connection:
        states, waiting = channel_states(connection), undelivered(connection)
    if not routing.channels:
        console.print(destinations(), markup=False)
    else:
        _print_channels(routing, states)
    if not waiting:
        console.print("Nothing is undelivered.")
        return
    table = Table("written", "channel", "what", "attempts", "next", "why", box=None, pad_edge=False)
    for each in waiting:
        state = states.get(each.channel)
        after = "given up" if each.given_up_at else f"{max(_next(state, each.due_at)):%Y-%m-%d %H:%M:%S}"
        if each.channel not in routing.channels and not each.given_up_at:
            after = "no such channel"
        table.add_row(
            f"{each.created_at:%Y-%m-%d %H:%M:%S}",
            each.channel,
            Text(each.subject),
            str(each.attempts),
            after,
            Text(each.last_error or (state.last_error if state else "") or ""),
        )
    console.print(table)


@app.command("test")
def send_test(
    channel: Annotated[str | None, typer.Option(help="Only this one.")] = None,
) -> None:
    """Send a test message to each channel, past the outbox, and say what each answered; exit code 1 if one failed.

    A channel that takes it is sent at once what waits for it.
    """
    routing = read_routing()
    if not routing.channels and channel is None:
        raise ConfigurationError("No channel is configured.", remedy=f"Write one into {routing_file()}.")
    connections = EnvironmentConnections()
    message = Message(
        kind=Kind.CANARY,
        severity=Severity.WARNING,
        title=f"A test of the alert channels, by {getuser()} on {gethostname()}.",
        cause="Nothing is wrong: someone wants to know whether this arrives.",
        written_at=datetime.now(UTC),
        links=routing.links.of(None),
    )
    working, failed = [], []
    for name, each in routing.open(connections.secret, channel).items():
        try:
            answer = each.send(Outgoing(uuid7(), message), SEND_SECONDS)
        except HeadwaterError as error:
            failed.append(name)
            errors.print(Text.assemble((f"{name}: ", "bold red"), str(error)))
        else:
            working.append(name)
            console.print(Text.assemble((f"{name}: ", "bold green"), answer))
    _try_again(connections, working)
    if failed:
        raise typer.Exit(1)


@app.command("send")
def send_due() -> None:
    """Send what is due now; runs and the watcher do so too."""
    connections = EnvironmentConnections()
    warehouse = connections.database(WAREHOUSE_WATCHER)
    with step("Alerts"):
        delivery = deliver(
            warehouse, read_routing().open(connections.secret), secrets=lambda: known_secrets(connections)
        )
    console.print(f"{delivery}.", markup=False)
    if delivery.failures:
        raise typer.Exit(1)


def _print_channels(routing: Routing, states: dict[str, ChannelState]) -> None:
    table = Table("channel", "kind", "how it is", "last delivered", box=None, pad_edge=False)
    for name, definition in routing.channels.items():
        state = states.get(name)
        said = "never used" if state is None else "works"
        if state is not None and state.failing_since is not None:
            failing = how_long(datetime.now(UTC) - state.failing_since)
            said = f"{'broken' if state.is_broken else 'failing'} for {failing}: {state.last_error}"
        last = f"{state.last_delivered_at:%Y-%m-%d %H:%M:%S}" if state and state.last_delivered_at else ""
        table.add_row(name, str(type(definition).__struct_config__.tag), Text(said), last)
    console.print(table)


def _next(state: ChannelState | None, due_at: datetime) -> list[datetime]:
    return [due_at, *([state.retry_at] if state and state.retry_at else [])]


def _try_again(connections: EnvironmentConnections, channels: list[str]) -> None:
    """What waits for channels that work need not wait any longer; where there is no warehouse, nothing waits."""
    try:
        warehouse = connections.database(WAREHOUSE_WATCHER)
        with translated_errors(), closing(connect(warehouse, "alerts", autocommit=True)) as connection:
            for name in channels:
                try_again_now(connection, name)
    except HeadwaterError:
        return
