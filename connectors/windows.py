"""Which windows a stream should have, and how each of them is.

Nothing is taken for granted: that a window is loaded is what the ledger says, what raw has and what the landing has,
held against each other. A window counts as loaded if a read of just that span has brought it, or if the stream was once
read from its beginning and has been followed since for longer than the window lasted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from connectors.destinations.landing import Landing
from connectors.destinations.manifest import MANIFEST
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.raw_table import raw_columns
from connectors.destinations.warehouse.windows import WindowColumn, counted
from connectors.errors import HeadwaterError, WindowError
from connectors.ingest import Destination
from connectors.model import Source, Stream, Window


class WindowState(StrEnum):
    """How a window is."""

    MISSING = "missing"
    """It was never read, or raw or the landing has lost something of it."""
    RUNNING = "running"
    """It is being read."""
    LOADED = "loaded"
    FAILED = "failed"
    """The last read of it failed, or was killed."""
    STALE = "stale"
    """Rows of it changed after the marts were last built with it."""


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """One window, and how it is."""

    window: Window
    state: WindowState
    why: str = ""
    """What is wrong with it."""
    rows: int | None = None
    """How many rows raw should have of it; None if nothing is known of it."""
    in_raw: int = 0
    """How many it has."""
    load_id: UUID | None = None
    """The load that read or changed it last."""
    at: datetime | None = None
    """When that was."""
    attempts: int = 0
    """How many loads have been to read it, or a span that it is in."""
    landed: tuple[UUID, ...] = ()
    """The loads that bring its rows from the landing, in their order; empty where the landing has not all of them."""
    from_landing: tuple[UUID, ...] = ()
    """Those, if a backfill takes its rows from there; empty where it asks the source."""
    was_read: bool = False
    """Whether loads have once brought all of it, whatever has become of it since."""


def windows_of(
    source: Source,
    stream: Stream,
    destination: Destination,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    now: datetime | None = None,
) -> list[WindowStatus]:
    """How each window of a stream is, from one instant to another; without them, from its first window to its last.

    Only windows that are over are looked at.

    Raises:
        WindowError: the stream has no windows, its event time holds no instants, or the end does not come after the
            start.
        HeadwaterError: see `connectors.ingest.ingest`.
    """
    try:
        with translated_errors(), connect(destination.warehouse, f"windows of {source.name}.{stream.name}") as found:
            found.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return _Survey(found, source, stream, destination.landing, now or datetime.now(UTC)).statuses(start, end)
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def ledger_windows(
    connection: psycopg.Connection, source: Source, stream: Stream, *, days: int, now: datetime | None = None
) -> list[WindowStatus]:
    """How each window of a stream's last days is, by the ledger alone: neither raw nor the landing is looked at, so a
    row that was lost there does not show. Cheap, and any role will do that may read the ledger.

    Args:
        days: before the end of the last window that is over.

    Raises:
        WindowError: the stream has no windows.
    """
    now = now or datetime.now(UTC)
    survey = _Survey(connection, source, stream, None, now)
    if (begin := survey.begin) is None:
        return []
    return survey.statuses(max(begin, stream.windows.end_by(now) - timedelta(days=days)), None)


@dataclass(frozen=True, slots=True)
class _Known:
    """A row of `ops.windows`."""

    window_start: datetime
    window_end: datetime
    rows: int
    load_id: UUID | None
    at: datetime | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """A load of a window."""

    load_id: UUID
    window_start: datetime
    window_end: datetime
    status: str
    manifest_key: str | None
    error: str | None
    started_at: datetime
    raw_loaded_at: datetime | None
    is_alive: bool


@dataclass(frozen=True, slots=True)
class _Change:
    """A load that brought rows of a window."""

    window_start: datetime
    load_id: UUID
    manifest_key: str | None
    loaded_at: datetime


def _bringing(changes: Sequence[_Change], whole: _Read | None, landed: frozenset[str]) -> tuple[UUID, ...]:
    """The loads that bring a window's rows from the landing.

    Args:
        changes: those that have brought some, in their order.
        whole: the latest that has read all of it and is in the landing. What is before it may have been lost.
    """
    if all(change.manifest_key in landed for change in changes) or whole is None or whole.raw_loaded_at is None:
        return tuple(change.load_id for change in changes)
    later = (change.load_id for change in changes if change.loaded_at > whole.raw_loaded_at)
    return (whole.load_id, *later)


def _covering(reads: Iterable[_Read], grid: Sequence[Window]) -> dict[datetime, list[_Read]]:
    """The reads of all of each window, by where it begins. The windows follow each other without a gap."""
    starts = [window.start for window in grid]
    found: dict[datetime, list[_Read]] = {}
    for read in reads:
        place = bisect_left(starts, read.window_start)
        while place < len(grid) and grid[place].end <= read.window_end:
            found.setdefault(starts[place], []).append(read)
            place += 1
    return found


class _Survey:
    """One look at the ledger, raw and the landing; without a landing, at the ledger alone."""

    def __init__(
        self, connection: psycopg.Connection, source: Source, stream: Stream, landing: Landing | None, now: datetime
    ) -> None:
        if stream.event_time is None:
            raise WindowError(
                "This stream has no event time, so it has no windows.",
                remedy="Give it an event_time in its definition, if its rows have one.",
            )
        self._connection = connection
        self._stream = stream
        self._names = {"source": source.name, "stream": stream.name}
        self._raw = sql.Identifier(f"raw_{source.name}", stream.name)
        self._landing = landing
        self._now = now
        self._column: WindowColumn | None = None
        if landing is None:
            return
        columns = raw_columns(connection, source.name, stream.name)
        self._column = WindowColumn.of(stream, columns)
        if columns and self._column is None:
            raise WindowError(
                f"`{stream.event_time}` holds no instants in raw, so its rows cannot be told apart by window.",
                remedy="Give it a type in the stream's columns: timestamptz, timestamp or date.",
            )

    @property
    def begin(self) -> datetime | None:
        """Where the first window begins, as far as anybody knows."""
        return self._stream.windows.begin or self._earliest()

    def statuses(self, start: datetime | None, end: datetime | None) -> list[WindowStatus]:
        windows = self._stream.windows
        if start is not None and end is not None:
            Window(start, end)  # or it says why that is none
        start = start or self.begin
        over = windows.end_by(self._now)
        end = over if end is None else min(end, over)
        if start is None or start >= end:
            return []
        grid = list(windows.within(start, end))
        grid = [window for window in grid if window.end <= over]
        if not grid:
            return []
        span = Window(grid[0].start, grid[-1].end)
        known = {each.window_start: each for each in self._known(span)}
        reads = self._reads(span)
        changes = self._changes(span)
        followed = self._followed_until()
        if self._landing is None:
            in_raw = {start: each.rows for start, each in known.items()}
        else:
            in_raw = {} if self._column is None else counted(self._connection, self._raw, self._column, span)
        landed = self._landed([*(read.manifest_key for read in reads), *(change.manifest_key for change in changes)])
        by_window: dict[datetime, list[_Change]] = {}
        for change in changes:
            by_window.setdefault(change.window_start, []).append(change)
        covering = _covering(reads, grid)
        return [
            self._status(
                window,
                known.get(window.start),
                covering.get(window.start, []),
                by_window.get(window.start, []),
                in_raw.get(window.start, 0),
                landed,
                is_followed=followed is not None and window.end <= followed,
            )
            for window in grid
        ]

    def _status(
        self,
        window: Window,
        known: _Known | None,
        reads: Sequence[_Read],
        changes: Sequence[_Change],
        in_raw: int,
        landed: frozenset[str],
        *,
        is_followed: bool,
    ) -> WindowStatus:
        loaded = max((read.raw_loaded_at for read in reads if read.raw_loaded_at is not None), default=None)
        whole = max(
            (
                read
                for read in reads
                if read.raw_loaded_at is not None and (read.manifest_key is None or read.manifest_key in landed)
            ),
            key=lambda read: read.raw_loaded_at or read.started_at,
            default=None,
        )
        kept_since = whole.raw_loaded_at if whole is not None else None
        lost = [
            change
            for change in changes
            if change.manifest_key not in landed and (kept_since is None or change.loaded_at >= kept_since)
        ]
        tried = max(
            (read for read in reads if read.status in ("extracting", "landed", "failed")),
            key=lambda read: read.started_at,
            default=None,
        )
        rows = known.rows if known is not None and known.window_end == window.end else None
        bringing = () if lost or not self._stream.primary_key else _bringing(changes, whole, landed)
        from_landing: tuple[UUID, ...] = ()
        if tried is not None and tried.is_alive:
            state, why = WindowState.RUNNING, ""
        elif tried is not None and (loaded is None or tried.started_at > loaded):
            state, why = WindowState.FAILED, tried.error or "its run was killed"
        elif loaded is None and not is_followed:
            state, why = WindowState.MISSING, "never read"
        elif lost:
            state = WindowState.MISSING
            why = f"the landing has lost load {', '.join(str(change.load_id) for change in lost)}"
        elif rows is not None and in_raw < rows:
            state, why = WindowState.MISSING, f"raw has {in_raw:,} of {rows:,} rows"
            from_landing = bringing
        elif known is not None and known.is_stale:
            state, why = WindowState.STALE, "its rows changed after it was built"
        else:
            state, why = WindowState.LOADED, ""
        return WindowStatus(
            window,
            state,
            why,
            rows,
            in_raw,
            known.load_id if known else None,
            known.at if known else None,
            len(reads),
            bringing,
            from_landing,
            loaded is not None or is_followed,
        )

    def _earliest(self) -> datetime | None:
        """Where the stream's rows begin, as far as anybody knows."""
        row = self._connection.execute(
            "select min(window_start) from ops.windows where source = %(source)s and stream = %(stream)s", self._names
        ).fetchone()
        return row[0] if row else None

    def _known(self, span: Window) -> list[_Known]:
        with self._connection.cursor(row_factory=class_row(_Known)) as cursor:
            return cursor.execute(
                """
                select window_start, window_end, rows, is_stale,
                       case when read_at is null or changed_at > read_at then changed_by else read_by end as load_id,
                       greatest(changed_at, read_at) as at
                from ops.windows
                where source = %(source)s and stream = %(stream)s
                  and window_start >= %(start)s and window_start < %(end)s
                """,
                {**self._names, "start": span.start, "end": span.end},
            ).fetchall()

    def _reads(self, span: Window) -> list[_Read]:
        with self._connection.cursor(row_factory=class_row(_Read)) as cursor:
            return cursor.execute(
                """
                select l.load_id, l.window_start, l.window_end, l.status, l.manifest_key, l.error, l.started_at,
                       l.raw_loaded_at, l.status in ('extracting', 'landed') and exists (
                           select from ops.streams s
                           left join pg_stat_activity a
                             on a.pid = s.holder_pid and a.backend_start = s.holder_session_start
                           where s.source = l.source and s.stream = l.stream and s.holder is not null
                             and s.scope = l.window_start || ' ' || l.window_end and s.lease_until > clock_timestamp()
                             and (a.pid is not null or %(by_lease)s)
                       ) as is_alive
                from ops.loads l
                where l.source = %(source)s and l.stream = %(stream)s and l.kind = 'rows'
                  and l.window_start < %(end)s and l.window_end > %(start)s and l.status <> 'superseded'
                """,
                # Sessions of other roles cannot be told apart by all who may read the ledger.
                {**self._names, "start": span.start, "end": span.end, "by_lease": self._landing is None},
            ).fetchall()

    def _changes(self, span: Window) -> list[_Change]:
        with self._connection.cursor(row_factory=class_row(_Change)) as cursor:
            return cursor.execute(
                """
                select c.window_start, l.load_id, l.manifest_key, l.raw_loaded_at as loaded_at
                from ops.window_changes c join ops.loads l using (load_id)
                where c.source = %(source)s and c.stream = %(stream)s and l.kind = 'rows'
                  and c.window_start >= %(start)s and c.window_start < %(end)s
                order by l.raw_loaded_at
                """,
                {**self._names, "start": span.start, "end": span.end},
            ).fetchall()

    def _followed_until(self) -> datetime | None:
        """Until when all changes are in raw, of a stream that was once read from its beginning; None for others."""
        if self._stream.cursor is not None and self._stream.cursor.initial is not None:
            return None
        row = self._connection.execute(
            """
            select max(started_at) from ops.loads l
            where source = %(source)s and stream = %(stream)s and kind = 'rows' and status = 'loaded'
              and window_start is null and exists (
                  select from ops.loads f
                  where f.source = l.source and f.stream = l.stream and f.kind = 'rows' and f.status = 'loaded'
                    and f.window_start is null and f.cursor_from is null and f.started_at <= l.started_at
              )
            """,
            self._names,
        ).fetchone()
        return row[0] if row else None

    def _landed(self, keys: Iterable[str | None]) -> frozenset[str]:
        """Those manifests that the landing has."""
        wanted = {key for key in keys if key is not None}
        if not wanted or self._landing is None:
            return frozenset(wanted)
        stored = self._landing.stored(self._names["source"], self._names["stream"])
        return frozenset(each.key for each in stored if each.key.endswith(f"/{MANIFEST}")) & wanted
