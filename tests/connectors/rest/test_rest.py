"""Pages into records: each once, each as it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.documents.path import parse_path
from connectors.errors import ConfigurationError, MalformedResponseError
from connectors.http.client import Answer as HttpAnswer
from connectors.model import Cursor, ExtractRequest, WriteDisposition
from connectors.rest import BodyFormat, RestStream, TokenInBody
from connectors.rest.bodies import Bodies
from tests.conftest import Answer, Api, Request
from tests.connectors.reading import read


def test_a_bare_list_is_read(api: Api) -> None:
    api.answer = lambda _: Answer([{"a": 1}, {"a": 2}])
    assert read(api) == [b'{"a": 1}', b'{"a": 2}']


def test_records_keep_their_text(api: Api) -> None:
    record = b'{"n": 1.10, "big": 123456789012345678901234567890, "e": 1E400,  "u": "\\u00e9", "n": 2}'
    api.answer = lambda _: Answer(b'{"data": [' + record + b"]}")
    assert read(api, records="data") == [record]


def test_a_record_over_several_lines_becomes_one(api: Api) -> None:
    api.answer = lambda _: Answer(b'[\n{\n "a": "x\\ny",\r\n "b": 2\n}\n]')
    [line] = read(api)
    assert json.loads(line) == {"a": "x\ny", "b": 2}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_every_page_is_read_once(api: Api, count: int) -> None:
    def answer(request: Request) -> Answer:
        start = int(request.parameters.get("after", 0))
        following = start + 2 if start + 2 < count else None
        return Answer({"data": list(range(start, min(start + 2, count))), "next": following})

    api.answer = answer
    lines = read(api, records="data", pages=TokenInBody(token="next", parameter="after"), parameters={"limit": "2"})
    assert [int(line) for line in lines] == list(range(count))
    assert {request.parameters["limit"] for request in api.requests} == {"2"}


def test_pages_in_a_circle_are_noticed(api: Api) -> None:
    def answer(request: Request) -> Answer:
        return Answer({"data": [1], "next": "b" if request.parameters.get("after") == "a" else "a"})

    api.answer = answer
    with pytest.raises(MalformedResponseError, match="go in a circle"):
        read(api, records="data", pages=TokenInBody(token="next", parameter="after"))
    assert len(api.requests) <= 4


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>", "cannot be read"),
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"date": []}', "has no 'data'"),
        (b'{"data": {}}', "cannot be read"),
        (b'{"data": [1,', "cannot be read"),
        (b'{"data": [{"a": "\xff"}]}', "cannot be read"),
    ],
)
def test_a_body_that_is_not_the_data_is_refused(api: Api, body: bytes, says: str) -> None:
    api.answer = lambda _: Answer(body)
    with pytest.raises(MalformedResponseError, match=says):
        read(api, records="data")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=5), max_size=5), st.sampled_from([None, 2]))
def test_any_list_of_records_is_taken_apart_into_the_same_records(records: Any, indent: int | None) -> None:
    bodies = Bodies("/things", BodyFormat.JSON, parse_path("a.b"))
    body = json.dumps({"a": {"b": records}}, indent=indent).encode()
    lines = bodies.page(HttpAnswer(body, {}, "http://a/")).content.splitlines()
    assert [json.loads(line) for line in lines] == records


def test_the_watermark_becomes_a_parameter_less_the_lag(api: Api) -> None:
    from datetime import timedelta

    api.answer = lambda _: Answer([])
    stream = {"cursor": Cursor("at", lag=timedelta(minutes=5)), "since_parameter": "since"}
    read(api, ExtractRequest(watermark="2024-01-01 00:00:00.5+00"), **stream)
    read(api, ExtractRequest(), **stream)
    read(api, ExtractRequest(watermark="17"), cursor=Cursor("id"), since_parameter="since")
    assert [request.parameters.get("since") for request in api.requests] == ["2023-12-31T23:55:00.500000Z", None, "17"]


def test_a_definition_with_half_of_what_it_needs_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="only one of cursor and since_parameter"):
        RestStream(name="a", path="/", primary_key=("x",), cursor=Cursor("x"))
    with pytest.raises(ConfigurationError, match="only one of event_time and window_parameters"):
        RestStream(name="a", path="/", write=WriteDisposition.APPEND, event_time="x")
