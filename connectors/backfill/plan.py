"""What a backfill would do: which windows it takes, where their rows come from, and about what that costs.

Nothing is changed by planning. What is not known yet (rows, seconds, requests) is estimated by what loads have needed
so far, or by what the source itself says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

import psycopg

from connectors.connections import Connections
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.ingest import Destination
from connectors.model import EstimatingSource, Source, Stream, Window
from connectors.windows import WindowState, WindowStatus, windows_of

_SECONDS_A_LOAD = 0.5
"""What a load costs beside its rows, in estimates."""
_ROWS_A_SECOND = 20_000
"""How fast rows are taken to be loaded where no load has said yet."""


class Mode(StrEnum):
    """Which windows a backfill takes."""

    MISSING = "missing"
    """Those that are missing, or whose last read failed."""
    FAILED = "failed"
    STALE = "stale"
    ALL = "all"
    """Also those that are loaded; not those that are being read."""

    @property
    def states(self) -> frozenset[WindowState]:
        return {
            Mode.MISSING: frozenset({WindowState.MISSING, WindowState.FAILED}),
            Mode.FAILED: frozenset({WindowState.FAILED}),
            Mode.STALE: frozenset({WindowState.STALE}),
            Mode.ALL: frozenset(WindowState) - {WindowState.RUNNING},
        }[self]


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would do."""

    source: str
    stream: str
    mode: Mode
    window: Window | None
    """From the first window that was looked at to the last; None if there is none."""
    statuses: tuple[WindowStatus, ...]
    """All windows of that span, by their start."""
    rows: int | None
    """Estimated rows of the windows that it takes; None where no window has told yet how many it has."""
    seconds: float | None
    """Estimated time, by one worker."""
    requests: int | None = None
    """Estimated requests to the source, by what its loads have needed so far; None where none are counted."""
    rows_by_window: Mapping[datetime, int] = field(default_factory=dict)
    """Estimated rows, by the window's start."""
    replay: bool = False
    """Whether the source is not asked for any of them."""

    @property
    def chosen(self) -> tuple[WindowStatus, ...]:
        """The windows that it takes."""
        return tuple(each for each in self._of_mode if each.from_landing or not self.replay)

    @property
    def not_landed(self) -> int:
        """How many windows a replay has to leave alone, because the landing has not all of their rows."""
        return len(self._of_mode) - len(self.chosen)

    @property
    def _of_mode(self) -> list[WindowStatus]:
        return [each for each in self.statuses if each.state in self.mode.states]

    @property
    def counts(self) -> Mapping[WindowState, int]:
        """How many windows there are of each state."""
        return Counter(each.state for each in self.statuses)

    @property
    def spans(self) -> list[tuple[Window, int]]:
        """The windows that it takes, adjacent ones in one, and how many those are."""
        spans: list[tuple[Window, int]] = []
        for status in self.chosen:
            if spans and spans[-1][0].end == status.window.start:
                before, count = spans.pop()
                spans.append((Window(before.start, status.window.end), count + 1))
            else:
                spans.append((status.window, 1))
        return spans

    def at_most(self, windows: int | None, *, backward: bool = False) -> BackfillPlan:
        """The same plan for no more than so many windows: the first that it takes, or the last.

        Those that failed before come behind all others, which they would otherwise hold up for ever.
        """
        if windows is None or windows >= len(self.chosen):
            return self
        in_order = sorted(
            self.chosen[::-1] if backward else self.chosen, key=lambda each: each.state is WindowState.FAILED
        )
        kept = {each.window.start for each in in_order[:windows]}
        share = windows / len(self.chosen)
        return replace(
            self,
            statuses=tuple(
                each for each in self.statuses if each.state not in self.mode.states or each.window.start in kept
            ),
            rows=None if self.rows is None else sum(self.rows_by_window.get(start, 0) for start in kept),
            seconds=None if self.seconds is None else self.seconds * share,
            requests=None if self.requests is None else round(self.requests * share),
        )

    def as_json(self) -> dict[str, object]:
        """The plan as JSON values."""
        return {
            "source": self.source,
            "stream": self.stream,
            "mode": self.mode.value,
            "start": self.window.start.isoformat() if self.window else None,
            "end": self.window.end.isoformat() if self.window else None,
            "states": {state.value: count for state, count in self.counts.items()},
            "rows": self.rows,
            "requests": self.requests,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "windows": [
                {
                    "start": status.window.start.isoformat(),
                    "end": status.window.end.isoformat(),
                    "state": status.state.value,
                    "why": status.why,
                    "from": "landing" if status.from_landing else "source",
                    "rows": self.rows_by_window.get(status.window.start),
                    "attempts": status.attempts,
                }
                for status in self.chosen
            ],
        }


