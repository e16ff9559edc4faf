"""Reconciliation: prove that raw is what the source is, window by window; name rows that are not; heal them if told.

A source that can sum up its rows (`comparison.digests.DigestSource`) is asked for counts and checksums, which are split
until the rows that differ are few (`comparison.bisection`). Of others the rows are read again, and compared with raw
without being written. Either way the watermark tells a difference from a change that the next load brings, so loads go
on meanwhile. Nothing is changed, at the source never, and in raw only by the loads that heal.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from connectors.comparison.differences import Difference, Findings, Kind, Limits
from connectors.comparison.digests import DigestSource, Span
from connectors.comparison.row_digests import adjacent
from connectors.connections import Connections
from connectors.deletions import find_deleted
from connectors.destinations.warehouse.columns import DELETED_AT, column_name
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.forgotten import forgotten_keys
from connectors.destinations.warehouse.ledger import LEASE_SECONDS, Lease
from connectors.destinations.warehouse.raw_table import raw_columns
from connectors.destinations.warehouse.reconciliations import (
    ReconciliationBook,
    next_keys,
    reconciled_at,
    windows_that_differ,
)
from connectors.destinations.warehouse.watermark import read_watermark
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.ingest import Destination, Logger, ingest
from connectors.model import KeySource, Source, Stream, Window, WriteDisposition
from connectors.privacy import MASK, Hashed, Masked, of_column
from connectors.reconcile.by_digests import compare_digests
from connectors.reconcile.by_rows import compare_rows
from connectors.unsaid import UNSAID
from connectors.windows import WindowState, windows_of

MOST_WINDOWS = 31
_SCOPE = "reconcile"
_ORDERED = ("smallint", "integer", "bigint", "numeric", "date", "timestamp", "uuid")
"""How the types begin whose order is the same in every database: ranges of them have the same rows on both sides."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of one reconciliation of a stream."""

    reconciliation_id: UUID
    source: str
    stream: str
    span: Span
    findings: Findings
    error: str | None = None
    """Why not all could be healed that was to be."""

    def __str__(self) -> str:
        found = self.findings
        where = f"{len(self.span.windows):,} windows, " if self.span.windows else ""
        said = [f"{count:,} {kind}" for kind, count in found.counts.items() if count]
        parts = [f"{where}{found.rows_at_source:,} rows at the source, {found.rows_in_raw:,} in raw"]
        parts.append(f"{'at least ' if found.is_at_least else ''}{', '.join(said) or 'none differ'}")
        if healed := len(found.differences) - len(found.open):
            parts.append(f"{healed:,} healed")
        if found.quarantined:
            parts.append(f"{found.quarantined:,} in quarantine")
        return "; ".join(parts)


def can_be_reconciled(source: Source, stream: Stream) -> bool:
    """Whether the source tells what it has now, and rows of the stream can be told apart."""
    return isinstance(source, KeySource) and bool(stream.primary_key)


def reconcile(
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    most_windows: int = MOST_WINDOWS,
    heal: bool = False,
    limits: Limits | None = None,
    run: str = "by hand",
    wait_seconds: float = 300.0,
    now: datetime | None = None,
    log: Logger | None = None,
) -> Reconciliation | None:
    """Hold raw against the source, for the windows of a stream that were compared longest ago.

    Of a stream without windows, a range of its keys is compared, and the next range the next time.

    Args:
        start: only windows from here on; with `end`, exclusive. Without them, all that loads have once brought.
        most_windows: no more than so many, and no more rows than the limits say.
        heal: whether what differs is read again from the source, and what the source no longer has is marked. Windows
            (or keys) with rows that are known to differ come first then.
        wait_seconds: how long to wait for another reconciliation of the stream.

    Returns:
        What was found, before and after the healing; None if there is nothing to compare yet.

    Raises:
        ConfigurationError: the stream cannot be reconciled.
        DataError: too much has changed since the last load, or the two cannot be compared.
        HeadwaterError: others by kind, see `connectors.errors`.
    """
    log = log or logging.getLogger("headwater")
    try:
        _check(source, stream, start, end, most_windows)
        lease = Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds, scope=_SCOPE)
        with (
            translated_errors(),
            lease,
            connect(
                destination.warehouse,
                f"reconcile {source.name}.{stream.name}",
                autocommit=True,
                idle_seconds=LEASE_SECONDS,
            ) as connection,
        ):
            reconciling = _Reconciling(
                source, stream, connections, destination, lease, connection, limits or Limits(), run, log
            )
            return reconciling.run(start, end, most_windows, now or datetime.now(UTC), heal=heal)
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def _check(source: Source, stream: Stream, start: datetime | None, end: datetime | None, most_windows: int) -> None:
    if not stream.primary_key:
        raise ConfigurationError(
            "This stream has no primary_key: nothing tells a row that differs from one that is missing.",
            remedy="Give it one, or read its windows again by a backfill with mode `all`.",
        )
    if not isinstance(source, KeySource):
        raise ConfigurationError(
            "This source cannot tell which rows it has now: files that were loaded may be gone from their folder.",
            remedy="`headwater windows` holds raw against the ledger and the landing.",
        )
    if stream.event_time is None and (start is not None or end is not None):
        raise ConfigurationError(
            "This stream has no event_time, so it has no windows.", remedy="Leave out start and end."
        )
    if most_windows < 1:
        raise ConfigurationError(f"{most_windows} windows cannot be compared.", remedy="Give 1 or more.")


