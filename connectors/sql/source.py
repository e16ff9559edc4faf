"""Read any database that SQLAlchemy has a dialect for: row by row, of one snapshot, each value exact or in quarantine.

MariaDB (for MySQL) and SQLite are tested against the real thing. Rows travel as JSON lines, with the types that the
database gives its columns (`connectors.sql.types`). For PostgreSQL `connectors.postgres` is the way: many times faster,
and exact for every type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, CursorResult

from connectors.connections import Connections, Database, Requirement
from connectors.errors import ConfigurationError
from connectors.model import (
    Chunk,
    Column,
    Extraction,
    ExtractRequest,
    LandingFormat,
    NullCursor,
    SourcePosition,
    Stream,
    check_source,
)
from connectors.privacy import Dropped, keys_of, missing, of_column
from connectors.sql.connection import connect, snapshot, translated_errors
from connectors.sql.mysql_position import look_up_position
from connectors.sql.ranges import wanted
from connectors.sql.types import MYSQL, SqlColumn, read_columns

_CHUNK_BYTES = 1 << 20
_FIRST_ROWS, _MOST_ROWS = 10, 1_000
"""Rows that are fetched at first, and at most; in between as many as make up a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStream(Stream):
    """A table or view of a database."""

    table: str = ""
    """Its name there, if it differs from the stream's."""
    schema: str | None = None
    """Where it is, if not in the schema (MySQL: database) that the URL leads to."""
    commits_in_order: bool = False
    """That rows become visible in the order of their cursor, as with a single writer: then no row can be missed. For
    databases whose open transactions cannot be seen; MySQL's can, and SQLite has one writer at a time."""

    null_cursor_unless_said: ClassVar[NullCursor] = NullCursor.LOAD
    landing_choices: ClassVar[tuple[LandingFormat, ...]] = (LandingFormat.JSONL, LandingFormat.PARQUET)

    @property
    def table_name(self) -> str:
        return self.table or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSource:
    """A database, by its SQLAlchemy URL: `mysql+pymysql://…`, `sqlite:////folder/file.db`."""

    name: str
    database: Database
    streams: tuple[SqlStream, ...]
    settle_seconds: float = 5.0
    """MySQL: how long a read waits for transactions that are open at the source. Rows of one that lasts longer are not
    lost: the watermark stays back, and what follows it is read again."""
    silence_seconds: float = 600.0
    """MySQL: how long the database may say nothing, while it sorts a table without an index on the cursor, say."""

    def __post_init__(self) -> None:
        check_source(self.name, self.streams)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.database, *keys_of(stream.privacy for stream in self.streams))

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        reading = self._open(stream, connections)
        try:
            with translated_errors(reading.url):
                columns = {column.name: column for column in reading.columns}
                condition = wanted(reading.stream, columns, request)
                position = self._position(reading, columns, request)
        except BaseException:
            reading.connection.close()
            raise
        cursor = stream.cursor.field if stream.cursor else None
        return reading.extraction(reading.columns, condition, position, order_by=cursor, landing=stream.landing)

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        """Start reading the keys; see `connectors.model.KeySource.keys`. All are of one snapshot."""
        reading = self._open(stream, connections)
        return reading.extraction([column for column in reading.columns if column.name in stream.primary_key])

    def _open(self, stream: Stream, connections: Connections) -> _Reading:
        if not isinstance(stream, SqlStream):
            raise TypeError(f"{self.name} reads SqlStream, not {type(stream).__name__}")
        url = connections.database(self.database)
        with translated_errors(url):
            connection = connect(url, self.silence_seconds)
            try:
                columns = read_columns(connection, stream.table_name, stream.schema, stream.columns)
                _check_columns(stream, columns)
                columns = [each for each in columns if not isinstance(of_column(stream.privacy, each.name), Dropped)]
            except BaseException:
                connection.close()
                raise
        return _Reading(url, connection, stream, columns)

    def _position(
        self, reading: _Reading, columns: Mapping[str, SqlColumn], request: ExtractRequest
    ) -> SourcePosition | None:
        """How far the read gets, where the database can tell.

        Raises:
            ConfigurationError: rows that are committed late could be missed.
        """
        stream, dialect = reading.stream, reading.connection.dialect.name
        if stream.cursor is None or request.window is not None or stream.commits_in_order or dialect == "sqlite":
            return None
        if dialect in MYSQL:
            return look_up_position(
                reading.connection,
                reading.table,
                columns[stream.cursor.field],
                stream,
                request.watermark,
                self.settle_seconds,
            )
        if not stream.cursor.lag:
            raise ConfigurationError(
                f"It cannot be told which rows of {stream.table_name} are yet to be committed: some would be missed.",
                remedy="Read it with PostgresSource."
                if dialect == "postgresql"
                else "Give the cursor a lag as long as the longest transaction, or say `commits_in_order`.",
                stream=stream.name,
            )
        return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A connection, and the table that is read over it."""

    url: URL
    connection: Connection
    stream: SqlStream
    columns: list[SqlColumn]

    @property
    def table(self) -> sa.TableClause:
        return sa.table(self.stream.table_name, schema=self.stream.schema)

    def extraction(
        self,
        columns: list[SqlColumn],
        condition: sa.ColumnElement[bool] | None = None,
        position: SourcePosition | None = None,
        order_by: str | None = None,
        landing: LandingFormat | None = None,
    ) -> Extraction:
        statement = sa.select(*(column.selected for column in columns)).select_from(self.table)
        if condition is not None:
            statement = statement.where(condition)
        if order_by is not None:
            statement = statement.order_by(sa.column(order_by))
        typed = tuple(Column(column.name, column.type) for column in columns)
        return Extraction(LandingFormat.JSONL, self._chunks(statement, columns), typed, position, landing)

    def _chunks(self, statement: sa.Select[Any], columns: list[SqlColumn]) -> Iterator[Chunk]:
        with translated_errors(self.url, quotes=not self.stream.privacy), snapshot(self.connection):
            # A buffer of one: each fetch asks the driver for as many rows as it says.
            result = self.connection.execution_options(stream_results=True, max_row_buffer=1).execute(statement)
            yield from _encoded(result, columns)


def _encoded(result: CursorResult[Any], columns: list[SqlColumn]) -> Iterator[Chunk]:
    names = [column.name for column in columns]
    converted = [(column.name, column.convert) for column in columns if column.convert is not None]
    encoder = msgspec.json.Encoder(decimal_format="number")
    size = _FIRST_ROWS
    while rows := result.fetchmany(size):
        documents = [dict(zip(names, row, strict=True)) for row in rows]
        for name, convert in converted:
            for document in documents:
                document[name] = convert(document[name])
        data = encoder.encode_lines(documents)
        yield Chunk(data, len(rows))
        size = max(1, min(_MOST_ROWS, len(rows) * _CHUNK_BYTES // len(data)))


def _check_columns(stream: SqlStream, columns: list[SqlColumn]) -> None:
    names = {column.name for column in columns}
    needed = {
        *stream.primary_key,
        *([stream.cursor.field] if stream.cursor else []),
        *filter(None, [stream.event_time]),
        *stream.columns,
    }
    if lacking := sorted([*needed - names, *missing(stream.privacy, names)]):
        raise ConfigurationError(
            f"{stream.table_name} has no column {', '.join(lacking)}; it has {', '.join(sorted(names))}.",
            remedy="Correct the stream's primary_key, cursor, event_time, columns or privacy.",
            stream=stream.name,
        )
