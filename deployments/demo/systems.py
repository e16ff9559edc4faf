"""The demo's source systems on the local stack: start them, and let time pass in them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

import psycopg
from psycopg import sql

from deployments.demo import clock, operations_database, weather_files
from deployments.demo.flights_api import KEY_VARIABLE
from deployments.local.environment import WAREHOUSE, role_name
from deployments.local.errors import LocalStackError
from deployments.local.ports import LOOPBACK
from deployments.local.processes import Service
from deployments.local.server import PostgresServer, database_url
from deployments.local.stack import LocalStack

FLIGHTS_API = "flights-api"
FLIGHTS_API_PORT = 8711
_HEALTH = "/health"


def start(stack: LocalStack) -> dict[str, str]:
    """Start what the demo's sources are served by; returns the variables that tell the product where they are.

    Needs PostgreSQL. Fits `LocalStack.up(systems=start)`.
    """
    key = stack.secrets.password(FLIGHTS_API)
    server = _server(stack)
    now = clock.start(stack.home)
    # Reading the flights keeps the API busy for seconds; the rest is done meanwhile.
    with ThreadPoolExecutor(max_workers=1) as pool:
        api = pool.submit(stack.start_on_port, FLIGHTS_API, FLIGHTS_API_PORT, partial(_flights_api, stack, key))
        operations_database.prepare(server, stack.secrets)
        _refresh(stack, server, now)
        api_url = str(api.result().health_url).removesuffix(_HEALTH)
    reader = operations_database.READER
    return {
        "HEADWATER_FLIGHTS_API_URL": api_url,
        KEY_VARIABLE: key,
        "HEADWATER_OPERATIONS_DB_URL": database_url(
            server.port, operations_database.DATABASE, reader, stack.secrets.password(reader)
        ),
        "HEADWATER_WEATHER_FILES_URL": weather_files.folder(stack.home).as_uri(),
    }


def advance(stack: LocalStack, *, by: timedelta | None = None, to: datetime | None = None) -> datetime:
    """Let time pass in the demo, by a duration or to an instant; returns where its clock stands now.

    If that is interrupted after the clock has moved, the next `advance` or `start` brings the systems up to it.
    """
    server = _server(stack)
    with stack.exclusive("moving the demo's clock"):
        if by is not None and to is None:
            now = clock.advance(stack.home, by)
        elif to is not None and by is None:
            now = clock.set_to(stack.home, to)
        else:
            raise ValueError("Give either `by` or `to`.")
        _refresh(stack, server, now)
        return now


def _refresh(stack: LocalStack, server: PostgresServer, now: datetime) -> None:
    weather_files.deliver(stack.home, now)
    operations_database.advance(server, stack.secrets, now)
    owner = role_name("owner")
    with server.connect(WAREHOUSE, role=owner, password=stack.secrets.password(owner)) as connection:
        set_warehouse_clock(connection, now)


def set_warehouse_clock(connection: psycopg.Connection, now: datetime) -> None:
    """Tests of freshness ask the warehouse what time it is; see `current_instant` in dbt/packages/headwater_tests.

    Args:
        connection: of the database's owner or of a superuser; holds for all later sessions.
    """
    connection.execute(
        sql.SQL("alter database {} set headwater.now = {}").format(
            sql.Identifier(WAREHOUSE), sql.Literal(clock.iso(now))
        )
    )


def _flights_api(stack: LocalStack, key: str, port: int) -> Service:
    command = [sys.executable, "-m", "deployments.demo.flights_api", "--port", str(port), "--home", str(stack.home)]
    return Service(
        name=FLIGHTS_API,
        command=tuple(command),
        environment={KEY_VARIABLE: key},
        health_url=f"http://{LOOPBACK}:{port}{_HEALTH}",
    )


def _server(stack: LocalStack) -> PostgresServer:
    server = stack.postgres.server()
    if server is None:
        raise LocalStackError(
            "The demo's database is not running.", where=str(stack.home), remedy="Bring the local stack up first."
        )
    return server
