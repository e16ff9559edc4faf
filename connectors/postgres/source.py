"""Read PostgreSQL by binary COPY: rows go from socket to landing without being parsed, every type bit for bit.

Each load reads one repeatable-read snapshot, taken so that no row is lost that becomes visible late
(`connectors.postgres.position`). Types without a binary twin in another database (enums, domains,
composites, extension types, and the reg* family, whose binary form is a local OID) travel as text.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import psycopg
from psycopg import sql
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait
from sqlalchemy.engine import URL

from connectors.connections import Connections, Database, Requirement
from connectors.database import address, psycopg_arguments
from connectors.errors import ConfigurationError, DataError, SourceUnavailableError
from connectors.formats.framing import PGCOPY_HEADER, PGCOPY_TRAILER
from connectors.model import (
    Chunk,
    Column,
    Extraction,
    ExtractRequest,
    LandingFormat,
    NullCursor,
    SourcePosition,
    Stream,
    Window,
    check_source,
    check_window,
)
from connectors.overlap import ReadAhead
from connectors.postgres.digests import PostgresTable
from connectors.postgres.position import APPLICATION_NAME, look_up_position
from connectors.postgres.ranges import MOST_READERS, page_ranges
from connectors.postgres.snapshot import PostgresSnapshot
from connectors.privacy import Dropped, Hashed, keys_of, missing, of_column
from connectors.stopping import StoppableConnection, cancelled_at_stop

_CHUNK_BYTES = 1 << 20
_ENDS = {len(end): end for end in (PGCOPY_TRAILER, PGCOPY_HEADER + PGCOPY_TRAILER)}
"""The last message of a COPY by its length: the header goes with the first, which is the last of an empty table."""
_SETTINGS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # A snapshot left open by a dead client would hold back the source's vacuum.
    "idle_in_transaction_session_timeout": "5min",
    # Whoever alters the table at the source is waited out with a bound.
    "lock_timeout": "60s",
}

_COLUMNS = """
select a.attname,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       coalesce(e.typtype, t.typtype) = 'b'
         and coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
         and coalesce(e.typname, t.typname) not like 'reg%%'
         and coalesce(e.typname, t.typname) not in ('money', 'aclitem', 'tsquery')
         or coalesce(e.typtype, t.typtype) in ('r', 'm')
            and coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_type e on e.oid = t.typelem and t.typcategory = 'A'
