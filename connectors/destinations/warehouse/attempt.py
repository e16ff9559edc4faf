"""The table that one attempt of a load fills, out of everyone's sight, until a single transaction makes it count.

Rows are committed here as they come, in schema `loading`, and unlogged unless the table is to become raw itself: an
attempt that dies leaves nothing in raw, not even dead space, and the next run of the stream drops its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from types import TracebackType
from typing import Self
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.landing import Landing
from connectors.destinations.manifest import Manifest
from connectors.destinations.warehouse.columns import PAYLOAD, REJECTED, ROW, Kind, column_name, column_names
from connectors.destinations.warehouse.connection import LOADING
from connectors.destinations.warehouse.file_records import parser_of
from connectors.destinations.warehouse.raw_table import fill_factor, raw_columns
from connectors.destinations.warehouse.records import RecordParser, Rejected, escaped
from connectors.destinations.warehouse.typed_documents import UnfitError
from connectors.destinations.warehouse.whole_chunks import NULL, TEXT, WholeChunk
from connectors.destinations.warehouse.windows import WindowColumn
from connectors.errors import DataError, LandingCorruptError, MalformedResponseError, WindowError
from connectors.failpoints import reach
from connectors.formats.file_streams import FileStream, OnBadFile
from connectors.formats.framing import PGCOPY_HEADER, PGCOPY_TRAILER
from connectors.model import Chunk, Column, FileVersion, LandingFormat, Stream, Window
from connectors.privacy import Masked, untreated

SEGMENT_BYTES = 32 << 20
"""Bytes after which what was copied is committed, so that no transaction stays open for as long as a source sends."""

_SEND_BYTES = 1 << 20
_BINARY, _CSV = sql.SQL("(format binary)"), sql.SQL("(format csv)")


class AttemptTable:
    """Where an attempt's rows are gathered. Needs a connection in autocommit; use as a context manager.

    Leaving it drops the table, unless the commit has done so already.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        source: str,
        stream: Stream,
        load_id: UUID,
        attempt: int,
        record_format: LandingFormat,
        columns: Iterable[Column],
        *,
        scope: str = "",
    ) -> None:
        self._connection = connection
        self._source = source
        self._stream = stream
        self._scope = scope
        self.relation = f"l{load_id.hex}_{attempt}"
        self.name = sql.Identifier(LOADING, self.relation)
        self._is_binary = record_format is LandingFormat.PGCOPY
        self._typed = tuple(columns)
        self._is_masked = any(isinstance(treatment, Masked) for treatment in stream.privacy.values())
        self._json_columns = _json_columns(connection, source, stream)
        self._parser = parser_of(stream, record_format, self._typed, self._json_columns)
        self._sets_bad_files_aside = isinstance(stream, FileStream) and stream.on_bad_file is OnBadFile.QUARANTINE
        # What a typed source fills first becomes the raw table itself, so it is written once, and for good.
        self.may_become_raw = self._parser is None and not raw_columns(connection, source, stream.name)
        self._columns: list[str] = []
        self._segment: psycopg.Copy | None = None
        self._segment_of: tuple[sql.SQL, Sequence[str]] = (TEXT, [])
        self._segment_end = ExitStack()
        self._copying = connection.cursor()
        self._segment_bytes = 0
        self.rows = 0
        self.forgotten = 0
        """Rows that came beside them, and were left out because their key was forgotten."""
        self._holes: list[int] = []
        """Places of rows that were erased from the landing: those behind them keep theirs."""
        self.unreadable = 0
        """Of the rows, those that no values could be made of."""
        self.bad_files = 0
        """Of those, the ones that stand for whole files."""
        self.assumes_fit = False
        """Whether it holds documents that nobody has judged: it becomes raw as it is, or is of no use."""
        self.does_not_fit = False
        """Whether it was of no use already: the load is in the landing alone."""
        self._file: FileVersion | None = None
        self._file_is_bad = False
        self._before_file: tuple[int, int, object] = (0, 0, None)
        """Rows, unreadable ones, and what was learned of the columns, before the file that is being taken apart."""

    @property
    def is_outdated(self) -> bool:
        """Whether its documents were taken apart by columns that raw has otherwise now: another load, of a window
        beside this one, was committed since."""
        return self._parser is not None and self._json_columns != _json_columns(
            self._connection, self._source, self._stream
        )

    @property
    def columns(self) -> list[str]:
        """The data columns that the table has, in order."""
        return list(self._columns)

    @cached_property
    def source_types(self) -> dict[str, str]:
        """The type of each column that the source typed."""
        names = column_names(column.name for column in self._typed)
        return {names[column.name]: column.type for column in self._typed}

    @property
    def types(self) -> dict[str, str] | None:
        """The type of each column where the table has those that the source gave; None where it holds text."""
        return self.source_types if self._parser is None else None

    @property
    def typed_fields(self) -> tuple[Column, ...]:
        """Of documents: the fields that their source typed."""
        return self._typed if self._parser is not None else ()

    @property
    def kinds(self) -> dict[str, Kind] | None:
        """What the values were, where the format tells, also of columns that had none."""
        return self._parser.kinds if self._parser is not None else None

    @property
    def asked(self) -> dict[str, str | None]:
        """The type that each column asks for; None if it has had no value."""
        typed = self.source_types
        if self._parser is None:
            return dict(typed)
        return {name: typed.get(name) or kind for name, kind in self._parser.types.items()}

    def __enter__(self) -> Self:
        self._drop_earlier()
        types = self.types if self.types is not None else dict.fromkeys(self.source_types, "text")
        self._columns = list(types)
        definitions = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # format_type's own words
            for name, kind in types.items()
        ]
        own = [] if self.may_become_raw else _books()
        # One message is one transaction: a table without its label would never be found again.
        self._connection.execute(
            sql.SQL(
                "create {} table {name} ({}) with (autovacuum_enabled = false, fillfactor = {});"
                " comment on table {name} is {}"
            ).format(
                sql.SQL("") if self.may_become_raw else sql.SQL("unlogged"),
                sql.SQL(", ").join([*own, *definitions]),
                sql.Literal(fill_factor(self._stream) if self.may_become_raw else 100),
                sql.Literal(f"{self._source}.{self._stream.name} {self._scope}".rstrip()),
                name=self.name,
            )
        )
        reach("table-made")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.closed or self._connection.broken:
            return  # the next run drops it
        try:
            self._segment_end.__exit__(kind, error, trace)
            self._connection.execute(sql.SQL("drop table if exists {}").format(self.name))
        except psycopg.Error:
            if error is None:
                raise

    def prepare_judgement(self) -> None:
        """Give each row its place in the load, and room for why it is rejected. Columns that are written with every
        row cost a third of its COPY, so a table that may become raw as it is has none until it turns out that it may
        not. Call it inside a transaction, before any row is changed.
        """
        if not self.may_become_raw:
            return
        self.may_become_raw = False
        # The rows are numbered as they are read: from the first on, not from where an earlier scan stopped.
        self._connection.execute("set local synchronize_seqscans = off")
        self._connection.execute(
            sql.SQL("alter table {} {}").format(
                self.name, sql.SQL(", ").join(sql.SQL("add column {}").format(column) for column in _books())
            )
        )
        self._keep_places()

    def _keep_places(self) -> None:
        """Give rows the places that they had before others were erased from the landing."""
        if not self._holes:
            return
        # By how many a row moves: of the erased places, less those before each, as many as are not behind it.
        before = [place - number for number, place in enumerate(self._holes)]
        self._connection.execute(
            sql.SQL(
                "alter table {table} alter column {row} drop identity;"
                " update {table} set {row} = {row}"
                " + (select count(*) from unnest({before}::bigint[]) e where e <= {row})"
            ).format(table=self.name, row=sql.Identifier(ROW), before=sql.Literal(before))
        )

    def leave_out(self, condition: sql.Composable) -> list[int]:
        """Drop the rows of a condition, which then count as forgotten; their places in the load.

        Once all rows are in.

        Raises:
            UnfitError: they are documents that nobody has judged: the load is to be taken from the landing.
        """
        with self._connection.transaction():
            found = self._connection.execute(
                sql.SQL("select exists (select from {} where {})").format(self.name, condition)
            ).fetchone()
            if found != (True,):
                return []
            if self.assumes_fit:  # as it is it must not become raw
                raise UnfitError
            self.prepare_judgement()
            rows = self._connection.execute(
                sql.SQL("delete from {} where {} returning {}, {} is not null").format(
                    self.name, condition, sql.Identifier(ROW), sql.Identifier(REJECTED)
                )
            ).fetchall()
        self.rows -= len(rows)
        self.forgotten += len(rows)
        self.unreadable -= sum(is_rejected for _, is_rejected in rows)
        return sorted(place for place, _ in rows)

    def unreadable_places(self) -> list[int]:
        """The places of the rows that no values could be made of. Before any is judged."""
        if not self.unreadable or self.assumes_fit:
            return []
        rows = self._connection.execute(
            sql.SQL("select {0} from {1} where {2} is not null order by 1").format(
                sql.Identifier(ROW), self.name, sql.Identifier(REJECTED)
            )
        )
        return [place for (place,) in rows]

    def write(self, chunk: Chunk) -> int:
        """Add a chunk's records.

        Returns:
            How many there were, rejected ones included; less than none when its file turns out to be bad, so that what
            came of it before counts no more.

        Raises:
            MalformedResponseError: its file is not what the stream says, and bad files are not set aside.
        """
        if self._parser is None:
            rows = self._write_typed(chunk)  # counted by the server, at the end of the segment
        else:
            rows = self._write_file(chunk, self._parser) if chunk.file else self._write_parsed(chunk, self._parser)
            self.rows += rows
        self._segment_bytes += len(chunk.data)
        # What comes of the landing in binary is not cut at rows, and says so by not counting them.
        if self._segment_bytes >= SEGMENT_BYTES and (self._parser is not None or chunk.rows):
            self._end_segment()
        return rows

    def highest(self, column: str, kind: str) -> str | None:
        """The greatest value of a column, as text; values that are none of its type aside."""
        if column not in self._columns:
            return None
        value: sql.Composable = sql.Identifier(column)
        if self.types is None:
            value = sql.SQL("case when pg_input_is_valid({0}, {1}) then {0}::{2} end").format(
                value, sql.Literal(kind), sql.SQL(kind)  # from the stream's definition
            )  # fmt: skip
        row = self._connection.execute(
            # In two steps: a name in `order by` is first of all one of what is selected, which is the text.
            sql.SQL("select f.v::text from (select {0} as v from {1}) f where f.v is not null"
                    " order by f.v desc limit 1").format(value, self.name)
        ).fetchone()  # fmt: skip
        return row[0] if row else None

    def rows_within(self, window: Window, types: Mapping[str, str]) -> tuple[int, ...]:
        """The places of the rows whose event time is in a window, once all are in.

        Args:
            types: raw's types. A value that is none of its type is in no window.

        Raises:
            WindowError: the stream has no event time that holds instants.
        """
        column = WindowColumn.of(self._stream, types)
        if column is None or column.name not in self._columns:
            raise WindowError(
                "The rows of this load cannot be told apart by window.",
                remedy="Give the stream an event_time, and that column a type: timestamptz, timestamp or date.",
                window=window,
            )
        with self._connection.transaction():
            self.prepare_judgement()
        value = sql.SQL("(case when pg_input_is_valid({0}::text, {1}) then {0}::text::{2} end)").format(
            column.identifier, sql.Literal(types[column.name]), sql.SQL(types[column.name])
        )
        found = self._connection.execute(
            sql.SQL("select {row} from (select {row}, {value} as {name} from {table}) r where {within}").format(
                row=sql.Identifier(ROW),
                value=value,
                name=column.identifier,
                table=self.name,
                within=column.within(window),
            )
        )
        return tuple(row for (row,) in found)

    def has_null(self, column: str) -> bool:
        """Whether any row has no value in a column."""
        row = self._connection.execute(
            sql.SQL("select exists(select from {} where {} is null)").format(self.name, sql.Identifier(column))
        ).fetchone()
        return bool(row and row[0])

    def finish(self) -> None:
        """All rows are in."""
        self._end_segment()
        if self.may_become_raw:  # the next to read it is dbt
            self._connection.execute(sql.SQL("analyze {}").format(self.name))

    def _write_typed(self, chunk: Chunk) -> int:
        if self._is_binary and self._segment is None:
            self._send(_BINARY, self._columns, PGCOPY_HEADER)
        self._send(_BINARY if self._is_binary else _CSV, self._columns, chunk.data)
        return chunk.rows

    def _write_file(self, chunk: Chunk, parser: RecordParser) -> int:
        if chunk.file != self._file:
            self._file = chunk.file
            self._file_is_bad = False
            self._before_file = (self.rows, self.unreadable, parser.learned())
        if self._file_is_bad:
            return 0
        if chunk.refused is not None:
            return self._set_file_aside(chunk.refused, parser)
        try:
            return self._write_parsed(chunk, parser)
        except MalformedResponseError as error:
            if not self._sets_bad_files_aside:
                raise
            return self._set_file_aside(error.what, parser)

    def _set_file_aside(self, why: str, parser: RecordParser) -> int:
        """Have one rejected row stand for the file, instead of those that it had until it went wrong."""
        assert self._file is not None  # noqa: S101 - begun by the caller
        self._end_segment()
        rows, unreadable, learned = self._before_file
        parser.unlearn(learned)
        changes = [sql.SQL("alter column {} restart with {}").format(sql.Identifier(ROW), sql.Literal(rows + 1))]
        changes += [
            sql.SQL("drop column {}").format(sql.Identifier(column))
            for column in self._columns
            if column not in parser.columns
        ]
        self._connection.execute(
            sql.SQL("delete from {0} where {1} > {2}; alter table {0} {3}").format(
                self.name, sql.Identifier(ROW), sql.Literal(rows), sql.SQL(", ").join(changes)
            )
        )
        self._columns = list(parser.columns)
        self._send_lines([self._rejected(Rejected(f"the whole file: {why}", self._file.path))])
        self._file_is_bad = True
        self.bad_files += 1
        self.unreadable = unreadable + 1
        return rows + 1 - self.rows

    def _rejected(self, record: Rejected) -> bytes:
        payload = record.payload
        if self._is_masked:
            payload = f"withheld, {len(payload.encode()):,} bytes: the stream has masked fields"
        return b"\t".join([escaped(record.reason, ""), escaped(payload, ""), *[NULL] * len(self._columns)])

    def _write_parsed(self, chunk: Chunk, parser: RecordParser) -> int:
        """Rows of text. A rejected record is a row too, with no values but the reason and what it was."""
        if (whole := parser.whole(chunk)) is not None and len(parser.columns) == len(self._columns):
            self._send_whole(whole)
            return whole.rows
        rows = size = 0
        lines: list[bytes] = []
        for row in parser.rows(chunk):
            if len(parser.columns) != len(self._columns):
                self._send_lines(lines)
                lines, size = [], 0
                self._add_columns(parser.columns)
            if isinstance(row, Rejected):
                self.unreadable += 1
                lines.append(self._rejected(row))
            else:
                lines.append(b"\t".join([NULL, NULL, *row]))
            rows += 1
            size += len(lines[-1])
            if size >= _SEND_BYTES:  # a chunk may be the end of a file, and all its rows come of that
                self._send_lines(lines)
                lines, size = [], 0
        if len(parser.columns) != len(self._columns):  # a header without a row
            self._add_columns(parser.columns)
        self._send_lines(lines)
        return rows

    def _send_lines(self, lines: list[bytes]) -> None:
        if lines:
            self._send(TEXT, [REJECTED, PAYLOAD, *self._columns], b"\n".join([*lines, b""]))

    def _send_whole(self, whole: WholeChunk) -> None:
        self._send(whole.form, whole.columns, whole.lines)

    def _add_columns(self, columns: list[str]) -> None:
        self._end_segment()
        new = [column for column in columns if column not in self._columns]
        self._connection.execute(
            sql.SQL("alter table {} {}").format(
                self.name,
                sql.SQL(", ").join(sql.SQL("add column {} text").format(sql.Identifier(column)) for column in new),
            )
        )
        self._columns = list(columns)

    def _send(self, form: sql.SQL, columns: Sequence[str], data: bytes) -> None:
        """Copy data, in the segment before if it is for the same columns in the same form."""
        if self._segment is None or self._segment_of != (form, columns):
            self._end_segment()
            self._begin_segment(form, columns)
            self._segment_of = (form, list(columns))
        assert self._segment is not None  # noqa: S101 - begun just now
        self._segment.write(data)

    def _begin_segment(self, form: sql.SQL, columns: Sequence[str]) -> None:
        copy = sql.SQL("copy {} ({}) from stdin {}").format(
            self.name, sql.SQL(", ").join(map(sql.Identifier, columns)), form
        )
        self._copying = self._connection.cursor()
        self._segment_end.enter_context(self._connection.transaction())
        # Nobody waits for the disk here: what a crash takes away belongs to an attempt that it ends. The load's own
        # commit waits, and with it for all that came before.
        self._connection.execute("set local synchronous_commit = off")
        self._segment = self._segment_end.enter_context(self._copying.copy(copy))

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        self._segment_bytes = 0
        if segment is None:
            return
        if self._is_binary:
            segment.write(PGCOPY_TRAILER)
        self._segment_end.close()
        if self._parser is None:
            self.rows += self._copying.rowcount

    def _drop_earlier(self) -> None:
        """Tables of this stream's dead attempts: those of the lease that the caller holds, and of others that nobody
        holds any more."""
        rows = self._connection.execute(
            """
            select c.relname from pg_class c
            join ops.streams s
                on obj_description(c.oid, 'pg_class') = rtrim(s.source || '.' || s.stream || ' ' || s.scope)
            left join pg_stat_activity a on a.pid = s.holder_pid and a.backend_start = s.holder_session_start
            where c.relnamespace = %s::regnamespace and c.relkind = 'r' and s.source = %s and s.stream = %s
              and (s.scope = %s or s.holder is null or a.pid is null)
            """,
            [LOADING, self._source, self._stream.name, self._scope],
        ).fetchall()
        for (name,) in rows:
            # One that sleeps in the middle of its COPY holds a lock: its table is left to a later run.
            with suppress(psycopg.errors.LockNotAvailable), self._connection.transaction():
                self._connection.execute("set local lock_timeout = '1s'")
                self._connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(LOADING, name)))

    def fill_from(self, landing: Landing, manifest: Manifest, *, to_erase: bool = False) -> tuple[FileVersion, ...]:
        """Take all of a load from the landing.

        Args:
            to_erase: whether rows of it are to be found and erased, and none loaded; then they may be private.

        Returns:
            The source's files that it consists of, if it does.

        Raises:
            LandingCorruptError: an object is missing or altered, or the rows are not as many as the manifest says.
            DataError: it landed before something in it became private, so it is not to be loaded.
        """
        if not to_erase and (fields := untreated(self._stream.privacy, manifest.privacy)):
            word = self._stream.privacy[fields[0]].word
            raise DataError(
                f"Load {manifest.load_id} landed before `{fields[0]}` was to be {word}: its values would be in raw.",
                remedy="docs/privacy.md says how to begin anew with a stream that has become private.",
            )
        files: dict[str, FileVersion] = {}
        for chunk in landing.read(manifest):
            self.write(chunk)
            if chunk.file is not None:
                files[chunk.file.path] = chunk.file
        self.finish()
        if self.rows != manifest.rows:
            raise LandingCorruptError(
                f"The landing has {self.rows:,} rows of this load; its manifest says {manifest.rows:,}.",
                remedy="Restore its objects from a backup of the landing, or extract the load again. If the definition "
                "was changed so that other rows come of the stream's files, run it once with full_refresh.",
            )
        self._holes = list(manifest.forgotten)
        self.forgotten = len(self._holes)
        if not self.may_become_raw:
            self._keep_places()
        return tuple(files.values())


def _books() -> list[sql.Composed]:
    """What is noted of each row beside its values, as column definitions."""
    return [
        # Numbers are taken from the sequence many at a time, by the one session that fills the table: none is left out.
        sql.SQL("{} bigint generated always as identity (cache 10000)").format(sql.Identifier(ROW)),
        sql.SQL("{} text").format(sql.Identifier(REJECTED)),
        sql.SQL("{} text").format(sql.Identifier(PAYLOAD)),
    ]


def _json_columns(connection: psycopg.Connection, source: str, stream: Stream) -> frozenset[str]:
    """The columns whose values stay JSON, also those that are single strings or numbers."""
    declared = {column_name(name): kind for name, kind in stream.columns.items()}
    types = {**declared, **raw_columns(connection, source, stream.name)}
    return frozenset(name for name, kind in types.items() if kind == "jsonb")
