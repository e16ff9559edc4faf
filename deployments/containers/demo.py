"""The demo's source systems in a container: one process that serves the flights API, and a command to let time pass.

    python -m deployments.containers.demo serve
    python -m deployments.containers.demo advance 12h

What `deployments.demo.systems` does for the local stack, for a PostgreSQL server that is another container. Both
commands bring the weather's folder, the operations department's database and the warehouse's notion of time up to the
demo's clock, so that one that was killed is made good by the next.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path

import psycopg

from connectors.connections import Database, EnvironmentConnections, Secret
from connectors.database import psycopg_arguments
from connectors.errors import HeadwaterError
from connectors.ingest import WAREHOUSE_OWNER
from deployments.demo import clock, dataset, operations_database, weather_files
from deployments.demo.flights import Flights
from deployments.demo.flights_api import Server
from deployments.demo.systems import FLIGHTS_API_PORT, set_warehouse_clock
from deployments.local.errors import LocalStackError
from deployments.local.layout import default_home

OPERATIONS = Database("demo_operations")
"""The operations department's database, as its owner."""


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="The demo's source systems, in a container.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the flights API, and what the other sources are read from")
    commands.add_parser("advance", help="let time pass").add_argument("by", help="how far: 12h, 1d")
    arguments = parser.parse_args()
    home = default_home()
    try:
        if arguments.command == "advance":
            now = clock.advance(home, clock.parse_duration(arguments.by))
            bring_up_to(home, now)
            sys.stdout.write(f"It is now {clock.iso(now)} in the demo.\n")
        else:
            serve(home)
    except (HeadwaterError, LocalStackError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def serve(home: Path) -> None:
    """Serve until SIGTERM."""
    key = EnvironmentConnections().secret(Secret("flights_api_key"))
    bring_up_to(home, clock.start(home))
    with Server(FLIGHTS_API_PORT, flights=Flights(dataset.text("flights")), home=home, key=key, host="") as server:
        # From another thread, because it waits until the loop of this one has ended.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


def bring_up_to(home: Path, now: datetime) -> None:
    """Deliver files, make changes in the operations database, and tell the warehouse what time it is."""
    connections = EnvironmentConnections()
    weather_files.deliver(home, now)
    with _connect(connections, OPERATIONS) as operations:
        operations_database.fill(operations)
        operations_database.catch_up(operations, now)
    with _connect(connections, WAREHOUSE_OWNER) as warehouse:
        set_warehouse_clock(warehouse, now)


def _connect(connections: EnvironmentConnections, database: Database) -> psycopg.Connection:
    return psycopg.connect(**psycopg_arguments(connections.database(database), {}), autocommit=True)


if __name__ == "__main__":
    sys.exit(main())
