"""Runs are named after what they do, of which source, stream and window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.model import Window
from tasks.names import named, span_of


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"source": "flights_api"}, "ingest flights_api"),
        ({"source": "flights_api", "start": "2013-07-01", "end": "2013-07-02"}, "ingest flights_api 2013-07-01/02"),
        ({"source": "s", "stream": "t", "start": "2013-07-30", "end": "2013-08-02"}, "ingest s.t 2013-07-30/08-02"),
        ({"source": "s", "start": "2013-12-30", "end": "2014-01-02"}, "ingest s 2013-12-30/2014-01-02"),
        ({"source": "s", "start": "2013-07-01T06Z", "end": "2013-07-01T12Z"}, "ingest s 2013-07-01T06:00Z/12:00Z"),
        ({"source": "s", "start": "2013-07-01T06:00:30Z", "end": "2013-07-02"},
         "ingest s 2013-07-01T06:00:30Z/2013-07-02T00:00:00Z"),
        ({"source": "s", "start": "2013-07-01"}, "ingest s 2013-07-01/.."),
        ({"source": "s", "start": "yesterday", "end": "now"}, "ingest s yesterday/now"),
        ({"source": "s", "streams": ["a"], "full_refresh": True}, "ingest s.a in full"),
        ({"source": "s", "streams": ["a", "b"], "heal": True}, "ingest s (a, b) healing"),
        ({"source": "s", "streams": list("abcde")}, "ingest s (a, b, c and 2 more)"),
        ({"sources": ["a", "b"]}, "ingest a, b"),
        ({"sources": None}, "ingest all sources"),
    ],
)  # fmt: skip
def test_a_name_says_source_stream_window_and_way(parameters: dict[str, Any], name: str) -> None:
    assert named("ingest", parameters) == name


instants = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - given a zone next
    lambda at: at.replace(microsecond=0, tzinfo=UTC)
)


@given(instants, st.integers(1, 10**9))
def test_a_window_is_read_back_from_its_name(start: datetime, seconds: int) -> None:
    window = Window(start, start + timedelta(seconds=seconds))
    begin, _, end = span_of(window).partition("/")
    if "T" in begin and "T" not in end:
        end = f"{begin[:10]}T{end}"
    elif "T" not in begin:
        end = begin[: 10 - len(end)] + end
    assert Window.parse(begin, end) == window
