"""What the ledger knows of a stream's windows: how many rows raw has of each, and which loads brought or changed them.

Written in the transaction of the rows. A load that is not of a window adds up what it did; one of a window counts what
raw has afterwards, since it has read all there is. So rows that are lost in some other way show, until they are
brought back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.model import Stream, Window, Windows, WindowSize

_INSTANTS = {
    "timestamp with time zone": "{}",
    "timestamp without time zone": "({} at time zone 'UTC')",
    "date": "({}::timestamp at time zone 'UTC')",
}
"""A value of event time as an instant, by its column's type: what has no time zone is UTC, as in a window's bounds."""


_STEPS = {WindowSize.HOUR: "1 hour", WindowSize.DAY: "1 day", WindowSize.WEEK: "7 days"}
_A_MONDAY = "2001-01-01 00:00:00Z"
_EARLIEST, _LATEST = "0002-01-01 00:00:00Z", "9999-01-01 00:00:00Z"
"""Between which there are windows: Python's calendar is no longer, and a window has an end."""


@dataclass(frozen=True, slots=True)
class WindowChange:
    """What a load did to the rows of one window."""

    start: datetime
    inserted: int
    updated: int
    moved: int = 0
    """Rows that were there and came from another window, less those that went to another."""


class WindowColumn:
    """The column that a stream's windows are cut by, in its raw table."""

    def __init__(self, name: str, instant: str, windows: Windows) -> None:
        self.name = name
        self._instant = instant
        self._windows = windows

    @classmethod
    def of(cls, stream: Stream, types: Mapping[str, str]) -> WindowColumn | None:
        """The column, if the stream has one that holds instants.

        Args:
            types: raw's types.
        """
        if stream.event_time is None:
            return None
        name = column_name(stream.event_time)
        instant = _INSTANTS.get(_bare(types.get(name, "")))
        return cls(name, instant, stream.windows) if instant else None

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.name)

    def instant(self, table: str | None = None) -> sql.Composed:
        """The value as an instant."""
        name = sql.Identifier(table, self.name) if table else self.identifier
        return sql.SQL(self._instant).format(name)

    def within(self, window: Window) -> sql.Composed:
        """The condition that a row is of a window, so that an index of the column serves it."""
        return sql.SQL("{0} >= {1} and {0} < {2}").format(
            self.identifier, self._bound(window.start), self._bound(window.end)
        )

    def _bound(self, instant: datetime) -> sql.Composed:
        """An instant as the column has it. Of a date the next one that is not before it."""
        form = {_INSTANTS["date"]: "({} at time zone 'UTC' + interval '1 day' - interval '1 microsecond')::date"}.get(
            self._instant, "{}" if self._instant == "{}" else "({} at time zone 'UTC')"
        )
        return sql.SQL(form).format(sql.SQL("{}::timestamptz").format(sql.Literal(instant)))

    def has_window(self, table: str | None = None) -> sql.Composed:
        """The condition that a row has an event time of our calendar, and so a window. Infinity is none, nor is the
        year 20240."""
        return sql.SQL("({0} >= {1}::timestamptz and {0} < {2}::timestamptz)").format(
            self.instant(table), sql.Literal(_EARLIEST), sql.Literal(_LATEST)
        )

    def start(self, table: str | None = None) -> sql.Composed:
        """Where the window of a row begins; null where it has none."""
        instant, has_window = self.instant(table), self.has_window(table)
        size, zone = self._windows.size, self._windows.time_zone
        if zone == "UTC" and size in _STEPS:  # several times as fast
            step = sql.Literal(_STEPS[size])
            return sql.SQL("(case when {} then date_bin({}::interval, {}, {}::timestamptz) end)").format(
                has_window, step, instant, sql.Literal(_A_MONDAY)
            )
        start = sql.SQL("date_trunc({}, {}, {})").format(sql.Literal(size.value), instant, sql.Literal(zone))
        if size is not WindowSize.HOUR and (shifts := _midnights_twice(zone)):
            # Where the clocks go back to midnight, the day begins at the first of the two; PostgreSQL means the second.
            first = sql.SQL(" ").join(
                sql.SQL("when ({0} - {1}) at time zone {2} = {0} at time zone {2} then {0} - {1}").format(
                    start, sql.Literal(shift), sql.Literal(zone)
                )
                for shift in shifts
            )
            start = sql.SQL("case {} else {} end").format(first, start)
        return sql.SQL("(case when {} then {} end)").format(has_window, start)


