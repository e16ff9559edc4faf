"""The words of the product: windows and definitions refuse what cannot work, in a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigurationError, UnknownNameError, WindowError
from connectors.model import Cursor, Stream, Window, WriteDisposition, stream_of
from connectors.registry import SOURCES, source_named

instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


def test_a_window_without_offset_is_utc() -> None:
    window = Window.parse("2013-07-01", "2013-07-02T06:00:00")
    assert window == Window(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 7, 2, 6, tzinfo=UTC))
    assert str(window) == "[2013-07-01, 2013-07-02T06:00:00Z)"


def test_a_window_with_offset_is_turned_into_utc() -> None:
    window = Window.parse("2013-07-01T00:00:00-04:00", "2013-07-02T00:00:00-04:00")
    assert window.start == datetime(2013, 7, 1, 4, tzinfo=UTC)


@given(instants, st.timedeltas(timedelta(microseconds=1), timedelta(days=1)))
def test_what_a_window_prints_it_also_reads(start: datetime, length: timedelta) -> None:
    window = Window(start, start + length)
    assert Window.parse(*str(window)[1:-1].split(", ")) == window


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("yesterday", "2013-07-01", "start of the window, `yesterday`, is not a date"),
        ("2013-07-01", "2013-13-01", "end of the window, `2013-13-01`, is not a date"),
        ("2013-07-02", "2013-07-01", "is empty"),
        ("2013-07-01", "2013-07-01", "is empty"),
    ],
)
def test_a_malformed_window_is_refused_with_a_remedy(start: str, end: str, says: str) -> None:
    with pytest.raises(WindowError, match=says) as caught:
        Window.parse(start, end)
    assert caught.value.remedy


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_window_or_a_window_error(start: str, end: str) -> None:
    try:
        window = Window.parse(start, end)
    except WindowError:
        return
    assert window.start < window.end


def test_a_merge_stream_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="`orders` is `merge` but has no primary_key. Name the key columns"):
        Stream(name="orders")


def test_an_append_stream_with_a_cursor_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="`append` with a cursor but has no primary_key"):
        Stream(name="events", write=WriteDisposition.APPEND, cursor=Cursor("at"))


def test_a_replace_stream_takes_neither_cursor_nor_windows() -> None:
    with pytest.raises(ConfigurationError, match="has a cursor"):
        Stream(name="orders", write=WriteDisposition.REPLACE, cursor=Cursor("changed_at"))
    with pytest.raises(ConfigurationError, match="has an event_time"):
        Stream(name="orders", write=WriteDisposition.REPLACE, event_time="ordered_at")


@pytest.mark.parametrize("name", ["", "Orders", "1st", "a b", 'x"; drop schema raw; --', "a" * 49, "naïve"])
def test_a_name_that_cannot_be_a_table_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a stream"):
        Stream(name=name, write=WriteDisposition.APPEND)


def test_an_unknown_source_or_stream_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="no source `flight_api`.*`flights_api`, `operations_db`"):
        source_named("flight_api")
    with pytest.raises(UnknownNameError, match="no stream `trains` in source `operations_db`.*`planes`"):
        stream_of(SOURCES["operations_db"], "trains")
