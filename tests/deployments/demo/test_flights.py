"""The paging of the flights, checked against a model that looks at every flight on its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from deployments.demo import dataset
from deployments.demo.flights import Flights, Window

HOUR = 3600
BEGINNING = -(2**60)
# The first two days and some, hour by hour, from before the first announcement until after the last settling.
FIRST_HOUR = int(datetime(2012, 12, 31, 8, tzinfo=UTC).timestamp())
HOURS = 110
instants = st.integers(FIRST_HOUR, FIRST_HOUR + HOURS * HOUR)
limits = st.integers(7, 3000)


@dataclass(frozen=True, slots=True)
class Truth:
    """One flight as the file has it, its times in seconds since 1970."""

    number: int
    scheduled_at: int
    settled_at: int
    status: str
    row: dict[str, str]

    def version_at(self, now: int) -> tuple[int, str] | None:
        """When the flight changed last, and to what; None while nobody knows of it."""
        if self.settled_at <= now:
            return self.settled_at, self.status
        announced_at = self.scheduled_at - 24 * HOUR
        return (announced_at, "scheduled") if announced_at <= now else None


@cache
def first_days() -> str:
    return "".join(dataset.text("flights").splitlines(keepends=True)[:2000])


@cache
def flights() -> Flights:
    return Flights(first_days())


@cache
def truths() -> list[Truth]:
    return [_truth(number, row) for number, row in enumerate(csv.DictReader(io.StringIO(first_days())), start=1)]


def _truth(number: int, row: dict[str, str]) -> Truth:
    scheduled_at = int(datetime.fromisoformat(row["time_hour"]).timestamp()) + int(row["minute"]) * 60
    if row["dep_time"] == "NA":
        return Truth(number, scheduled_at, scheduled_at + HOUR, "cancelled", row)
    departed_at = scheduled_at + max(int(row["dep_delay"]), 0) * 60
    if row["arr_delay"] == "NA":
        return Truth(number, scheduled_at, departed_at + 6 * HOUR, "diverted", row)
    return Truth(number, scheduled_at, departed_at + (int(row["air_time"]) + 30) * 60, "landed", row)


def pages(
    now: Iterator[int], limit: int, *, after: int = BEGINNING, window: Window | None = None
) -> Iterator[tuple[int, list[dict[str, object]]]]:
    """All pages, one after the other, each at the instant that comes next."""
    last: int | None = after
    while last is not None:
        instant = next(now)
        page = flights().page(now=instant, after=last, limit=limit, window=window)
        assert len(page.records) == limit if page.last is not None else len(page.records) <= limit
        yield instant, [json.loads(record) for record in page.records]
        last = page.last


def standing_still(now: int) -> Iterator[int]:
    while True:
        yield now


def versions(records: list[dict[str, object]]) -> list[tuple[str, int, str]]:
    return [(str(record["updated_at"]), int(str(record["id"])), str(record["status"])) for record in records]


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def expected_at(now: int, window: Window | None = None) -> list[tuple[str, int, str]]:
    found = []
    for truth in truths():
        version = truth.version_at(now)
        if version is not None and (window is None or window.start <= truth.scheduled_at < window.end):
            found.append((iso(version[0]), truth.number, version[1]))
    return sorted(found)


@given(now=instants, limit=limits)
def test_at_a_fixed_instant_every_visible_flight_comes_exactly_once_in_order(now: int, limit: int) -> None:
    seen = [version for _, page in pages(standing_still(now), limit) for version in versions(page)]
    assert seen == expected_at(now)


@given(now=instants, limit=limits, start=instants, length=st.integers(0, 48 * HOUR))
def test_a_window_holds_the_flights_scheduled_in_it_and_no_others(
    now: int, limit: int, start: int, length: int
) -> None:
    window = Window(start, start + length)
    seen = [version for _, page in pages(standing_still(now), limit, window=window) for version in versions(page)]
    assert seen == expected_at(now, window)


@given(
    start=instants,
    steps=st.lists(st.integers(0, 12 * HOUR), max_size=30),
    limit=st.integers(50, 2000),
    window=st.none() | st.builds(Window, instants, instants),
)
def test_while_time_passes_between_pages_nothing_is_lost(
    start: int, steps: list[int], limit: int, window: Window | None
) -> None:
    def passing() -> Iterator[int]:
        now = start
        yield now
        for step in steps:
            now += step
            yield now
        yield from standing_still(now)

    latest: dict[int, tuple[str, int, str]] = {}
    now = start
    for instant, page in pages(passing(), limit, window=window):
        now = instant
        for version in versions(page):
            assert version[1] not in latest or latest[version[1]] < version
            latest[version[1]] = version
    assert sorted(latest.values()) == expected_at(now, window)


@given(now=instants, since=instants)
def test_changes_since_an_instant_are_those_at_or_after_it(now: int, since: int) -> None:
    after = (since << 20) - 1
    seen = [version for _, page in pages(standing_still(now), 1000, after=after) for version in versions(page)]
    assert seen == [version for version in expected_at(now) if version[0] >= iso(since)]


def test_a_settled_flight_has_every_value_of_the_file_as_a_number_a_text_or_null() -> None:
    now = FIRST_HOUR + 1000 * HOUR
    records = {record["id"]: record for _, page in pages(standing_still(now), 5000) for record in page}
    assert len(records) == len(truths())
    for truth in truths():
        record = records[truth.number]
        assert list(record) == ["id", *truth.row, "status", "updated_at"]
        for column, text in truth.row.items():
            value = record[column]
            assert ("NA" if value is None else str(value)) == text
            assert value is None or isinstance(value, str) == (
                column in {"carrier", "tailnum", "origin", "dest", "time_hour"}
            )


def test_a_flight_that_is_only_announced_has_no_times_yet() -> None:
    truth = next(truth for truth in truths() if truth.status == "landed")
    (_, [record]) = next(
        pages(
            standing_still(truth.scheduled_at),
            1,
            after=(truth.scheduled_at - 24 * HOUR << 20 | truth.number) - 1,
        )
    )
    unknown = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
    assert {column for column, value in record.items() if value is None} == unknown
    assert (record["id"], record["status"]) == (truth.number, "scheduled")
    assert record["updated_at"] == iso(truth.scheduled_at - 24 * HOUR)
    assert all(str(record[column]) == text for column, text in truth.row.items() if column not in unknown)
