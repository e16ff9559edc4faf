"""The operations department's database: planes, airports, airlines, in a database of their own.

`operations_owner` writes; `operations_app`, which Headwater uses, may only read. As the demo's clock moves on, the
department looks up speeds it did not know: one plane every six hours, in the order of the file, so that the content is
a function of the instant alone. The number of rows never changes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from deployments.demo import clock, dataset
from deployments.local.secrets import Secrets
from deployments.local.server import PostgresServer

DATABASE = "operations"
OWNER = "operations_owner"
READER = "operations_app"
_FIRST_UPDATE = datetime(2012, 12, 1, tzinfo=UTC)
_LOOKED_UP_EVERY = timedelta(hours=6)
# Cruising speeds of jets, as the planes of the file that have one.
_SLOWEST, _SPEEDS = 400, 60
_TABLES = """
create table if not exists planes (
    tailnum text primary key,
    year integer,
    type text,
    manufacturer text,
    model text,
    engines integer,
    seats integer,
    speed integer,
    engine text,
    updated_at timestamptz not null
);
create table if not exists airports (
    faa text primary key,
    name text,
    lat double precision,
    lon double precision,
    alt integer,
    tz integer,
    dst text,
    tzone text,
    updated_at timestamptz not null
);
create table if not exists airlines (
    carrier text primary key,
    name text
);
"""
_TABLES_WITH_TIME_OF_CHANGE = ("planes", "airports")
_TABLES_WITHOUT = ("airlines",)


def prepare(server: PostgresServer, secrets: Secrets) -> None:
    """Create roles, database and tables, and fill the tables that are empty."""
    server.ensure_role(OWNER, secrets.password(OWNER))
    server.ensure_role(READER, secrets.password(READER))
    server.ensure_database(DATABASE, OWNER, connect=[READER])
    with _connect(server, secrets) as connection:
        fill(connection)


def advance(server: PostgresServer, secrets: Secrets, now: datetime) -> int:
    """Make all changes up to `now` that have not been made yet; returns how many planes changed."""
    with _connect(server, secrets) as connection:
        return catch_up(connection, now)


def fill(connection: psycopg.Connection) -> None:
    """Create the tables in the owner's database, and fill those that are empty."""
    with connection.transaction():
        connection.execute(_TABLES)
        for table in _TABLES_WITH_TIME_OF_CHANGE:
            _fill(connection, table, has_time_of_change=True)
        for table in _TABLES_WITHOUT:
            _fill(connection, table, has_time_of_change=False)
        connection.execute(f"grant select on planes, airports, airlines to {READER}")


def catch_up(connection: psycopg.Connection, now: datetime) -> int:
    """What `advance` does, as the owner of the database."""
    without_speed = [row["tailnum"] for row in dataset.rows("planes") if row["speed"] is None]
    due = max((now - clock.DEFAULT) // _LOOKED_UP_EVERY, 0)
    changes = [
        (_SLOWEST + number % _SPEEDS, clock.DEFAULT + number * _LOOKED_UP_EVERY, tailnum)
        for number, tailnum in enumerate(without_speed[:due], start=1)
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "update planes set speed = %s, updated_at = %s where tailnum = %s and speed is null", changes
        )
        return max(cursor.rowcount, 0)


def _fill(connection: psycopg.Connection, table: str, *, has_time_of_change: bool) -> None:
    if connection.execute(f"select from {table} limit 1").fetchone() is not None:
        return
    with connection.cursor().copy(f"copy {table} from stdin") as copy:
        for number, row in enumerate(dataset.rows(table), start=1):
            changed_at = [_FIRST_UPDATE + timedelta(minutes=number)] if has_time_of_change else []
            copy.write_row([*row.values(), *changed_at])


def _connect(server: PostgresServer, secrets: Secrets) -> psycopg.Connection:
    return server.connect(DATABASE, role=OWNER, password=secrets.password(OWNER))
