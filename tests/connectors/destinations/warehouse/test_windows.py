"""Windows as the definition cuts them and as PostgreSQL does: the same, in every time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from connectors.destinations.warehouse.windows import WindowColumn
from connectors.errors import ConfigurationError, WindowError
from connectors.model import Stream, Windows, WindowSize
from tests.conftest import Server

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Auckland"]
ZONES += ["America/Havana", "Atlantic/Azores"]  # where clocks go back to midnight
instants = st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


def stream(windows: Windows) -> Stream:
    return Stream(name="t", primary_key=("id",), event_time="at", windows=windows)


@settings(max_examples=150)
@given(st.lists(instants, min_size=1, max_size=40), st.sampled_from(WindowSize), st.sampled_from(ZONES))
def test_postgresql_cuts_windows_where_the_definition_does(
    postgres: Server, instants: list[datetime], size: WindowSize, zone: str
) -> None:
    windows = Windows(size=size, time_zone=zone)
    column = WindowColumn.of(stream(windows), {"at": "timestamp with time zone"})
    assert column is not None
    with postgres.connect() as connection:
        cut = connection.execute(
            sql.SQL("select at, {} from unnest(%s::timestamptz[]) t(at)").format(column.start()), [instants]
        ).fetchall()
    for instant, start in cut:
        assert start == windows.start_of(instant)
        assert start <= instant < windows.next(start)


@pytest.mark.parametrize("size", [WindowSize.DAY, WindowSize.WEEK, WindowSize.MONTH])
@pytest.mark.parametrize("zone", ["America/Havana", "Atlantic/Azores", "America/Scoresbysund", "Asia/Amman"])
def test_a_day_with_two_midnights_begins_at_the_first(postgres: Server, zone: str, size: WindowSize) -> None:
    windows = Windows(size=size, time_zone=zone)
    column = WindowColumn.of(stream(windows), {"at": "timestamp with time zone"})
    assert column is not None
    autumns = [datetime(year, month, 24, tzinfo=UTC) for year in range(1998, 2022) for month in (9, 10)]
    around = [autumn + timedelta(minutes=30 * half) for autumn in autumns for half in range(16 * 48)]
    with postgres.connect() as connection:
        cut = connection.execute(
            sql.SQL("select at, {} from unnest(%s::timestamptz[]) t(at)").format(column.start()), [around]
        ).fetchall()
    assert [instant for instant, start in cut if start != windows.start_of(instant)] == []


@given(instants, st.integers(0, 40), st.sampled_from(WindowSize), st.sampled_from(ZONES))
def test_windows_follow_each_other_without_a_gap(start: datetime, days: int, size: WindowSize, zone: str) -> None:
    end = start + timedelta(days=days, hours=1)
    cut = list(Windows(size=size, time_zone=zone).within(start, end))
    assert cut[0].start <= start < cut[0].end
    assert cut[-1].start < end <= cut[-1].end
    assert all(one.end == other.start for one, other in pairwise(cut))


@pytest.mark.parametrize(
    ("kind", "value", "start"),
    [
        ("date", "2024-03-05", "2024-03-05 00:00:00+00:00"),
        ("timestamp without time zone", "2024-03-05 23:59:59.999", "2024-03-05 00:00:00+00:00"),
        ("timestamp(3) with time zone", "2024-03-05 01:00+02", "2024-03-04 00:00:00+00:00"),
        ("timestamp with time zone", "infinity", "None"),
        ("date", "-infinity", "None"),
        ("timestamp with time zone", "20240-03-05 00:00Z", "None"),
        ("timestamp with time zone", "9999-12-31 23:59:59Z", "None"),
        ("timestamp without time zone", "0044-03-15 BC", "None"),
    ],
)
def test_every_kind_of_instant_has_its_window(postgres: Server, kind: str, value: str, start: str) -> None:
    column = WindowColumn.of(stream(Windows()), {"at": kind})
    assert column is not None
    [day] = Windows().within(datetime(2024, 3, 5, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC))
    with postgres.connect() as connection:
        found = connection.execute(
            sql.SQL("select {}, {} from (select {}::{} as at) t").format(
                column.start(),
                column.within(day),
                sql.Literal(value),
                sql.SQL(kind),
            )
        ).fetchone()
    assert found is not None
    assert str(found[0]) == start
    assert found[1] is (start.startswith("2024-03-05"))


def test_other_columns_have_none() -> None:
    assert WindowColumn.of(stream(Windows()), {"at": "text"}) is None
    assert WindowColumn.of(stream(Windows()), {}) is None
    assert WindowColumn.of(Stream(name="t", primary_key=("id",)), {"at": "date"}) is None


def test_where_windows_end() -> None:
    now = datetime(2024, 3, 5, 13, tzinfo=UTC)
    assert Windows().end_by(now) == datetime(2024, 3, 5, tzinfo=UTC)
    assert Windows(until="2024-02-01").end_by(now) == datetime(2024, 2, 1, tzinfo=UTC)
    assert Windows(until="2024-02-01T10:00").end_by(now) == datetime(2024, 2, 2, tzinfo=UTC)
    assert Windows(until="2025-01-01").end_by(now) == datetime(2024, 3, 5, tzinfo=UTC)
    new_york = Windows(time_zone="America/New_York", first="2024-01-01")
    assert new_york.begin == datetime(2024, 1, 1, 5, tzinfo=UTC)


def test_a_wrong_definition_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`Mars` is no time zone"):
        Windows(time_zone="Mars")
    with pytest.raises(WindowError, match="The first of the window, `spring`"):
        Windows(first="spring")
