"""The HTTP client: what each answer means, how long it waits, and what it never repeats."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigurationError, MalformedResponseError, SourceUnavailableError
from connectors.http import Action, HttpClient, Request, RetryPolicy, action_for, retry_after_seconds
from tests.conftest import Answer, Api

QUICK = RetryPolicy(attempts=3, wait_initial=0.01, wait_max=2.0, connect_timeout=1, read_timeout=0.5)


def get(api: Api, policy: RetryPolicy = QUICK, **credentials: str) -> bytes:
    with HttpClient(api.url, credentials=credentials, policy=policy) as client:
        return client.fetch(Request("/things", {"a": "1 &?/é"})).body


def test_a_parameter_arrives_as_it_was_given(api: Api) -> None:
    api.answer = lambda request: Answer(request.parameters)
    assert get(api) == b'{"a": "1 &?/\\u00e9"}'


@given(st.integers(100, 599))
def test_every_status_has_one_meaning(status: int) -> None:
    action, meaning, remedy = action_for(status)
    assert (action is Action.ACCEPT) == (200 <= status < 300)
    assert action is Action.ACCEPT or (meaning and remedy)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301, 302, 307, 410, 422])
def test_a_refusal_is_not_repeated(api: Api, status: int) -> None:
    api.answer = lambda _: Answer({}, status, {"Location": "http://127.0.0.1:1/"})
    with pytest.raises(ConfigurationError, match=f"answered {status}"):
        get(api)
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_retried_and_no_more_often_than_allowed(api: Api, status: int) -> None:
    api.answer = lambda _: Answer({}, status)
    with pytest.raises(SourceUnavailableError, match=f"answered {status}"):
        get(api)
    assert len(api.requests) == QUICK.attempts


def test_a_source_that_recovers_is_read(api: Api) -> None:
    answers = iter([Answer({}, 500), Answer({}, 503), Answer([1])])
    api.answer = lambda _: next(answers)
    assert get(api) == b"[1]"


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed_in_both_its_forms(api: Api, as_date: bool) -> None:
    times: list[float] = []
    # A date has whole seconds: two of them are at least one.
    value = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "1"

    def answer(_: object) -> Answer:
        times.append(time.time())
        return Answer({}, 429, {"Retry-After": value}) if len(times) == 1 else Answer([])

    api.answer = answer
    get(api)
    assert times[1] - times[0] >= 0.9


def test_a_source_that_wants_to_be_left_alone_for_long_is(api: Api) -> None:
    api.answer = lambda _: Answer({}, 429, {"Retry-After": "3600"})
    with pytest.raises(ConfigurationError, match="left alone for 3600 s"):
        get(api)
    assert len(api.requests) == 1


@given(st.one_of(st.none(), st.text(max_size=40)))
def test_any_retry_after_is_a_number_of_seconds(value: str | None) -> None:
    assert retry_after_seconds(value, datetime.now(UTC)) >= 0


def test_a_body_that_breaks_off_is_never_accepted(api: Api) -> None:
    body = b'{"data": [1, 2, 3]}'
    for cut in range(len(body)):
        api.answer = lambda _, cut=cut: Answer(body, cut_at=cut)  # type: ignore[misc]
        with pytest.raises((MalformedResponseError, SourceUnavailableError)):
            get(api, RetryPolicy(attempts=1, read_timeout=1))


def test_a_source_that_never_answers_is_given_up(api: Api) -> None:
    def answer(_: object) -> Answer:
        time.sleep(0.3)
        return Answer([])

    api.answer = answer
    with pytest.raises(SourceUnavailableError, match="did not answer within"):
        get(api, RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.02, read_timeout=0.1))
    assert len(api.requests) == 2


def test_a_source_that_drips_is_given_up(api: Api) -> None:
    def drip(wfile: IO[bytes]) -> None:
        for _ in range(50):
            wfile.write(b" ")
            wfile.flush()
            time.sleep(0.05)

    api.answer = lambda _: Answer(drip)
    policy = RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.02, read_timeout=1, total_timeout=0.3)
    with pytest.raises(SourceUnavailableError, match="did not finish its answer within"):
        get(api, policy)
    assert len(api.requests) == 2


def test_a_body_that_cannot_be_decompressed_is_refused(api: Api) -> None:
    api.answer = lambda _: Answer(b"no gzip", headers={"Content-Encoding": "gzip"})
    with pytest.raises(MalformedResponseError, match="broke off"):
        get(api)
    assert len(api.requests) == QUICK.attempts


def test_credentials_are_sent_and_never_repeated_in_a_message(api: Api) -> None:
    api.answer = lambda request: Answer({"you said": request.headers["X-Key"]}, 403)
    with pytest.raises(ConfigurationError) as caught:
        get(api, **{"X-Key": "canary-71"})
    assert api.requests[0].headers["X-Key"] == "canary-71"
    assert "canary-71" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_redirect_takes_no_credential_anywhere(api: Api) -> None:
    api.answer = lambda _: Answer({}, 302, {"Location": f"{api.url.replace('127.0.0.1', 'localhost')}/elsewhere"})
    with pytest.raises(ConfigurationError, match="never sent on to another address"):
        get(api, **{"X-Key": "canary-71"})
    assert [request.path for request in api.requests] == ["/things"]


@pytest.mark.parametrize("url", ["", "ftp://x", "flights", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not the address of an HTTP API"):
        HttpClient(url)