@dataclass(frozen=True, slots=True)
class _Reconciling:
    source: Source
    stream: Stream
    connections: Connections
    destination: Destination
    lease: Lease
    connection: psycopg.Connection
    limits: Limits
    run_id: str
    log: Logger

    def run(
        self, start: datetime | None, end: datetime | None, most_windows: int, now: datetime, *, heal: bool
    ) -> Reconciliation | None:
        span = self._due(start, end, most_windows, now, heal=heal)
        if span is None:
            return None
        by_digests = self._digesting is not None
        book = ReconciliationBook(self.connection, self.source.name, self.stream, self.run_id)
        book.begin(span, "digests" if by_digests else "rows")
        try:
            findings = self._compare(span)
            error = None
            if heal and findings.differences:
                error = self._heal(findings)
                findings = _after(findings, self._compare(span))
            findings = self._as_shown(findings)
            book.end(findings, span.windows, error)
        except Exception as failure:
            if not self.connection.closed and not self.connection.broken:
                book.fail(str(failure))
            raise
        found = Reconciliation(book.id, self.source.name, self.stream.name, span, findings, error)
        self.log.info("Compared %s.%s: %s.", self.source.name, self.stream.name, found)
        return found

    def _as_shown(self, findings: Findings) -> Findings:
        """The rows as they may be named: without what the stream masks of their keys."""
        masked = [self._is(Masked, field) for field in self.stream.primary_key]
        if not any(masked):
            return findings
        shown = [
            replace(each, key=tuple(MASK if hides else value for value, hides in zip(each.key, masked, strict=True)))
            for each in findings.differences
        ]
        return replace(findings, differences=shown)

    @property
    def _digesting(self) -> DigestSource | None:
        """The source, if it is to sum up its rows: not where raw has the hash of their key in its place."""
        is_hashed = any(self._is(Hashed, field) for field in self.stream.primary_key)
        return self.source if isinstance(self.source, DigestSource) and not is_hashed else None

    def _is(self, treatment: type[Hashed | Masked], field: str) -> bool:
        return isinstance(of_column(self.stream.privacy, field), treatment)

    def _due(
        self, start: datetime | None, end: datetime | None, most_windows: int, now: datetime, *, heal: bool
    ) -> Span | None:
        """What is compared this time; None if raw has nothing yet that could be. What is to be healed, if there is
        anything, is what differed the last time."""
        types = raw_columns(self.connection, self.source.name, self.stream.name)
        watermark = read_watermark(self.connection, self.source.name, self.stream.name)
        if not types or (self.stream.cursor is not None and watermark.value is None):
            self.log.info("%s.%s was not loaded yet: there is nothing to compare.", self.source.name, self.stream.name)
            return None
        if self.stream.event_time is not None:
            return self._due_windows(start, end, most_windows, now, heal=heal)
        first = self.stream.primary_key[0]
        # Where a range of keys begins is written down, so keys that are masked have none.
        if self._digesting is None or self._is(Masked, first) or not types[first].startswith(_ORDERED):
            return Span()
        return next_keys(self.connection, self.source.name, self.stream, self.limits.rows, again=heal)

    def _due_windows(
        self, start: datetime | None, end: datetime | None, most_windows: int, now: datetime, *, heal: bool
    ) -> Span | None:
        statuses = windows_of(self.source, self.stream, self.destination, start=start, end=end, now=now)
        before = reconciled_at(self.connection, self.source.name, self.stream.name)
        known = windows_that_differ(self.connection, self.source.name, self.stream.name) if heal else set()
        never = datetime.min.replace(tzinfo=UTC)
        candidates = sorted(
            (
                each
                for each in statuses
                # Others see to those that nobody has brought, that are being read, or that cannot be.
                if each.was_read and each.state not in (WindowState.RUNNING, WindowState.FAILED)
            ),
            key=lambda each: (
                each.window.start not in known,
                before.get(each.window.start, never),
                each.window.start,
            ),
        )
        chosen: list[Window] = []
        rows = 0
        for each in candidates[:most_windows]:
            rows += max(each.in_raw, each.rows or 0)
            if chosen and rows > self.limits.rows:
                break
            chosen.append(each.window)
        if not chosen:
            self.log.info("%s.%s has no windows there that were read.", self.source.name, self.stream.name)
            return None
        return Span(tuple(sorted(chosen, key=lambda window: window.start)))

    def _compare(self, span: Span) -> Findings:
        if (source := self._digesting) is not None:
            found = compare_digests(
                source, self.stream, self.connections, self.destination.warehouse, span, self.limits, self.log
            )
        else:
            found = compare_rows(
                self.source,
                self.stream,
                self.connections,
                self.connection,
                span,
                self.limits,
                scope=self.lease.scope,
            )
        return replace(found, differences=[self._judged(each) for each in self._without_forgotten(found.differences)])

    def _without_forgotten(self, differences: Sequence[Difference]) -> list[Difference]:
        """Those that are not of rows which were erased here, and that the source still has."""
        secret = self.destination.forget_secret
        forgotten = forgotten_keys(self.connection, self.source.name, self.stream.name, secret)
        if forgotten is None:
            return list(differences)
        types = raw_columns(self.connection, self.source.name, self.stream.name)
        columns = [column_name(field) for field in self.stream.primary_key]
        known = forgotten.among(self.connection, columns, types, [each.key for each in differences])
        return [each for each in differences if each.key not in known]

    def _judged(self, difference: Difference) -> Difference:
        """Without a cursor nothing tells when a row was changed. That a row is gone is no matter of when, unless the
        next load takes it away."""
        is_certain = self.stream.cursor is not None or (
            difference.kind is Kind.DELETED and self.stream.write is not WriteDisposition.REPLACE
        )
        return replace(difference, is_certain=is_certain)

    def _heal(self, findings: Findings) -> str | None:
        """Bring raw to what the source is, by the loads that do it otherwise; why not, if it could not be."""
        try:
            is_replaced = self.stream.write is WriteDisposition.REPLACE
            to_read = [each for each in findings.differences if is_replaced or each.kind is not Kind.DELETED]
            if to_read and self.stream.event_time is None:
                self._ingest(None, full_refresh=self.stream.cursor is not None)
            elif to_read:
                windows = sorted({each.window for each in to_read if each.window}, key=lambda window: window.start)
                for window in adjacent(windows):
                    self._ingest(window, full_refresh=False)
            marked = [each for each in findings.differences if each.kind is Kind.DELETED or DELETED_AT in each.columns]
            if marked and not is_replaced:
                self._mark_deleted()
        except HeadwaterError as error:
            self.log.error("Not everything could be healed: %s", error)
            return UNSAID(str(error))
        return None

    def _ingest(self, window: Window | None, *, full_refresh: bool) -> None:
        ingest(
            self.source,
            self.stream,
            self.connections,
            self.destination,
            window=window,
            full_refresh=full_refresh,
            run=self.run_id,
            log=self.log,
        )

    def _mark_deleted(self) -> None:
        find_deleted(self.source, self.stream, self.connections, self.destination, run=self.run_id, log=self.log)


def _after(before: Findings, after: Findings) -> Findings:
    """What was found, and of it what was healed; with what a comparison after the healing has found beside."""
    left = {each.key for each in after.differences}
    named = {each.key for each in before.differences}
    differences = [replace(each, is_healed=each.key not in left) for each in before.differences]
    others: Sequence[Difference] = [each for each in after.differences if each.key not in named]
    return replace(
        before,
        differences=[*differences, *others],
        is_at_least=after.is_at_least,
        questions=before.questions + after.questions,
    )