@lru_cache
def _midnights_twice(zone: str) -> tuple[timedelta, ...]:
    """By how much clocks go back in a time zone on days that have midnight twice, since 1970; empty where none has."""
    days = (datetime(1970, 1, 2, tzinfo=UTC) + timedelta(days=day) for day in range(68 * 365))
    found: set[timedelta] = set()
    for day in days:
        first, second = (day.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() or timedelta() for fold in (0, 1))
        if first > second:
            found.add(first - second)
    return tuple(sorted(found))


def _bare(kind: str) -> str:
    """A type without its precision: `timestamp(3) with time zone` is one of those with time zone."""
    before, bracket, after = kind.partition("(")
    return before + after.partition(")")[2] if bracket else kind


def counted(
    connection: psycopg.Connection, raw: sql.Composable, column: WindowColumn, window: Window | None = None
) -> dict[datetime, int]:
    """How many rows raw has by window, by where the window begins; of all, or of those with an instant in a window."""
    bounds: sql.Composable = sql.SQL("true")
    if window is not None:
        bounds = column.within(window)
    return dict(
        connection.execute(
            sql.SQL(
                "select w, count(*) from (select {} as w from {} where {}) r where w is not null group by w"
            ).format(column.start(), raw, bounds)
        ).fetchall()
    )


@dataclass(frozen=True, slots=True)
class UnbuiltWindow:
    """A window whose rows changed after the marts were last built with it, or that they were never built with."""

    source: str
    stream: str
    start: datetime
    changed_by: UUID
    """The load that changed it last."""


def unbuilt_windows(warehouse: URL) -> list[UnbuiltWindow]:
    """The windows that the next build brings into the marts.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(warehouse, "windows to build") as connection:
        rows = connection.execute(
            "select source, stream, window_start, changed_by from ops.windows"
            " where (is_stale or built_by is null) and changed_by is not null"
        ).fetchall()
    return [UnbuiltWindow(*row) for row in rows]


def mark_built(publisher: URL, generation: int, windows: Sequence[UnbuiltWindow]) -> None:
    """Note that a generation was built with windows. One that was changed again since stays to be built.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(publisher, "windows that were built") as connection:
        connection.execute(
            """
            update ops.windows w set built_by = %s, is_stale = false
            from unnest(%s::text[], %s::text[], %s::timestamptz[], %s::uuid[]) as b (source, stream, start, changed_by)
            where w.source = b.source and w.stream = b.stream and w.window_start = b.start
              and w.changed_by = b.changed_by
            """,
            [
                generation,
                [window.source for window in windows],
                [window.stream for window in windows],
                [window.start for window in windows],
                [window.changed_by for window in windows],
            ],
        )


