"""A connection to a database behind SQLAlchemy, to read from: bounded, in UTC, of one snapshot where it can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection
from sqlalchemy.pool import NullPool

from connectors.database import CONNECT_TIMEOUT_SECONDS, psycopg_arguments
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.sql.types import MYSQL

_LOCK_SECONDS = 60
_STALL_SECONDS = 600
"""How long a database waits for us to take what it sends, before it takes us for dead."""
_MYSQL_SESSION = (
    f"set session time_zone = '+00:00', sql_mode = '', lock_wait_timeout = {_LOCK_SECONDS},"
    f" net_write_timeout = {_STALL_SECONDS}"
)
_POSTGRES_SESSION = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lock_timeout": f"{_LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{_STALL_SECONDS}s",
}
_PACKAGES = {"pymysql": "'headwater[mysql]'", "MySQLdb": "mysqlclient", "cx_Oracle": "oracledb"}
"""What to install for a module, where it is not of its name."""


def address(url: URL) -> str:
    """What a message may show of a URL."""
    if url.host is None:
        return str(url.database)
    return f"{url.host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def connect(url: URL, silence_seconds: float) -> Connection:
    """A connection of its own, which nobody else uses after.

    Args:
        silence_seconds: how long the database may say nothing, where the driver can tell.

    Raises:
        HeadwaterError: by `translated_errors` around the call.
    """
    options: dict[str, Any] = {}
    backend = url.get_backend_name()
    if backend in MYSQL:
        if url.get_driver_name() != "pymysql":
            raise ConfigurationError(
                f"{address(url)} is to be read with {url.get_driver_name()}.",
                remedy=f"Write its URL with {backend}+pymysql://.",
            )
        options["connect_args"] = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": silence_seconds,
            "write_timeout": silence_seconds,
            "init_command": _MYSQL_SESSION,
            "charset": "utf8mb4",  # in any other, the server would put question marks for what it lacks
        }
        options["isolation_level"] = "AUTOCOMMIT"
    elif backend == "sqlite":
        url = _read_only(url)
        options["connect_args"] = {"timeout": _LOCK_SECONDS}
        options["isolation_level"] = "AUTOCOMMIT"
    elif backend == "postgresql" and url.get_driver_name() in ("psycopg", "psycopg2"):
        given = {"host", "port", "dbname", "user", "password", *url.query}
        arguments = psycopg_arguments(url, _POSTGRES_SESSION)
        options["connect_args"] = {name: value for name, value in arguments.items() if name not in given}
        options["isolation_level"] = "REPEATABLE READ"
    connection = sa.create_engine(url, poolclass=NullPool, hide_parameters=True, **options).connect()
    if backend == "sqlite":
        raw: Any = connection.connection.dbapi_connection
        raw.text_factory = _text_of_sqlite
    return connection


def _read_only(url: URL) -> URL:
    """A SQLite file is opened as it is: one that is missing is not made."""
    if not url.database or ":memory:" in url.database:
        raise ConfigurationError(
            "The database's URL names no file.",
            remedy="Write it as sqlite:////folder/file.db, with the file's whole path.",
        )
    path = url.database.removeprefix("file:")
    return url.set(
        database=f"file:{quote(str(Path(path).absolute()))}", query={**url.query, "mode": "ro", "uri": "true"}
    )


def _text_of_sqlite(data: bytes) -> str | bytes:
    """A text that is not UTF-8 is left as its bytes, which no column of texts may have."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """All that is read within is of one instant, in MySQL, SQLite and PostgreSQL; elsewhere each statement is.

    The connection is closed after. What was not read of a result stays unread: it can be more than anyone waits for.
    """
    raw: Any = connection.connection.dbapi_connection
    name = connection.dialect.name
    try:
        if name in MYSQL:
            connection.exec_driver_sql("set session transaction isolation level repeatable read")
            connection.exec_driver_sql("start transaction with consistent snapshot, read only")
        elif name == "sqlite":
            connection.exec_driver_sql("begin")
        yield
    except BaseException:
        connection.invalidate()
        # pymysql's results read on to their end when they are collected, and fail without a connection.
        if (unread := getattr(raw, "_result", None)) is not None:
            unread.unbuffered_active = False
        raise
    finally:
        connection.close()


# https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
_MYSQL_REFUSALS = {
    **dict.fromkeys((1044, 1045, 1049, 1130, 1251, 1698), "Correct the database's URL in its block."),
    **dict.fromkeys((1142, 1143, 1227, 1370), "Grant its user SELECT on the table."),
}
_REFUSALS = {
    "password authentication failed": "Correct the database's URL in its block.",
    "does not exist": "Correct the database's URL in its block, or the stream's table.",
    "permission denied": "Grant its user SELECT on the table.",
    "unable to open database file": "Correct the path in its URL, or let this user read the file.",
    "file is not a database": "Correct the path in its URL.",
    "cryptography": "Install what the driver asks for: pip install 'headwater[mysql]'.",
}
"""Parts of messages of drivers without codes, with what to do."""


@contextmanager
def translated_errors(url: URL, *, quotes: bool = True) -> Iterator[None]:
    """Turns what SQLAlchemy and drivers raise into our errors. No message holds a password, nor a statement's values.

    Args:
        quotes: whether the database's own words may be shown: a view that casts a text says which it cannot.

    Raises:
        ConfigurationError: no such dialect, driver, database, table or column, or no right to it.
        SourceUnavailableError: it cannot be reached, broke off, or kept a lock for too long.
        MalformedResponseError: the database is damaged, or sent a text that is none.
    """
    try:
        yield
    except HeadwaterError:
        raise
    except exc.NoSuchTableError as error:
        raise ConfigurationError(
            f"{address(url)} has no table {error} that this user may see.",
            remedy="Correct the stream's table or schema, or grant SELECT.",
        ) from None
    except exc.NoSuchModuleError as error:
        raise ConfigurationError(
            f"SQLAlchemy has no dialect for {url.drivername}.",
            remedy="Correct the URL's beginning, or install the package that brings the dialect.",
        ) from error
    except exc.ArgumentError as error:
        raise ConfigurationError(
            f"The database's URL is none of {url.drivername}.", remedy="Correct it in the database's block."
        ) from error
    except ImportError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise ConfigurationError(
            f"The driver for {url.drivername} is not installed: {error.name}.",
            remedy=f"Install it: pip install {package}.",
        ) from error
    except UnicodeError as error:
        raise MalformedResponseError(
            f"{address(url)} sent a text that is none: {error}.",
            remedy="Mend it there, or read a view that leaves it out.",
        ) from error
    except (exc.SQLAlchemyError, RuntimeError) as error:
        raise _translated(url, error, quotes=quotes) from (error if quotes else None)


def _translated(url: URL, error: Exception, *, quotes: bool) -> HeadwaterError:
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    number = cause.args[0] if cause.args and isinstance(cause.args[0], int) else None
    # pymysql raises a number and a text, others a text alone.
    text = " ".join(str(cause.args[1] if number is not None and len(cause.args) > 1 else cause).split())
    said = text if quotes else f"{number or type(cause).__name__}; its words may hold private values, and are left out"
    if (remedy := _MYSQL_REFUSALS.get(number or 0)) is not None:
        return ConfigurationError(f"{address(url)} refused: {said}", remedy=remedy)
    for part, advice in _REFUSALS.items():
        if part in text:
            return ConfigurationError(f"{address(url)} refused: {said}", remedy=advice)
    if "malformed" in text:
        return MalformedResponseError(
            f"{address(url)} is damaged: {said}.", remedy="Restore it, or mend it with the database's own tools."
        )
    if isinstance(error, exc.DBAPIError) and not isinstance(
        error, exc.OperationalError | exc.InterfaceError | exc.InternalError
    ):
        return ConfigurationError(
            f"{address(url)} did not understand what it was asked: {said}",
            remedy="If the table has changed meanwhile, run again; otherwise look at its definition.",
        )
    return SourceUnavailableError(
        f"{address(url)} cannot be reached, or broke off: {said}",
        remedy="It is retried; check that the database runs and that its address is right.",
    )
