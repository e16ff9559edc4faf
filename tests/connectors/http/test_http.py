"""The HTTP client: what each answer means, how long it waits, and what it never repeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import (
    ConfigurationError,
    HeadwaterError,
    MalformedResponseError,
    NotFoundError,
    SourceUnavailableError,
)
from connectors.http.client import FixedCredentials, HttpClient, Limits, Request, RetryPolicy, Signature
from connectors.http.status import Action, action_for, retry_after_seconds, seconds_to_wait
from tests.conftest import Answer, Api
from tests.connectors.wire import Asked, Line, Wire, answer, head, wire

QUICK = RetryPolicy(attempts=3, wait_initial=0.01, wait_max=2.0, connect_timeout=1, read_timeout=0.5)
ONCE = RetryPolicy(attempts=1, connect_timeout=1, read_timeout=1)
NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def get(api: Api | Wire, policy: RetryPolicy = QUICK, **credentials: str) -> bytes:
    fixed = FixedCredentials(Signature(credentials), tuple(credentials.values()))
    with HttpClient(api.url, credentials=fixed, policy=policy) as client:
        return client.fetch(Request("/things", {"a": "1 &?/é"})).body


# What is asked.


def test_a_parameter_arrives_as_it_was_given(api: Api) -> None:
    api.answer = lambda request: Answer(request.parameters)
    assert get(api) == b'{"a": "1 &?/\\u00e9"}'


@pytest.mark.parametrize(
    ("base", "url", "arrives"),
    [
        ("", "/things", "/things"),
        ("/v1", "things", "/v1/things"),
        ("/v1/", "/things?a=b%20c", "/v1/things?a=b%20c"),
        ("/v1/token", "", "/v1/token"),
        ("/v1", "{base}/v2/things?token=%3D%3d", "/v2/things?token=%3D%3d"),
    ],
)
def test_an_address_is_put_together_as_it_is_written(base: str, url: str, arrives: str) -> None:
    with wire(lambda _, line: line.send(answer([]))) as source, HttpClient(source.url + base, policy=ONCE) as client:
        found = client.fetch(Request(url.format(base=source.url)))
    assert source.asked[0].target == arrives
    assert found.url == source.url + arrives


def test_what_is_asked_by_post_arrives_whole() -> None:
    with wire(lambda _, line: line.send(answer([]))) as source, HttpClient(source.url, policy=ONCE) as client:
        client.fetch(Request("/query", {"a": "b"}, method="POST", body=b'{"q": 1}'))
    [asked] = source.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/query?a=b", b'{"q": 1}')
    assert asked.headers["content-type"] == "application/json"


def test_a_connection_is_used_again() -> None:
    lines: list[Line] = []

    def reply(asked: Asked, line: Line) -> None:
        lines.append(line)
        line.send(answer([len(lines)]))

    ports = set()
    with wire(reply) as source, HttpClient(source.url, policy=ONCE) as client:
        for _ in range(5):
            client.fetch(Request("/"))
            ports.add(lines[-1].peer)
    assert len(lines) == 5
    assert len(ports) == 1


@pytest.mark.parametrize("url", ["", "ftp://x", "flights", "http://", "file:///etc/passwd", "http://x:y"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not the address of an HTTP API"):
        HttpClient(url)


@pytest.mark.parametrize("url", ["http://user:canary-71@x", "http://x/?key=canary-71", "http://x/#canary-71"])
def test_an_address_with_credentials_in_it_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="more than scheme, host, port and path") as caught:
        HttpClient(url)
    assert "canary-71" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RetryPolicy(attempts=0),
        lambda: RetryPolicy(wait_max=-1),
        lambda: RetryPolicy(read_timeout=0),
        lambda: Limits(max_requests_per_second=0),
        lambda: Limits(max_concurrent_requests=0),
        lambda: Limits(max_body_bytes=0),
    ],
)
def test_limits_that_make_no_sense_are_refused_when_they_are_written(wrong: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        wrong()


# What each status means.


@given(st.integers(100, 599))
def test_every_status_has_one_meaning(status: int) -> None:
    action, meaning, remedy = action_for(status)
    assert (action is Action.ACCEPT) == (status in (200, 201, 203, 204))
    assert action is Action.ACCEPT or (meaning and remedy)


@pytest.mark.parametrize(
    "status", [206, 300, 301, 302, 307, 400, 401, 403, 404, 405, 406, 410, 413, 414, 415, 422, 451, 501, 511]
)
def test_a_refusal_is_not_repeated(api: Api, status: int) -> None:
    api.answer = lambda _: Answer({}, status, {"Location": "http://127.0.0.1:1/"})
    with pytest.raises(ConfigurationError, match=f"answered {status}") as caught:
        get(api)
    assert len(api.requests) == 1
    assert isinstance(caught.value, NotFoundError) == (status in (404, 410))


@pytest.mark.parametrize("status", [202, 408, 409, 423, 425, 429, 500, 502, 503, 504, 529])
def test_a_passing_trouble_is_retried_and_no_more_often_than_allowed(api: Api, status: int) -> None:
    api.answer = lambda _: Answer({}, status)
    with pytest.raises(SourceUnavailableError, match=f"answered {status}"):
        get(api)
    assert len(api.requests) == QUICK.attempts


def test_a_source_that_recovers_is_read(api: Api) -> None:
    answers = iter([Answer({}, 500), Answer({}, 503), Answer([1])])
    api.answer = lambda _: next(answers)
    assert get(api) == b"[1]"


def test_an_answer_without_content_is_empty(api: Api) -> None:
    api.answer = lambda _: Answer(b"", 204, {"Content-Encoding": "gzip"})
    assert get(api) == b""


def test_what_the_reader_finds_malformed_is_asked_for_again(api: Api) -> None:
    answers = iter([Answer(b'{"a'), Answer(b"[]"), Answer(b"[1]")])
    api.answer = lambda _: next(answers)

    def reader(answer: object) -> str:
        if answer.body != b"[1]":  # type: ignore[attr-defined]
            raise MalformedResponseError("No good.", remedy="")
        return "good"

    with HttpClient(api.url, policy=QUICK) as client:
        assert client.read(Request("/"), reader) == "good"


# How long it waits.


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=9), usegmt=True)}, 9),
        ({"retry-after": "Sunday, 01-Nov-26 12:00:30 GMT"}, 30),
        ({"retry-after": format_datetime(NOW - timedelta(hours=1), usegmt=True)}, 0),
        # The source's clock is two hours ahead: by ours its date would be far away.
        ({"retry-after": "Sun, 01 Nov 2026 14:00:09 GMT", "date": "Sun, 01 Nov 2026 14:00:00 GMT"}, 9),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 40)}, 40),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "40"}, 40),
        ({"x-rate-limit-remaining": "3", "x-rate-limit-reset": "40"}, None),
        ({"retry-after": "7", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "40"}, 7),
    ],
)
def test_an_answer_says_how_long_to_wait_in_many_ways(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(429, headers, NOW) == seconds


def test_a_counter_at_zero_means_nothing_where_the_limit_was_not_the_trouble() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "40"}
    assert seconds_to_wait(500, headers, NOW) is None


@given(st.one_of(st.none(), st.text(max_size=40), st.from_regex(r"[0-9]{1,400}(\.[0-9]+)?", fullmatch=True)))
def test_any_retry_after_is_a_number_of_seconds_or_nothing(value: str | None) -> None:
    seconds = retry_after_seconds(value, datetime.now(UTC))
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(("status", "as_date"), [(403, False), (429, False), (503, True)])
def test_retry_after_is_obeyed_in_both_its_forms(api: Api, status: int, as_date: bool) -> None:
    times: list[float] = []

    def reply(_: object) -> Answer:
        times.append(time.monotonic())
        # A date has whole seconds, and the answer's own date, of the same clock, is cut to them as well.
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True) if as_date else "1"
        return Answer({}, status, {"Retry-After": value}) if len(times) == 1 else Answer([])

    api.answer = reply
    get(api)
    assert times[1] - times[0] >= 1


def test_a_source_that_wants_to_be_left_alone_for_long_is(api: Api) -> None:
    api.answer = lambda _: Answer({}, 429, {"Retry-After": "3600"})
    with pytest.raises(ConfigurationError, match="left alone for 3600 s"):
        get(api)
    # Neither does the next stream ask, nor another thread.
    with pytest.raises(ConfigurationError, match="left alone for 3600 s"):
        get(api)
    assert len(api.requests) == 1


def test_retry_after_holds_back_every_thread_and_every_client_of_the_host(api: Api) -> None:
    lock = threading.Lock()
    held: list[float] = []
    early: list[float] = []

    def reply(_: object) -> Answer:
        with lock:
            now = time.monotonic()
            if not held:
                held.append(now + 1)
                return Answer({}, 503, {"Retry-After": "1"})
            # What was under way when the answer was sent could not know.
            if held[0] - 0.5 < now < held[0]:
                early.append(held[0] - now)
        return Answer([])

    api.answer = reply
    with HttpClient(api.url, policy=QUICK) as one, HttpClient(api.url, policy=QUICK) as other:
        end = time.monotonic() + 1.5

        def ask(client: HttpClient) -> None:
            while time.monotonic() < end:
                client.fetch(Request("/"))
                time.sleep(0.01)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, [one, other] * 3))
    assert not early
    assert len(api.requests) > 20


def test_a_refusal_whose_words_never_end_is_still_obeyed() -> None:
    def reply(asked: Asked, line: Line) -> None:
        if len(source.asked) == 1:
            line.send(head(429, Retry_After="1", Content_Length=1000))
            line.reset()
        line.send(answer([1]))

    with wire(reply) as source:
        assert get(source) == b"[1]"
    assert source.asked[1].at - source.asked[0].at >= 1


def test_a_source_that_fails_too_often_is_given_up(api: Api) -> None:
    """Every single request would succeed at last: it is the load that has had too much."""
    asked: dict[str, int] = {}

    def reply(request: object) -> Answer:
        page = request.path  # type: ignore[attr-defined]
        asked[page] = asked.get(page, 0) + 1
        return Answer([]) if asked[page] == 3 else Answer({}, 500)

    api.answer = reply
    policy = RetryPolicy(attempts=3, wait_initial=0.001, wait_max=0.002)
    with HttpClient(api.url, policy=policy) as client:
        for number in range(5):
            client.fetch(Request(f"/{number}"))
        with pytest.raises(SourceUnavailableError, match="one of 11 failures in 6 requests of this load"):
            client.fetch(Request("/5"))
    assert len(api.requests) == 6 + 10


def test_requests_are_spread_over_the_time_that_the_limits_give(api: Api) -> None:
    times: list[float] = []

    def reply(_: object) -> Answer:
        times.append(time.monotonic())
        return Answer([])

    api.answer = reply
    limits = Limits(max_requests_per_second=20)
    with HttpClient(api.url, limits=limits) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(client.fetch, [Request("/")] * 11))
    assert max(times) - min(times) >= 10 / 20 - 0.1  # the first may have been long under way


def test_no_more_requests_are_under_way_than_the_limits_allow(api: Api) -> None:
    lock = threading.Lock()
    under_way, most = 0, 0

    def reply(_: object) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        return Answer([])

    api.answer = reply
    with HttpClient(api.url, limits=Limits(max_concurrent_requests=3)) as client, ThreadPoolExecutor(9) as pool:
        list(pool.map(client.fetch, [Request("/")] * 18))
    assert most == 3


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "20"}])
def test_a_client_that_is_left_gives_up_what_waits_in_it(api: Api, headers: dict[str, str]) -> None:
    api.answer = lambda _: Answer({}, 503, headers)
    policy = RetryPolicy(wait_initial=20, wait_max=30)
    with ThreadPoolExecutor(2) as pool:
        with HttpClient(api.url, policy=policy) as client:
            waiting = [pool.submit(client.fetch, Request("/")) for _ in range(2)]
            while not api.requests:
                time.sleep(0.01)
            time.sleep(0.1)
        left = time.monotonic()
        for future in waiting:
            with pytest.raises(SourceUnavailableError):
                future.result()
        assert time.monotonic() - left < 2


# Until when it waits for bytes.


def test_a_source_that_never_answers_is_given_up(api: Api) -> None:
    def reply(_: object) -> Answer:
        time.sleep(0.3)
        return Answer([])

    api.answer = reply
    with pytest.raises(SourceUnavailableError, match="did not answer within"):
        get(api, RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.02, read_timeout=0.1))
    assert len(api.requests) == 2


def _drip_body(_: Asked, line: Line) -> None:
    line.send(head(Content_Length=1000))
    line.drip(b" " * 1000, 0.05)


def _drip_head(_: Asked, line: Line) -> None:
    line.drip(answer([]), 0.05)


def _drip_informational(_: Asked, line: Line) -> None:
    for _number in range(1000):
        line.send(head(103))
        time.sleep(0.05)


def _drip_chunks(_: Asked, line: Line) -> None:
    line.send(head(Transfer_Encoding="chunked"))
    for _number in range(1000):
        line.send(b"1\r\n \r\n")
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [_drip_body, _drip_head, _drip_informational, _drip_chunks])
def test_a_source_that_drips_is_given_up(reply: Callable[[Asked, Line], None]) -> None:
    policy = RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.02, read_timeout=1, total_timeout=0.3)
    began = time.monotonic()
    with wire(reply) as source, pytest.raises(SourceUnavailableError, match="did not finish its answer within 0.3 s"):
        get(source, policy)
    assert len(source.asked) == 2
    assert time.monotonic() - began < 2


def test_a_handshake_that_never_comes_is_given_up() -> None:
    with (
        wire(lambda _, line: line.hang_up()) as source,
        HttpClient(f"https://127.0.0.1:{source.port}", policy=RetryPolicy(attempts=1, connect_timeout=0.2)) as client,
    ):
        began = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="did not answer within"):
            client.fetch(Request("/"))
    assert time.monotonic() - began < 2


def test_a_source_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(SourceUnavailableError, match="ConnectError"):
        get(Wire(1), ONCE)


@pytest.mark.parametrize("cut", ["at once", "in the head", "in the body"])
def test_a_connection_that_is_cut_off_is_tried_again(cut: str) -> None:
    def reply(asked: Asked, line: Line) -> None:
        if len(source.asked) < 3:
            line.send({"at once": b"", "in the head": b"HTTP/1.1 200 OK\r\nCont", "in the body": answer([1])[:-1]}[cut])
            line.reset()
        line.send(answer([1]))

    with wire(reply) as source:
        assert get(source) == b"[1]"
    assert len(source.asked) == 3


# What it never repeats.


def test_credentials_are_sent_and_never_repeated_in_a_message(api: Api) -> None:
    api.answer = lambda request: Answer({"you said": request.headers["X-Key"]}, 403)
    with pytest.raises(ConfigurationError) as caught:
        get(api, **{"X-Key": "canary-71"})
    assert api.requests[0].headers["X-Key"] == "canary-71"
    assert "canary-71" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_source_that_answers_in_no_http_cannot_bring_a_credential_into_a_message() -> None:
    """The parser of headers quotes what it does not understand; nor may the cause hold it, which tracebacks print."""

    def reply(asked: Asked, line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\nX-Odd " + asked.headers["x-key"].encode() + b"\r\n\r\n")

    with wire(reply) as source, pytest.raises(HeadwaterError) as caught:
        get(source, ONCE, **{"X-Key": "canary-71"})
    assert "canary-71" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__


def test_an_error_on_its_way_out_of_the_client_is_cleared(api: Api) -> None:
    fixed = FixedCredentials(secrets=("canary-71",))
    with pytest.raises(MalformedResponseError) as caught, HttpClient(api.url, credentials=fixed):
        raise MalformedResponseError("A body begins: canary-71", remedy="Look at canary-71.")
    assert "canary-71" not in f"{caught.value} {caught.value!r}"
