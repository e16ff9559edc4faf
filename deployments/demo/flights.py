"""The flights as the airports' system knows them at any instant.

A flight is announced 24 hours before its scheduled departure and settled some time after it, when it landed, was
diverted or was cancelled; each of the two is an event with an instant, and the record served is that of the latest
event. Events are ordered by (instant, id), which makes paging by that order stable: while time passes, a flight only
ever moves to a place after everything that could be read before.
"""

from __future__ import annotations

import csv
import heapq
import io
import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from deployments.demo import clock, dataset

_ID_BITS = 20
_MINUTE = 60
_HOUR = 60 * _MINUTE
_ANNOUNCED_BEFORE = 24 * _HOUR
_UNKNOWN_UNTIL_SETTLED = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
# Positions in a row of the file.
_NUMBERS_THAT_MAY_BE_MISSING = (3, 5, 6, 8, 14)
_TAIL_NUMBER = 11
_RECORD = (
    '{"id":%d,"year":%s,"month":%s,"day":%s,"dep_time":%s,"sched_dep_time":%s,"dep_delay":%s,"arr_time":%s,'
    '"sched_arr_time":%s,"arr_delay":%s,"carrier":"%s","flight":%s,"tailnum":%s,"origin":"%s","dest":"%s",'
    '"air_time":%s,"distance":%s,"hour":%s,"minute":%s,"time_hour":"%s","status":"%s","updated_at":"%s"}'
)


@dataclass(frozen=True, slots=True)
class Window:
    """Scheduled departures, half open, in seconds since 1970."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order, as JSON, and the event the next page starts after, or None if this is the last one."""

    records: list[bytes]
    last: int | None


def event(at: int, flight: int) -> int:
    """An event as one number that sorts by instant, then by id. `event(at, 0)` precedes all events of that instant."""
    return at << _ID_BITS | flight


class Flights:
    """All flights, encoded once."""

    def __init__(self, csv_text: str) -> None:
        """Take the text of the data set's file of flights."""
        by_settling = sorted(_settled(csv_text))
        # In the order of settling, each flight at the same index of all three.
        self._settled = array("q", (key for key, _, _ in by_settling))
        self._scheduled_at = array("q", (scheduled_at for _, scheduled_at, _ in by_settling))
        self._records = [record for _, _, record in by_settling]
        # In the order of announcement, with the index of the flight above.
        announced = sorted(
            (event(scheduled_at - _ANNOUNCED_BEFORE, _flight(key)), index)
            for index, (key, scheduled_at) in enumerate(zip(self._settled, self._scheduled_at, strict=True))
        )
        self._announced = array("q", (key for key, _ in announced))
        self._announced_index = array("q", (index for _, index in announced))
        self._longest_settling = max(
            _at(key) - scheduled_at for key, scheduled_at in zip(self._settled, self._scheduled_at, strict=True)
        )

    def __len__(self) -> int:
        return len(self._records)

    def page(self, *, now: int, after: int, limit: int, window: Window | None = None) -> Page:
        """The first `limit` flights whose latest event follows `after`, as they are at `now`."""
        settled = self._settled_events(now, after, limit, window)
        announced = self._announced_events(now, after, window)
        events = list(islice(heapq.merge(settled, announced), limit + 1))
        has_more = len(events) > limit
        del events[limit:]
        records = [
            self._records[index] if key == self._settled[index] else _as_announced(self._records[index], key)
            for key, index in events
        ]
        return Page(records, events[-1][0] if has_more else None)

    def _settled_events(self, now: int, after: int, limit: int, window: Window | None) -> Iterator[tuple[int, int]]:
        """Events and flights settled by now: a range of the index, as nothing happens to a flight after that."""
        start = bisect_right(self._settled, after)
        end = bisect_left(self._settled, event(now + 1, 0))
        if window is None:
            end = min(end, start + limit + 1)
            return zip(self._settled[start:end], range(start, end), strict=True)
        start = max(start, bisect_left(self._settled, event(window.start, 0)))
        end = min(end, bisect_left(self._settled, event(window.end + self._longest_settling, 0)))
        return (
            (self._settled[index], index)
            for index in range(start, end)
            if window.start <= self._scheduled_at[index] < window.end
        )

    def _announced_events(self, now: int, after: int, window: Window | None) -> Iterator[tuple[int, int]]:
        """Events and flights announced and not yet settled: some hundred, all announced in the last days."""
        earliest = event(now - _ANNOUNCED_BEFORE - self._longest_settling, 0)
        start = bisect_left(self._announced, max(earliest, after + 1))
        end = bisect_left(self._announced, event(now + 1, 0))
        for position in range(start, end):
            index = self._announced_index[position]
            is_wanted = window is None or window.start <= self._scheduled_at[index] < window.end
            if is_wanted and _at(self._settled[index]) > now:
                yield self._announced[position], index


def _settled(csv_text: str) -> Iterator[tuple[int, int, bytes]]:
    """Every flight's settling event, its scheduled departure, and its final record."""
    seconds: dict[str, int] = {}
    texts: dict[int, str] = {}
    reader = csv.reader(io.StringIO(csv_text))
    next(reader)
    for number, row in enumerate(reader, start=1):
        hour = row[18]
        if hour not in seconds:
            seconds[hour] = int(datetime.fromisoformat(hour).timestamp())
        scheduled_at = seconds[hour] + int(row[17]) * _MINUTE
        status, settled_at = _outcome(scheduled_at, dep_delay=row[5], arr_delay=row[8], air_time=row[14])
        if settled_at not in texts:
            texts[settled_at] = _iso(settled_at)
        # Nothing needs escaping: the values are whole numbers, codes of letters and digits, and instants.
        for column in _NUMBERS_THAT_MAY_BE_MISSING:
            if row[column] == dataset.NOT_KNOWN:
                row[column] = "null"
        row[_TAIL_NUMBER] = "null" if row[_TAIL_NUMBER] == dataset.NOT_KNOWN else f'"{row[_TAIL_NUMBER]}"'
        record = _RECORD % (number, *row, status, texts[settled_at])
        yield event(settled_at, number), scheduled_at, record.encode()


def _outcome(scheduled_at: int, *, dep_delay: str, arr_delay: str, air_time: str) -> tuple[str, int]:
    """How the flight ended, and when that was known: half an hour after landing, 6 h for a diversion to be settled."""
    if dep_delay == dataset.NOT_KNOWN:
        return "cancelled", scheduled_at + _HOUR
    departed_at = scheduled_at + max(int(dep_delay), 0) * _MINUTE
    if arr_delay == dataset.NOT_KNOWN:
        return "diverted", departed_at + 6 * _HOUR
    return "landed", departed_at + (int(air_time) + 30) * _MINUTE


def _as_announced(final_record: bytes, announcement: int) -> bytes:
    """The record of a flight that has not been settled yet."""
    record = json.loads(final_record)
    record.update(dict.fromkeys(_UNKNOWN_UNTIL_SETTLED), status="scheduled", updated_at=_iso(_at(announcement)))
    return json.dumps(record, separators=(",", ":")).encode()


def _at(key: int) -> int:
    return key >> _ID_BITS


def _flight(key: int) -> int:
    return key & (1 << _ID_BITS) - 1


def _iso(seconds: int) -> str:
    return clock.iso(datetime.fromtimestamp(seconds, UTC))
