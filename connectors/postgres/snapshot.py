"""One instant of a PostgreSQL database, for several streams to be read as of: orders with the customers they name."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import psycopg
from psycopg import sql

from connectors.errors import SourceUnavailableError
from connectors.model import SourcePosition

_PATIENCE = "1h"
"""How long the last stream may let the others go first. A snapshot that is held keeps the source from cleaning up."""


class PostgresSnapshot:
    """A snapshot that a connection exports. It is let go as soon as every stream has entered it."""

    def __init__(self, connection: psycopg.Connection, positions: Mapping[str, SourcePosition | None]) -> None:
        """Take it.

        Args:
            connection: in autocommit, and nobody else's from here on.
            positions: of each stream that will enter, looked up before.
        """
        self._connection = connection
        self._positions = positions
        self._expected = set(positions)
        self._lock = Lock()
        connection.execute(sql.SQL("set idle_in_transaction_session_timeout = {}").format(_PATIENCE))
        connection.autocommit = False
        row = connection.execute("select pg_catalog.pg_export_snapshot()").fetchone()
        assert row is not None  # noqa: S101 - a function's value
        self._name = str(row[0])

    def enter(self, connection: psycopg.Connection, stream: str) -> SourcePosition | None:
        """Begin a transaction that sees this instant; how far the stream's rows go in it.

        Raises:
            SourceUnavailableError: the snapshot is gone.
        """
        connection.autocommit = False
        try:
            connection.execute(sql.SQL("set transaction snapshot {}").format(self._name))
        except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue) as error:
            raise SourceUnavailableError(
                "The instant that the streams were to be read as of is gone: the source ended the session.",
                remedy="Run again; if it lasts, look at the source's log.",
                stream=stream,
            ) from error
        with self._lock:
            self._expected.discard(stream)
            if not self._expected:
                self._connection.close()
        return self._positions[stream]

    def close(self) -> None:
        """Let go of it; those that have entered stay."""
        with self._lock:
            self._connection.close()
