"""Watermarks and windows as parameters: never later than they are, and exactly where they have to be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigurationError, WindowError
from connectors.model import Cursor, ExtractRequest, Window
from connectors.rest import Instants, JsonBody, Strftime
from connectors.rest.bounds import InstantFormat, since_bound, window_bounds
from tests.conftest import Answer, Api
from tests.connectors.reading import read

DAY = timedelta(days=1)
instants = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
formats = st.sampled_from(
    [*Instants, Strftime("%Y-%m-%d %H:%M:%S"), Strftime("%Y%m%d", step=DAY), Strftime("%d/%m/%Y %H:%M")]
)


def meant(value: str | int, form: InstantFormat) -> datetime:
    """The instant that a source takes a parameter for."""
    if isinstance(form, Strftime):
        return datetime.strptime(str(value), form.pattern).replace(tzinfo=UTC)
    if form in (Instants.UNIX_SECONDS, Instants.UNIX_MILLISECONDS):
        return datetime(1970, 1, 1, tzinfo=UTC) + int(value) * form.step
    instant = datetime.fromisoformat(str(value))
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@given(instants, formats, st.timedeltas(timedelta(0), timedelta(days=3)))
def test_no_form_asks_from_later_than_the_watermark(at: datetime, form: InstantFormat, lag: timedelta) -> None:
    since = since_bound(at.isoformat(" "), Cursor("at", lag=lag), form)
    assert since is not None
    assert at - lag - timedelta(days=1) < meant(since, form) <= at - lag


@given(st.decimals(0, 10**10, places=3, allow_nan=False), st.integers(0, 10**6), st.booleans())
def test_a_number_is_an_instant_where_instants_are_numbers(watermark: Decimal, lag: int, in_milliseconds: bool) -> None:
    form = Instants.UNIX_MILLISECONDS if in_milliseconds else Instants.UNIX_SECONDS
    since = since_bound(str(watermark), Cursor("at", lag=timedelta(milliseconds=lag)), form)
    exact = watermark - (lag if in_milliseconds else Decimal(lag) / 1000)
    assert exact - 2 < int(str(since)) <= exact


@pytest.mark.parametrize("watermark", ["20240101", "17", "order-7", "2024-W01", "infinity", "1999"])
def test_what_is_no_instant_stays_as_it_is(watermark: str) -> None:
    assert since_bound(watermark, Cursor("id"), Instants.ISO) == watermark
    with pytest.raises(ConfigurationError, match="has a lag but its position"):
        since_bound(watermark, Cursor("id", lag=DAY), Instants.ISO)


def asked(api: Api, request: ExtractRequest, **definition: Any) -> dict[str, str]:
    api.answer = lambda _: Answer([])
    read(api, request, **definition)
    return api.requests[-1].parameters


JANUARY = ExtractRequest(window=Window.parse("2024-01-01", "2024-02-01"))


@pytest.mark.parametrize(
    ("form", "start", "end", "last"),
    [
        (Instants.ISO, "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-01-31T23:59:59.999999Z"),
        (Instants.DATE, "2024-01-01", "2024-02-01", "2024-01-31"),
        (Instants.UNIX_SECONDS, "1704067200", "1706745600", "1706745599"),
        (Instants.UNIX_MILLISECONDS, "1704067200000", "1706745600000", "1706745599999"),
        (Strftime("%Y%m%d", step=DAY), "20240101", "20240201", "20240131"),
    ],
)
def test_a_window_is_written_as_the_source_takes_it(
    api: Api, form: InstantFormat, start: str, end: str, last: str
) -> None:
    definition = {"event_time": "at", "window_parameters": ("from", "to"), "instants": form}
    assert asked(api, JANUARY, **definition) == {"from": start, "to": end}
    assert asked(api, JANUARY, window_end_included=True, **definition) == {"from": start, "to": last}


@given(instants)
def test_a_window_that_the_form_cannot_say_exactly_is_refused(start: datetime) -> None:
    window = Window(start, start + DAY)
    if start.time() != datetime.min.time():
        with pytest.raises(WindowError, match="its parameters are coarser"):
            window_bounds(window, ("a", "b"), Instants.DATE, end_included=False)
    bounds = window_bounds(window, ("a", "b"), Instants.ISO, end_included=False)
    assert [meant(value, Instants.ISO) for value in bounds.values()] == [window.start, window.end]


def test_a_bound_goes_into_the_body_where_there_is_one(api: Api) -> None:
    api.answer = lambda _: Answer([])
    read(
        api,
        ExtractRequest(watermark="2024-01-01 00:00:00+00"),
        cursor=Cursor("at"),
        since_parameter="filter.since",
        instants=Instants.UNIX_SECONDS,
        body=JsonBody({"filter": {"state": "all"}}, "search"),
        parameters={"limit": 10},
    )
    [request] = api.requests
    assert (request.method, request.parameters) == ("POST", {})
    assert request.body == b'{"filter":{"state":"all"},"search":{"limit":10,"filter":{"since":1704067200}}}'
    assert request.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("pattern", ["%Y", "%H:%M", "today", "%d.%m.%y %Q"])
def test_a_pattern_that_writes_no_whole_date_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="does not write a whole date"):
        Strftime(pattern)
