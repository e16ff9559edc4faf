"""The first load of documents, straight into the table that becomes raw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import SEGMENT_BYTES, AttemptTable
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, raw_columns
from connectors.destinations.warehouse.records import RecordParser, Rejected, transposed
from connectors.destinations.warehouse.typed_documents import TypedDocuments, UnfitError
from connectors.destinations.warehouse.whole_chunks import WholeChunk, of_columns
from connectors.errors import ContractViolationError
from connectors.formats.file_streams import FileStream
from connectors.model import Chunk, Column, LandingFormat, Stream


def table_for_extraction(
    connection: psycopg.Connection,
    source: str,
    stream: Stream,
    load_id: UUID,
    attempt: int,
    record_format: LandingFormat,
    columns: Iterable[Column],
    *,
    scope: str = "",
) -> AttemptTable:
    """The table that an extraction fills while it lands. If it turns out to be of no use, the landing has the load."""
    columns = tuple(columns)
    # Files may turn out to be bad at their end, and are judged row by row from the first.
    is_untyped = record_format is LandingFormat.JSONL and not columns and not isinstance(stream, FileStream)
    if is_untyped and not raw_columns(connection, source, stream.name):
        with suppress(ContractViolationError):  # a type that is none: the commit says so
            declared = RawTable(connection, LoadContext(source, stream, load_id, None)).declared_types()
            if TypedDocuments.knows(declared):
                return FirstLoadTable(
                    connection,
                    source,
                    stream,
                    load_id,
                    attempt,
                    record_format,
                    columns,
                    typed=TypedDocuments(declared),
                    scope=scope,
                )
    return AttemptTable(connection, source, stream, load_id, attempt, record_format, columns, scope=scope)


class FirstLoadTable(AttemptTable):
    """Typed columns for documents, as long as all of them fit. Once one does not, rows are only counted."""

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
        typed: TypedDocuments,
        scope: str = "",
    ) -> None:
        super().__init__(connection, source, stream, load_id, attempt, record_format, columns, scope=scope)
        self._documents = typed
        self.assumes_fit = True
        self.may_become_raw = True

    @property
    def types(self) -> dict[str, str] | None:
        return dict(self._documents.types) if self.assumes_fit else None

    def write(self, chunk: Chunk) -> int:
        assert self._parser is not None  # noqa: S101 - documents have one
        whole = self._parser.whole(chunk)
        if whole is None:
            rows = list(self._parser.rows(chunk))
            if not any(isinstance(row, Rejected) for row in rows):
                whole = of_columns(transposed(rows, self._parser.columns))
            count = len(rows)
        else:
            count = whole.rows
        self.rows += count
        if self.assumes_fit:
            try:
                self._write_whole(self._parser, whole)
                self._segment_bytes += len(chunk.data)
                if self._segment_bytes >= SEGMENT_BYTES:
                    self._end_segment()
            except (UnfitError, psycopg.DataError):
                self._give_up()
        return count

    def highest(self, column: str, kind: str) -> str | None:
        """As of any attempt; None once something did not fit."""
        return None if self.does_not_fit else super().highest(column, kind)

    def finish(self) -> None:
        if self.assumes_fit:
            try:
                self._end_segment()
            except psycopg.DataError:
                self._give_up()
        if self.assumes_fit and self.rows:
            self._follow(self._documents.rest())
        elif self.assumes_fit:  # a load without rows is judged like any other
            self.assumes_fit = False
            self.prepare_judgement()
        super().finish()

    def _write_whole(self, parser: RecordParser, whole: WholeChunk | None) -> None:
        """Add a chunk's rows.

        Raises:
            UnfitError: one of them is rejected, or has a value that its column would change, or none has any value.
        """
        if whole is None or not whole.columns:
            raise UnfitError
        self._follow(self._documents.wanted(parser.kinds or {}))
        self._documents.check(whole)
        self._send_whole(whole)

    def _follow(self, wanted: Mapping[str, str]) -> None:
        """Have the table's columns be of these types."""
        types = self._documents.types
        if not (changed := {name: kind for name, kind in wanted.items() if types.get(name) != kind}):
            return
        self._end_segment()
        changes = [
            sql.SQL("alter column {} type {}" if name in types else "add column {} {}").format(
                sql.Identifier(name), sql.SQL(kind)  # format_type's own words
            )
            for name, kind in changed.items()
        ]  # fmt: skip
        self._connection.execute(sql.SQL("alter table {} {}").format(self.name, sql.SQL(", ").join(changes)))
        types.update(changed)
        self._columns = list(types)

    def _give_up(self) -> None:
        self.assumes_fit = False
        self.may_become_raw = False
        self.does_not_fit = True
        with suppress(psycopg.DataError):
            self._end_segment()