where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
"""Name, type as written, and whether the type's binary form means the same in any database and is read back: that of
an empty tsquery PostgreSQL writes but refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStream(Stream):
    """A table or view of a PostgreSQL database."""

    table: str = ""
    """Its name there, if it differs from the stream's."""
    schema: str = "public"

    null_cursor_unless_said: ClassVar[NullCursor] = NullCursor.LOAD
    landing_choices: ClassVar[tuple[LandingFormat, ...]] = (LandingFormat.PGCOPY, LandingFormat.PARQUET)

    @property
    def table_name(self) -> str:
        return self.table or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSource:
    """A PostgreSQL database (any version that is supported upstream)."""

    name: str
    database: Database
    streams: tuple[TableStream, ...]
    settle_seconds: float = 5.0
    """How long a read waits for transactions that are open at the source. Rows of one that lasts longer are not lost:
    the watermark stays back, and what follows it is read again."""
    readers: int = 1
    """How many connections a large table is read by when it is read whole, each taking a part of its pages, all as of
    one instant. More than one pays where the source's server or the way to it is slower than this side."""

    def __post_init__(self) -> None:
        check_source(self.name, self.streams)
        if not 1 <= self.readers <= MOST_READERS:
            raise ConfigurationError(
                f"Source `{self.name}` has {self.readers} readers.",
                remedy=f"Give 1 to {MOST_READERS}: each is a connection and a scan that the source's server bears.",
            )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.database, *keys_of(stream.privacy for stream in self.streams))

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        if not isinstance(stream, TableStream):
            raise TypeError(f"{self.name} reads TableStream, not {type(stream).__name__}")
        with _prepared(connections.database(self.database), stream) as connection:
            columns = _columns(connection, stream)
            types = {column.name: column.type for column, _ in columns}
            condition = _condition(stream, types, request)
            if isinstance(request.snapshot, PostgresSnapshot):
                position = request.snapshot.enter(connection, stream.name)
            else:
                position = _position(connection, stream, columns, request, self.settle_seconds)
                connection.autocommit = False  # from here on all is one snapshot
            parts = page_ranges(connection, sql.Identifier(stream.schema, stream.table_name), self.readers)
        typed = tuple(column for column, _ in columns)
        if stream.landing is LandingFormat.PARQUET:
            chunks = _csv_chunks(connection, _copy(stream, columns, condition, "csv"), stream)
            return Extraction(LandingFormat.CSV, chunks, typed, position, LandingFormat.PARQUET)
        if condition is None and len(parts) > 1:
            queries = [_copy(stream, columns, part) for part in parts]
            chunks = self._read_in_parts(connection, queries, stream, connections)
        else:
            chunks = _chunks(connection, _copy(stream, columns, condition), stream)
        return Extraction(LandingFormat.PGCOPY, chunks, typed, position)

    def _read_in_parts(
        self, first: psycopg.Connection, queries: list[sql.Composed], stream: TableStream, connections: Connections
    ) -> Iterator[Chunk]:
        """Rows of several queries, in any order, each by a connection of its own that sees what the first sees."""
        readers = [first]
        try:
            with _source_errors(stream):
                row = first.execute("select pg_catalog.pg_export_snapshot()").fetchone()
                assert row is not None  # noqa: S101 - a function's value
                for _ in queries[1:]:
                    readers.append(reader := _connect(connections.database(self.database)))
                    reader.autocommit = False
                    reader.execute(sql.SQL("set transaction snapshot {}").format(row[0]))
            reads = [_chunks(reader, query, stream) for reader, query in zip(readers, queries, strict=True)]
            with ReadAhead(*reads) as chunks:
                yield from chunks
        finally:
            for reader in readers:
                reader.close()

    def snapshot(self, watermarks: Mapping[str, str | None], connections: Connections) -> PostgresSnapshot:
        """Hold on to this instant; see `connectors.model.SnapshotSource.snapshot`."""
        streams = [stream for stream in self.streams if stream.name in watermarks]
        settled = time.monotonic() + self.settle_seconds
        positions: dict[str, SourcePosition | None] = {}
        with _prepared(connections.database(self.database), streams[0]) as connection:
            for stream in streams:
                columns = _columns(connection, stream)
                request = ExtractRequest(watermark=watermarks[stream.name])
                left = max(0.0, settled - time.monotonic())
                positions[stream.name] = _position(connection, stream, columns, request, left)
            return PostgresSnapshot(connection, positions)

    @contextmanager
    def table(self, stream: Stream, connections: Connections, most_seconds: float) -> Iterator[PostgresTable]:
        """Hold on to this instant of a table; see `connectors.comparison.digests.DigestSource.table`."""
        if not isinstance(stream, TableStream):
            raise TypeError(f"{self.name} reads TableStream, not {type(stream).__name__}")
        with _prepared(connections.database(self.database), stream) as connection:
            columns = _columns(connection, stream)
            limit = sql.Literal(f"{most_seconds * 1000:.0f}ms")
            # It waits for the warehouse too.
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(sql.SQL("set {} = {}").format(sql.Identifier(setting), limit))
            connection.autocommit = False  # from here on all is one snapshot
            connection.execute("select")
        types = {column.name: column.type for column, _ in columns}
        with connection:
            yield PostgresTable(
                connection,
                sql.Identifier(stream.schema, stream.table_name),
                [column for column, _ in columns],
                frozenset(column.name for column, is_binary in columns if is_binary),
                stream.cursor.field if stream.cursor else None,
                stream.event_time,
                # Windows are compared that were read as such, from their beginning.
                stream.cursor.initial if stream.cursor and stream.event_time is None else None,
                partial(_bound, stream, types),
                partial(_source_errors, stream),
            )

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        """Start reading the keys; see `connectors.model.KeySource.keys`. All are of one snapshot."""
        if not isinstance(stream, TableStream):
            raise TypeError(f"{self.name} reads TableStream, not {type(stream).__name__}")
        with _prepared(connections.database(self.database), stream) as connection:
            columns = [each for each in _columns(connection, stream) if each[0].name in stream.primary_key]
            connection.autocommit = False  # read-only, and with a bound on idling
        query = _copy(stream, columns, None)
        return Extraction(
            LandingFormat.PGCOPY, _chunks(connection, query, stream), tuple(column for column, _ in columns)
        )

    def estimated_rows(self, stream: Stream, window: Window | None, connections: Connections) -> int:
        """By PostgreSQL's own statistics; see `connectors.model.EstimatingSource.estimated_rows`."""
        if not isinstance(stream, TableStream):
            raise TypeError(f"{self.name} reads TableStream, not {type(stream).__name__}")
        with _prepared(connections.database(self.database), stream) as connection, connection:
            condition = _condition(stream, {}, ExtractRequest(window=window))
            table = sql.Identifier(stream.schema, stream.table_name)
            row = connection.execute(
                sql.SQL("explain (format json) select from {} where {}").format(table, condition or sql.SQL("true"))
            ).fetchone()
        return int(row[0][0]["Plan"]["Plan Rows"]) if row else 0


