"""How Headwater connects to the warehouse: with bounds on every wait, and time zone UTC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.database import address, psycopg_arguments
from connectors.errors import ConfigurationError, DataError, DestinationUnavailableError, FencedError
from connectors.stopping import StoppableConnection, cancelled_at_stop, is_stopped, stopped

LOADING = "loading"
"""The schema of the tables that attempts fill."""

_SETTINGS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    # How values are written as text, which is how they are compared, landed and exported.
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_min_messages": "warning",
    # A lock that a dead client left is waited out, not waited for.
    "lock_timeout": "90s",
    # Notices a client that vanished while its statement runs, so that its locks go soon.
    "client_connection_check_interval": "5s",
    # Notices a client whose machine is gone, or cut off, while it has nothing to say: what it held is free after a
    # minute. The system's own settings would take two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60s",
}


IDLE_SECONDS = 60.0
"""How long a client may say nothing within a transaction before the server ends it, and with it its locks. Shorter
than `lock_timeout`: who waits for the locks of a client that sleeps outlasts it."""


def connect(
    url: URL, purpose: str, *, autocommit: bool = False, idle_seconds: float = IDLE_SECONDS
) -> psycopg.Connection:
    """A connection; `purpose` is what `pg_stat_activity` shows.

    Raises:
        ConfigurationError: the warehouse refuses this user or has no such database.
        DestinationUnavailableError: it does not answer.
    """
    settings = {**_SETTINGS, "idle_in_transaction_session_timeout": f"{idle_seconds * 1000:.0f}ms"}
    try:
        return cancelled_at_stop(
            StoppableConnection.connect(
                **psycopg_arguments(url, settings), application_name=f"headwater {purpose}", autocommit=autocommit
            )
        )
    except psycopg.OperationalError as error:
        text = " ".join(str(error).split())
        if "password authentication failed" in text or "does not exist" in text or "permission denied" in text:
            raise ConfigurationError(
                f"The warehouse {address(url)} refused user {url.username}: {text}",
                remedy="Correct its URL, or run `headwater migrate` if the warehouse is new.",
            ) from error
        raise DestinationUnavailableError(
            f"The warehouse {address(url)} cannot be reached: {text}",
            remedy="Check that it runs and that its address is right, then run again: nothing was lost.",
        ) from error


def column_types(connection: psycopg.Connection, schema: str, relation: str) -> dict[str, str]:
    """Type by column of a table or view, in their order; empty when there is none that this role may look up."""
    return dict(
        connection.execute(
            """
            select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_class c on c.oid = a.attrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p', 'v', 'm')
              and a.attnum > 0 and not a.attisdropped
            order by a.attnum
            """,
            [schema, relation],
        ).fetchall()
    )


def printed_types(connection: psycopg.Connection, kinds: Sequence[str]) -> list[str | None]:
    """Types as PostgreSQL prints those of columns, with their sizes; None for what is none."""
    if not kinds:
        return []
    found = connection.execute(
        "select to_regtype(kind)::oid, t.typtype is distinct from 'd' and t.oid is not null"
        " from unnest(%s::text[]) with ordinality k (kind, place)"
        " left join pg_catalog.pg_type t on t.oid = to_regtype(kind) order by place",
        [list(kinds)],
    ).fetchall()
    # PostgreSQL 16 tells a type's size in no other way than by a value of it; a domain has none, and may refuse null.
    values = [f"null::{kind if has_size else 'text'}" for kind, (_, has_size) in zip(kinds, found, strict=True)]
    said = connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(map(sql.SQL, values)))).pgresult
    assert said is not None  # noqa: S101 - of a query that has run
    rows = connection.execute(
        "select pg_catalog.format_type(kind, size)"
        " from unnest(%s::oid[], %s::int[]) with ordinality t (kind, size, place) order by place",
        [[oid for oid, _ in found], [said.fmod(place) for place in range(len(found))]],
    )
    return [printed for (printed,) in rows]


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns the database's own errors into ours, where they say that the warehouse is at fault.

    Raises:
        DestinationUnavailableError: the connection broke, a lock was not given in time, or the disk is full.
        FencedError: a successor dropped the attempt's table.
        StoppedError: this process was told to stop, and its statement cancelled.
        DataError: text that is not UTF-8, which only a source without an encoding of its own can send.
    """
    try:
        yield
    except psycopg.errors.CharacterNotInRepertoire as error:
        raise DataError(
            f"The source sent text that is not UTF-8: {_line(error)}",
            remedy="A database of encoding SQL_ASCII keeps any bytes: mend them there, or read a view that casts the "
            "column to bytea. Nothing was committed.",
        ) from error
    except psycopg.errors.QueryCanceled as error:
        if is_stopped():
            raise stopped() from error
        raise
    except psycopg.errors.DiskFull as error:
        raise DestinationUnavailableError(
            f"The warehouse's disk is full: {_line(error)}",
            remedy="Free space there, then run again: nothing was committed.",
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise DestinationUnavailableError(
            f"The warehouse did not give a lock in time: {_line(error)}",
            remedy="See who holds it in pg_stat_activity; it is retried.",
        ) from error
    except psycopg.errors.IdleInTransactionSessionTimeout as error:
        raise DestinationUnavailableError(
            "This run was stopped within its transaction, and the warehouse ended its session. It committed nothing.",
            remedy="Nothing needs to be done: the next run does the work.",
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise DestinationUnavailableError(
            f"The warehouse broke off: {_line(error)}",
            remedy="Run again: what was not committed left no trace.",
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        if f'"{LOADING}.' in str(error):
            raise FencedError(
                "This run lost the stream while it was stopped: its successor dropped the table that it was filling. "
                "It committed nothing.",
                remedy="Nothing needs to be done: the successor did the work.",
            ) from error
        raise ConfigurationError(
            f"The warehouse lacks a table or column of Headwater's own: {_line(error)}",
            remedy="Run `headwater migrate`.",
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
