"""The watcher, as a command."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from connectors.alerts.routing import read_routing
from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from deployments.commands.terminal import LOOKING, console
from deployments.local.layout import default_home

app = typer.Typer()

_log = logging.getLogger("headwater.watcher")


@app.command("watch", rich_help_panel=LOOKING)
def watch(
    every: Annotated[float, typer.Option(help="Seconds from one round to the next.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="One round; exit code 1 if something is wrong.")] = False,
) -> None:
    """Watch from outside: server, workers, runs, warehouse, data, channels; tell of what is wrong, until stopped.

    It needs HEADWATER_WAREHOUSE_WATCHER_URL, PREFECT_API_URL and the channels' secrets. HEADWATER_WATCH_PING_URL is
    asked for after each round, for a service that notices when nothing comes any more.
    """
    api_url = os.environ.get("PREFECT_API_URL")
    if not api_url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set: there is no Prefect server to watch.",
            remedy="Set it to the server's address, e.g. http://127.0.0.1:4200/api.",
        )
    # A server that is away is found out by one attempt; the next round is the next attempt.
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
    from deployments.watcher.memory import Memory
    from deployments.watcher.rounds import Watcher

    watcher = Watcher(
        EnvironmentConnections(),
        read_routing(),
        Memory(Path(os.environ.get("HEADWATER_HOME") or default_home()) / "watcher.json"),
        api_url=api_url,
        auth=os.environ.get("PREFECT_API_AUTH_STRING") or None,
        ping_url=os.environ.get("HEADWATER_WATCH_PING_URL") or None,
    )
    if once:
        found = watcher.round()
        console.print(str(found), markup=False)
        raise typer.Exit(1 if found.is_bad else 0)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    said = ""
    while not stopped.is_set():
        found = watcher.round()
        if str(found) != said:  # a log of what changes
            said = str(found)
            console.print(f"{found.at:%Y-%m-%d %H:%M:%S} UTC  {said}", markup=False)
        stopped.wait(every)
    watcher.stop()
