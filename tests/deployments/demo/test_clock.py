from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.demo import clock
from deployments.local.errors import LocalStackError


@given(days=st.integers(0, 9999), hours=st.integers(0, 9999), minutes=st.integers(0, 9999))
def test_a_duration_is_the_sum_of_its_parts(days: int, hours: int, minutes: int) -> None:
    expected = timedelta(days=days, hours=hours, minutes=minutes)
    assert clock.parse_duration(f"{days}d{hours}h{minutes}m") == expected
    assert clock.parse_duration(f" {days}d{minutes}m ") == timedelta(days=days, minutes=minutes)
    assert clock.parse_duration(f"{hours}h") == timedelta(hours=hours)


@given(st.text(alphabet="0123456789dhm -.+x٣", max_size=8))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        duration = clock.parse_duration(text)
    except LocalStackError:
        return
    assert duration >= timedelta()


@pytest.mark.parametrize("text", ["", "6", "h", "6s", "1h2d", "-6h", "1.5h", "6 h", "٣h", "99999999d"])
def test_these_are_no_durations(text: str) -> None:
    with pytest.raises(LocalStackError, match="is not a duration"):
        clock.parse_duration(text)


def test_an_untouched_clock_stands_at_the_end_of_2013(tmp_path: Path) -> None:
    assert clock.read(tmp_path) == datetime(2013, 12, 31, 17, tzinfo=UTC)
    assert not (tmp_path / "demo").exists()


def test_the_clock_moves_forward_by_a_duration_or_to_an_instant(tmp_path: Path) -> None:
    assert clock.advance(tmp_path, timedelta(hours=6)) == datetime(2013, 12, 31, 23, tzinfo=UTC)
    new_york = timezone(timedelta(hours=-5))
    assert clock.set_to(tmp_path, datetime(2013, 12, 31, 19, tzinfo=new_york)) == datetime(2014, 1, 1, tzinfo=UTC)
    assert clock.read(tmp_path) == datetime(2014, 1, 1, tzinfo=UTC)
    assert (tmp_path / "demo" / "clock").read_text() == "2014-01-01T00:00:00Z\n"


def test_the_first_instant_may_be_any_and_after_that_the_clock_does_not_go_back(tmp_path: Path) -> None:
    summer = datetime(2013, 7, 1, 12, tzinfo=UTC)
    clock.set_to(tmp_path, summer)
    assert clock.start(tmp_path) == summer
    clock.set_to(tmp_path, summer)
    with pytest.raises(LocalStackError, match="stands at 2013-07-01T12:00:00Z and does not go back"):
        clock.set_to(tmp_path, summer - timedelta(seconds=1))
    assert clock.read(tmp_path) == summer


def test_a_clock_that_was_started_does_not_go_back(tmp_path: Path) -> None:
    clock.start(tmp_path)
    with pytest.raises(LocalStackError, match="does not go back"):
        clock.set_to(tmp_path, datetime(2013, 7, 1, tzinfo=UTC))


def test_the_end_of_time_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="that far"):
        clock.advance(tmp_path, timedelta(days=999_999_999))


def test_a_clock_that_somebody_spoiled_is_named(tmp_path: Path) -> None:
    clock.start(tmp_path)
    for content in ("soon", "2014-01-01T00:00:00", ""):
        (tmp_path / "demo" / "clock").write_text(content)
        with pytest.raises(LocalStackError, match="holds no instant with a time zone"):
            clock.read(tmp_path)


def test_everybody_who_advances_the_clock_at_once_is_counted(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clock.advance(tmp_path, timedelta(minutes=1)), range(20)))
    assert clock.read(tmp_path) == clock.DEFAULT + timedelta(minutes=20)


def test_a_reader_who_looks_often_sees_every_change(tmp_path: Path) -> None:
    cached = clock.CachedClock(tmp_path)
    assert cached.now() == clock.DEFAULT
    for _ in range(50):
        assert cached.now() == clock.read(tmp_path)
        assert clock.advance(tmp_path, timedelta(minutes=1)) == cached.now() == cached.now()