@contextmanager
def _prepared(url: URL, stream: TableStream) -> Iterator[psycopg.Connection]:
    """A connection to prepare a read on. It stays open, unless that fails: what the source's database says then is the
    source's trouble, not the warehouse's."""
    connection = _connect(url)
    try:
        with _source_errors(stream):
            yield connection
    except BaseException:
        connection.close()
        raise


def _connect(url: URL) -> psycopg.Connection:
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{address(url)} is a {url.get_backend_name()} database, and this source reads PostgreSQL.",
            remedy="Write its URL with postgresql+psycopg://.",
        )
    try:
        connection = cancelled_at_stop(
            StoppableConnection.connect(
                **psycopg_arguments(url, _SETTINGS), application_name=APPLICATION_NAME, autocommit=True
            )
        )
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
    except psycopg.OperationalError as error:
        text = " ".join(str(error).split())
        if "password authentication failed" in text or "does not exist" in text:
            raise ConfigurationError(
                f"{address(url)} refused the connection: {text}", remedy="Correct the database's URL in its block."
            ) from error
        raise SourceUnavailableError(
            f"{address(url)} cannot be reached: {text}",
            remedy="Check that the database runs and that its address is right.",
        ) from error
    return connection


def _columns(connection: psycopg.Connection, stream: TableStream) -> list[tuple[Column, bool]]:
    """The table's columns that are read, and of each whether it can travel in binary."""
    name = sql.Identifier(stream.schema, stream.table_name).as_string(connection)
    try:
        rows = connection.execute(_COLUMNS, [name]).fetchall()
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError(
            f"The database has no table {name} that this user may see.",
            remedy="Correct the stream's table or schema, or grant SELECT.",
            stream=stream.name,
        ) from None
    columns = []
    for column, kind, is_sent in rows:
        treatment = of_column(stream.privacy, column)
        binary = is_sent and not isinstance(treatment, Hashed)  # what is hashed is the text
        if not isinstance(treatment, Dropped):
            columns.append((Column(column, kind if binary else "text"), bool(binary)))
    names = {column for column, _, _ in rows}
    needed = {
        *stream.primary_key,
        *([stream.cursor.field] if stream.cursor else []),
        *filter(None, [stream.event_time]),
    }
    if lacking := sorted([*needed - names, *missing(stream.privacy, names)]):
        raise ConfigurationError(
            f"{name} has no column {', '.join(lacking)}.",
            remedy="Correct the stream's primary_key, cursor, event_time or privacy.",
            stream=stream.name,
        )
    return columns


def _position(
    connection: psycopg.Connection,
    stream: TableStream,
    columns: list[tuple[Column, bool]],
    request: ExtractRequest,
    settle_seconds: float,
) -> SourcePosition | None:
    if stream.cursor is None or request.window is not None:
        return None
    types = {column.name: column.type for column, _ in columns}
    table = sql.Identifier(stream.schema, stream.table_name)
    with _source_errors(stream):
        return look_up_position(
            connection,
            table,
            stream.cursor.field,
            types[stream.cursor.field],
            request.watermark,
            settle_seconds,
            has_lag=bool(stream.cursor.lag),
        )


def _copy(
    stream: TableStream, columns: list[tuple[Column, bool]], condition: sql.Composable | None, form: str = "binary"
) -> sql.Composed:
    selected = sql.SQL(", ").join(
        sql.Identifier(column.name) if binary else sql.SQL("{0}::text as {0}").format(sql.Identifier(column.name))
        for column, binary in columns
    )
    return sql.SQL("copy (select {} from {}{}) to stdout (format {})").format(
        selected,
        sql.Identifier(stream.schema, stream.table_name),
        sql.SQL(" where {}").format(condition) if condition is not None else sql.SQL(""),
        sql.SQL(form),
    )