def plan_backfill(
    source: Source,
    stream: Stream,
    destination: Destination,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    mode: Mode = Mode.MISSING,
    replay: bool = False,
    now: datetime | None = None,
    connections: Connections | None = None,
) -> BackfillPlan:
    """What a backfill of a stream would do; nothing is changed.

    Args:
        replay: take all rows from the landing, by the present definition; the source is not asked.
        connections: to ask the source how many rows it has, if it can say so at next to no cost and no window has told.

    Raises:
        ConfigurationError: rows without a key are to be replayed by window.
        As `windows_of`, otherwise.
    """
    if replay and not stream.primary_key:
        raise ConfigurationError(
            "Rows without a key cannot be replayed by window: nothing tells which of them raw has.",
            remedy="Replay whole loads: `headwater replay` with --load.",
            source=source.name,
            stream=stream.name,
        )
    statuses = windows_of(source, stream, destination, start=start, end=end, now=now)
    if replay:
        statuses = [replace(each, from_landing=each.landed) for each in statuses]
    chosen = [each for each in statuses if each.state in mode.states and (each.from_landing or not replay)]
    with translated_errors(), connect(destination.warehouse, f"history of {source.name}.{stream.name}") as found:
        usual, speed = _usual_rows(found, source.name, stream.name), _speed(found, source.name, stream.name)
        requests_a_row = _requests_a_row(found, source.name, stream.name)
    if usual is None and chosen and connections is not None:
        usual = _told_by_source(source, stream, statuses, connections)
    estimates = {each.window.start: each.rows or usual for each in chosen}
    rows = sum(each or 0 for each in estimates.values()) if usual is not None or not chosen else None
    seconds = None if rows is None else rows / speed + (_SECONDS_A_LOAD if chosen else 0)
    asked = sum(estimates[each.window.start] or 0 for each in chosen if not each.from_landing)
    return BackfillPlan(
        source.name,
        stream.name,
        mode,
        Window(statuses[0].window.start, statuses[-1].window.end) if statuses else None,
        tuple(statuses),
        rows,
        seconds,
        None if rows is None or requests_a_row is None else ceil(asked * requests_a_row),
        {begin: estimate for begin, estimate in estimates.items() if estimate is not None},
        replay,
    )


def _told_by_source(
    source: Source, stream: Stream, statuses: Sequence[WindowStatus], connections: Connections
) -> int | None:
    """How many rows a window has by what the source says of all of them; None if it cannot tell, or is not there."""
    if not isinstance(source, EstimatingSource):
        return None
    try:
        rows = source.estimated_rows(stream, Window(statuses[0].window.start, statuses[-1].window.end), connections)
    except HeadwaterError:
        return None  # a plan needs no source
    return max(1, round(rows / len(statuses)))


def _usual_rows(connection: psycopg.Connection, source: str, stream: str) -> int | None:
    """How many rows a window of the stream has, of those that have any; None if none is known."""
    row = connection.execute(
        "select percentile_disc(0.5) within group (order by rows) from ops.windows"
        " where source = %s and stream = %s and rows > 0",
        [source, stream],
    ).fetchone()
    return row[0] if row else None


def _requests_a_row(connection: psycopg.Connection, source: str, stream: str) -> float | None:
    """How many requests a row takes, by the largest loads: less than one where pages have many."""
    row = connection.execute(
        """
        select sum(requests)::float / sum(rows_extracted) from (
            select requests, rows_extracted from ops.loads
            where source = %s and stream = %s and status = 'loaded' and kind = 'rows' and requests > 0
              and rows_extracted > 0
            order by rows_extracted desc limit 10
        ) l
        """,
        [source, stream],
    ).fetchone()
    return row[0] if row else None


def _speed(connection: psycopg.Connection, source: str, stream: str) -> float:
    """Rows a second, by the latest loads."""
    row = connection.execute(
        """
        select percentile_cont(0.5) within group (order by rows_extracted / seconds) from (
            select rows_extracted, greatest(extract(epoch from loaded_at - started_at), 0.1) as seconds
            from ops.loads where source = %s and stream = %s and status = 'loaded' and kind = 'rows' and attempt = 1
              and rows_extracted > 0
            order by rows_extracted desc limit 10
        ) l
        """,
        [source, stream],
    ).fetchone()
    return float(row[0]) if row and row[0] else _ROWS_A_SECOND


def estimated(seconds: float) -> str:
    """A time as people say it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(timedelta(seconds=seconds).total_seconds() / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