class WindowBook:
    """Writes down, in a commit, what a load did to the windows of its stream."""

    def __init__(
        self, connection: psycopg.Connection, source: str, stream: Stream, load_id: UUID | None, when: datetime
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._windows = stream.windows
        self._of_stream = {"source": source, "stream": stream.name}
        self._of_load = {**self._of_stream, "load_id": load_id, "when": when}

    def note_changes(self, changes: Iterable[WindowChange]) -> None:
        """Add up what a load did, window by window."""
        found = list(changes)
        starts = [change.start for change in found]
        self._connection.execute(
            """
            insert into ops.windows as w (source, stream, window_start, window_end, rows, changed_by, changed_at)
            select %(source)s, %(stream)s, c.start, c.until, c.rows, %(load_id)s, %(when)s
            from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(rows)s::bigint[]) c (start, until, rows)
            on conflict (source, stream, window_start) do update
            set rows = w.rows + excluded.rows, window_end = excluded.window_end,
                changed_by = excluded.changed_by, changed_at = excluded.changed_at,
                is_stale = w.built_by is not null
            """,
            {
                **self._of_load,
                "starts": starts,
                "ends": [self._windows.next(start) for start in starts],
                "rows": [change.inserted + change.moved for change in found],
            },
        )
        self._connection.execute(
            """
            insert into ops.window_changes (source, stream, window_start, load_id, rows_inserted, rows_updated)
            select %(source)s, %(stream)s, c.start, %(load_id)s, c.inserted, c.updated
            from unnest(%(starts)s::timestamptz[], %(inserted)s::bigint[], %(updated)s::bigint[])
                c (start, inserted, updated)
            """,
            {
                **self._of_load,
                "starts": starts,
                "inserted": [change.inserted for change in found],
                "updated": [change.updated for change in found],
            },
        )

    def note_read(self, window: Window, rows: Mapping[datetime, int]) -> None:
        """That all of a window was read, and what raw has of the stream's windows that lie in it as a whole."""
        self._set(
            "insert into ops.windows as w (source, stream, window_start, window_end, rows, read_by, read_at)"
            " select %(source)s, %(stream)s, c.start, c.until, c.rows, %(load_id)s, %(when)s"
            " from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(rows)s::bigint[])"
            " c (start, until, rows) on conflict (source, stream, window_start) do update set rows = excluded.rows,"
            " window_end = excluded.window_end, read_by = excluded.read_by, read_at = excluded.read_at",
            [each for each in self._windows.within(window.start, window.end) if window.covers(each)],
            rows,
        )
        # What was left behind of a part of it has nothing more to bring.
        self._connection.execute(
            """
            update ops.loads l set status = 'superseded', error = %(why)s
            where l.source = %(source)s and l.stream = %(stream)s and l.kind = 'rows'
              and l.window_start >= %(start)s and l.window_end <= %(end)s
              and l.status in ('extracting', 'landed', 'failed') and l.load_id <> %(load_id)s
              and not exists (
                  select from ops.streams s
                  join pg_stat_activity a on a.pid = s.holder_pid and a.backend_start = s.holder_session_start
                  where s.source = l.source and s.stream = l.stream and s.scope = l.window_start || ' ' || l.window_end
                    and s.lease_until > now() and s.holder is not null
                    and (l.window_start, l.window_end) <> (%(start)s, %(end)s)
              )
            """,
            {
                **self._of_load,
                "start": window.start,
                "end": window.end,
                "why": f"Load {self._of_load['load_id']} has read all of its window since.",
            },
        )

    def recount(self, rows: Mapping[datetime, int], windows: Iterable[datetime] | None = None) -> None:
        """Take what raw has for what it should have: after its rows were brought back from the landing.

        Args:
            rows: by where the window begins.
            windows: only these; without it all that the ledger knows.
        """
        if windows is None:
            known = self._connection.execute(
                "select window_start from ops.windows where source = %(source)s and stream = %(stream)s",
                self._of_stream,
            )
            windows = {*(start for (start,) in known), *rows}
        self._set(
            "insert into ops.windows as w (source, stream, window_start, window_end, rows)"
            " select %(source)s, %(stream)s, c.start, c.until, c.rows"
            " from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(rows)s::bigint[])"
            " c (start, until, rows) on conflict (source, stream, window_start) do update set rows = excluded.rows",
            [Window(start, self._windows.next(start)) for start in windows],
            rows,
        )

    def _set(self, statement: str, windows: Iterable[Window], rows: Mapping[datetime, int]) -> None:
        found = list(windows)
        self._connection.execute(
            statement.encode(),
            {
                **self._of_load,
                "starts": [each.start for each in found],
                "ends": [each.end for each in found],
                "rows": [rows.get(each.start, 0) for each in found],
            },
        )