def _condition(stream: TableStream, types: dict[str, str], request: ExtractRequest) -> sql.Composable | None:
    """Which rows are asked for; None is all."""
    if request.window is not None:
        check_window(stream, request.window)
        assert stream.event_time is not None  # noqa: S101 - just checked
        return sql.SQL("{0} >= {1} and {0} < {2}").format(
            sql.Identifier(stream.event_time),
            sql.Literal(request.window.start),
            sql.Literal(request.window.end),
        )
    if stream.cursor is None:
        return None
    since = request.watermark if request.watermark is not None else stream.cursor.initial
    if since is None:
        return None
    column = sql.Identifier(stream.cursor.field)
    bound = sql.Literal(since) if request.watermark is None else _bound(stream, types, since)
    # A row without a cursor value never comes after a watermark: it is read each time, to be loaded or refused.
    return sql.SQL("({0} >= {1} or {0} is null)").format(column, bound)


def _bound(stream: TableStream, types: Mapping[str, str], watermark: str) -> sql.Composable:
    """Where a load begins to read: the watermark, less the cursor's lag."""
    assert stream.cursor is not None  # noqa: S101 - there is no watermark without
    bound = sql.Literal(watermark)  # of no type yet: it takes the column's, also a domain's
    if not stream.cursor.lag:
        return bound
    kind = types[stream.cursor.field]
    if not kind.startswith(("timestamp", "date")):
        raise ConfigurationError(
            f"The cursor {stream.cursor.field} is of type {kind}, and has a lag, which is a span of time.",
            remedy="Leave the lag out: rows that are committed late are waited for without it.",
            stream=stream.name,
        )
    # The type comes from the source's own catalog, never from a parameter.
    return sql.SQL("{}::" + kind + " - {}::interval").format(bound, sql.Literal(stream.cursor.lag))


def _chunks(connection: psycopg.Connection, query: sql.Composed, stream: TableStream) -> Iterator[Chunk]:
    with _source_errors(stream), connection, connection.cursor() as cursor, cursor.copy(query) as copy:
        header: bytes | None = PGCOPY_HEADER
        more = True
        while more:
            data, rows, more = connection.wait(_take_rows(connection.pgconn))
            if header is not None:
                data, header = data.removeprefix(header), None
            if data:
                yield Chunk(data, rows)
        for _ in copy:
            raise AssertionError("rows after the trailer")


def _csv_chunks(connection: psycopg.Connection, query: sql.Composed, stream: TableStream) -> Iterator[Chunk]:
    """Rows as CSV, for a landing that is not binary. The server sends one message a row here too."""
    with _source_errors(stream), connection, connection.cursor() as cursor, cursor.copy(query) as copy:
        buffer = bytearray()
        rows = 0
        for message in copy:
            buffer += message
            rows += 1
            if len(buffer) >= _CHUNK_BYTES:
                yield Chunk(bytes(buffer), rows)
                buffer.clear()
                rows = 0
        if rows:
            yield Chunk(bytes(buffer), rows)


def _take_rows(pgconn: PGconn) -> Generator[Wait, Ready | int, tuple[bytes, int, bool]]:
    """A chunk of rows, how many they are, and whether more may follow; for psycopg to run.

    The server sends one message a row, the first behind the file's header, and the trailer as the last. They are taken
    from libpq here because a call of psycopg's own for each would take a third of the time of a whole load.
    """
    buffer = bytearray()
    rows = 0
    take = pgconn.get_copy_data
    while len(buffer) < _CHUNK_BYTES:
        size, data = take(1)
        if size > 0:
            if size in _ENDS and data == _ENDS[size]:
                return bytes(buffer), rows, False
            buffer += data
            rows += 1
        elif size == 0:
            while not (yield Wait.R):
                continue
            pgconn.consume_input()
        elif (result := pgconn.get_result()) is not None:
            error = error_from_result(result)
            pgconn.finish()  # psycopg logs what libpq said last when it ends a COPY that failed: it may quote a row
            raise error
    return bytes(buffer), rows, True


@contextmanager
def _source_errors(stream: TableStream) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"The source's user may not read {stream.schema}.{stream.table_name}.",
            remedy="Grant it SELECT on the table.",
            stream=stream.name,
        ) from error
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as error:
        raise SourceUnavailableError(
            f"The table changed while it was read: {' '.join(str(error).split())}",
            remedy="Run again.",
            stream=stream.name,
        ) from error
    except psycopg.OperationalError as error:
        raise SourceUnavailableError(
            f"The source's database broke off: {' '.join(str(error).split())}",
            remedy="It is retried; if it lasts, look at the source's log.",
            stream=stream.name,
        ) from error
    except psycopg.Error as error:
        if not stream.privacy:
            raise
        # A view that divides by zero or casts a text says with which value.
        raise DataError(
            f"The source's database cannot give its rows (SQLSTATE {error.sqlstate}); its words may hold private "
            "values, and are left out.",
            remedy="Select from the table or view there: the error is in its log.",
            stream=stream.name,
        ) from None
