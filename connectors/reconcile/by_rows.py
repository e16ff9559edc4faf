"""One comparison by rows that are read again: as exact as a load, of any source, at the price of a read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import psycopg
from psycopg import sql
from uuid_utils.compat import uuid7

from connectors.comparison.differences import Difference, Findings, Limits
from connectors.comparison.digests import Key, Span
from connectors.comparison.row_digests import adjacent
from connectors.connections import Connections
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import DELETED_AT
from connectors.destinations.warehouse.ledger import take_turn
from connectors.destinations.warehouse.raw_table import LoadContext, raw_columns
from connectors.destinations.warehouse.reconciliations import in_quarantine
from connectors.destinations.warehouse.row_comparison import DifferingRow, RowComparison
from connectors.destinations.warehouse.watermark import read_watermark
from connectors.destinations.warehouse.windows import WindowColumn
from connectors.errors import ConfigurationError, DataError, DestinationUnavailableError
from connectors.model import Extraction, ExtractRequest, KeySource, Source, Stream, Window
from connectors.overlap import ReadAhead
from connectors.treatments.extractions import treated

_TIMES_AS_MANY = 2
"""How many times the rows that are compared in one go may be read, before the source is taken to be another."""


def compare_rows(
    source: Source,
    stream: Stream,
    connections: Connections,
    connection: psycopg.Connection,
    span: Span,
    limits: Limits,
    *,
    scope: str,
) -> Findings:
    """What differs in a span. Adjacent windows are read together.

    Args:
        connection: to the warehouse, in autocommit.
        scope: of the lease that the caller holds.

    Raises:
        ConfigurationError: the stream has no windows, and more rows than are read again in one go.
        DataError: the source has many times as many rows as raw.
        HeadwaterError: as `Source.extract`.
    """
    reading = _Reading(source, stream, connections, connection, limits, scope)
    windows: Sequence[Window | None] = adjacent(span.windows) or [None]
    total = Findings()
    for window in windows:
        total += reading.compare(window)
    return total.at_most(limits.differences)


class _Reading:
    def __init__(
        self,
        source: Source,
        stream: Stream,
        connections: Connections,
        connection: psycopg.Connection,
        limits: Limits,
        scope: str,
    ) -> None:
        self._source = source
        self._stream = stream
        self._connections = connections
        self._connection = connection
        self._limits = limits
        self._scope = scope

    def compare(self, window: Window | None) -> Findings:
        with self._connection.transaction():
            # Commits before it are in raw when the rows are read; those after it say so by when they were.
            began_at = take_turn(self._connection, self._source.name, self._stream.name)
            position = read_watermark(self._connection, self._source.name, self._stream.name).value
        in_raw = self._count_raw(window)
        most = self._limits.differences + 1
        extraction = self._extract(ExtractRequest(window=window))
        with self._read(extraction, window, in_raw) as attempt, self._connection.transaction(force_rollback=True):
            comparison = RowComparison(
                self._connection, attempt, self._context(window), began_at=began_at, position=position
            )
            rejected = comparison.judge()
            changed = comparison.count_changed()
            found, gone = comparison.differing(most), comparison.deleted(window, most)
            read = attempt.rows
        is_at_least = len(found) == most or len(gone) == most
        if gone and window is not None:
            gone = self._without_moved(gone, position, began_at)
        aside = self._in_quarantine(found)
        differences = [self._difference(row) for row in (*found, *gone) if row.key not in aside]
        return Findings(differences, is_at_least, read, in_raw, rejected + len(aside), changed, read)

    def _extract(self, request: ExtractRequest) -> Extraction:
        """Begin a read, less what the stream is to keep private."""
        read = partial(self._source.extract, self._stream, request, self._connections)
        return treated(read, self._stream, self._connections)

    @contextmanager
    def _read(self, extraction: Extraction, window: Window | None, expected: int) -> Iterator[AttemptTable]:
        """All rows of a read, in a table of its own."""
        most = max(_TIMES_AS_MANY * expected, self._limits.rows)
        with AttemptTable(
            self._connection,
            self._source.name,
            self._stream,
            uuid7(),
            1,
            extraction.format,
            extraction.columns,
            scope=self._scope,
        ) as attempt:
            with ReadAhead(extraction.chunks) as chunks:
                for chunk in chunks:
                    attempt.write(chunk)
                    if attempt.rows > most:
                        raise DataError(
                            f"The source has more than {most:,} rows there, and raw {expected:,}.",
                            remedy="Read them by a backfill, or the stream by a full_refresh; then reconcile it.",
                            window=window,
                        )
            attempt.finish()
            if attempt.is_outdated:
                raise DestinationUnavailableError(
                    "A load changed raw's columns while the rows were read.", remedy="Run again.", window=window
                )
            yield attempt

    def _without_moved(self, gone: list[DifferingRow], position: str | None, began_at: datetime) -> list[DifferingRow]:
        """Those of the rows that are not in their window any more which are nowhere else either.

        A row that moved to another window was changed: it is among the changes since the watermark. Without one
        nothing tells but all keys.
        """
        if position is not None:
            extraction = self._extract(ExtractRequest(watermark=position))
        else:
            assert isinstance(self._source, KeySource)  # noqa: S101 - others are not reconciled
            keys = partial(self._source.keys, self._stream, self._connections)
            extraction = treated(keys, self._stream, self._connections, only=self._stream.primary_key)
        with (
            self._read(extraction, None, self._count_raw(None)) as attempt,
            self._connection.transaction(force_rollback=True),
        ):
            context = self._context(None)
            comparison = RowComparison(self._connection, attempt, context, began_at=began_at, position=position)
            comparison.judge()
            moved = comparison.present([row.key for row in gone])
        return [row for row in gone if row.key not in moved]

    def _count_raw(self, window: Window | None) -> int:
        """The live rows that raw has.

        Raises:
            ConfigurationError: they are more than are read again in one go, and there are no windows to part them by.
        """
        types = raw_columns(self._connection, self._source.name, self._stream.name)
        column = WindowColumn.of(self._stream, types)
        row = self._connection.execute(
            sql.SQL("select count(*) from {} where {} is null and {}").format(
                sql.Identifier(f"raw_{self._source.name}", self._stream.name),
                sql.Identifier(DELETED_AT),
                sql.SQL("true") if window is None or column is None else column.within(window),
            )
        ).fetchone()
        rows = int(row[0]) if row else 0
        if self._stream.event_time is None and rows > self._limits.rows:
            raise ConfigurationError(
                f"Raw has {rows:,} rows: more than the {self._limits.rows:,} that are read again in one go.",
                remedy="Give the stream an event_time, so that it can be compared window by window; a PostgreSQL "
                "database needs none if it is read by PostgresSource.",
            )
        return rows

    def _in_quarantine(self, rows: Sequence[DifferingRow]) -> set[Key]:
        if not rows:
            return set()
        types = raw_columns(self._connection, self._source.name, self._stream.name)
        asked = [(row.key, row.cursor) for row in rows]
        return in_quarantine(self._connection, self._source.name, self._stream, types, asked)

    def _context(self, window: Window | None) -> LoadContext:
        # As in a rebuild: what the contract does is done, and not recorded.
        return LoadContext(self._source.name, self._stream, uuid7(), window, is_rebuild=True)

    def _difference(self, row: DifferingRow) -> Difference:
        window = None
        if row.event_time is not None:
            start = self._stream.windows.start_of(row.event_time)
            window = Window(start, self._stream.windows.next(start))
        return Difference(window, row.key, row.kind, row.columns)
