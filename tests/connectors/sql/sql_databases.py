"""Databases that tests read through SQLAlchemy: MySQL's (MariaDB) and SQLite's, each filled by its own driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy.engine import URL

from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.ingest import Destination, ingest
from connectors.sql import SqlSource, SqlStream


class MySql:
    """A database of a MySQL or MariaDB server."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._sessions: list[pymysql.Connection] = []  # type: ignore[type-arg]

    def create(self) -> None:
        self._administer(f"create database {self.url.database} character set utf8mb4")

    def drop(self) -> None:
        """Drop it, and end what a test has left open, which would keep it."""
        for session in self._sessions:
            if session.open:
                session.close()
        self._administer(f"drop database if exists {self.url.database}")

    def _administer(self, statement: str) -> None:
        with self.session(database=None) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def session(self, **changes: Any) -> pymysql.Connection:  # type: ignore[type-arg]
        """A connection, in autocommit and in UTC unless told otherwise."""
        options = {
            "host": self.url.host,
            "port": self.url.port or 3306,
            "user": self.url.username,
            "password": str(self.url.password),
            "database": self.url.database,
            "autocommit": True,
            "init_command": "set time_zone = '+00:00', lock_wait_timeout = 20",
            **changes,
        }
        self._sessions.append(pymysql.connect(**options))
        return self._sessions[-1]

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        with self.session() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    @property
    def connections(self) -> EnvironmentConnections:
        return connections(self.url.render_as_string(hide_password=False))


class Sqlite:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def execute(self, *statements: str, rows: Iterable[tuple[Any, ...]] = ()) -> list[tuple[Any, ...]]:
        """The rows of the last statement, which is run for each of `rows` if there are any."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            *first, last = statements
            for statement in first:
                connection.execute(statement)
            if rows:
                connection.execute("begin")
                connection.executemany(last, rows)
                connection.execute("commit")
                return []
            return connection.execute(last).fetchall()
        finally:
            connection.close()

    @property
    def connections(self) -> EnvironmentConnections:
        return connections(f"sqlite:///{self.path}")


def connections(url: str) -> EnvironmentConnections:
    return EnvironmentConnections({"HEADWATER_ERP_URL": url})


def sql_erp(**definition: Any) -> SqlSource:
    options = {name: definition.pop(name) for name in ("settle_seconds", "silence_seconds") if name in definition}
    return SqlSource(name="erp", database=Database("erp"), streams=(SqlStream(**definition),), **options)


def load_sql(source: SqlSource, database: MySql | Sqlite, destination: Destination, **options: Any) -> LoadReport:
    return ingest(source, source.streams[0], database.connections, destination, **options)[-1]
