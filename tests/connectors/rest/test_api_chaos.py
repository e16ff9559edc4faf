"""An API that fails in every way that is known, three times in ten: what it has is loaded, all of it and as it is.

The server counts what it is asked, and takes down whoever comes before the time that it named. `make test` reads two
hundred pages; `make chaos` ten thousand.
"""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from connectors.connections import EnvironmentConnections, Secret, Setting
from connectors.errors import MalformedResponseError, SourceUnavailableError
from connectors.http.auth import OAuth2ClientCredentials
from connectors.http.client import RetryPolicy
from connectors.ingest import Destination, ingest
from connectors.rest import PageNumber, RestSource, RestStream, TokenInBody
from tests.conftest import Warehouse
from tests.connectors.wire import Asked, Line, Wire, answer, chunked, head, wire, zipped

RECORDS = 4
"""On a page."""
USES = 20
"""Requests that a token is good for at least: none expires before it could be of use."""
UNDER_WAY_SECONDS = 0.5
"""How long before the server asks to be left alone a request may have been sent that arrives afterwards."""
SOURCE = RestSource(
    name="chaos",
    base_url=Setting("chaos_url"),
    auth=OAuth2ClientCredentials(Setting("chaos_token_url"), Setting("chaos_client"), Secret("chaos_secret")),
    # The trickling and the silent are given up soon, so that there is time for many; a page takes milliseconds.
    retries=RetryPolicy(
        attempts=16, wait_initial=0.001, wait_max=3, connect_timeout=5, read_timeout=0.4, total_timeout=0.8
    ),
    streams=(
        RestStream(
            name="things",
            path="/things",
            records="data",
            pages=TokenInBody(token="next", parameter="page"),
            primary_key=("id",),
        ),
    ),
)
AT_ONCE = replace(
    SOURCE,
    streams=(replace(SOURCE.streams[0], pages=PageNumber(start=0, total_pages="pages"), concurrency=4),),
)


def connections(source: Wire) -> EnvironmentConnections:
    return EnvironmentConnections(
        {
            "HEADWATER_CHAOS_URL": source.url,
            "HEADWATER_CHAOS_TOKEN_URL": f"{source.url}/token",
            "HEADWATER_CHAOS_CLIENT": "headwater",
            "HEADWATER_CHAOS_SECRET": "canary-71",
        }
    )


def record(number: int) -> dict[str, object]:
    return {"id": number, "name": f"thïng {number}", "amount": f"{number}.10", "tags": [number, None, "a"]}


def page(number: int, pages: int) -> bytes:
    records = [record(number * RECORDS + place) for place in range(RECORDS)]
    following = number + 1 if number + 1 < pages else None
    return json.dumps({"data": records, "next": following, "pages": pages}, ensure_ascii=False).encode()


class Chaos:
    """The API. What it does to a request, it does to its body as it would have been."""

    def __init__(
        self,
        pages: int,
        share: float,
        seed: int,
        *,
        always: str | None = None,
        clock: timedelta = timedelta(0),
        at_once: bool = False,
    ) -> None:
        self.pages = pages
        self.share = share
        self.random = random.Random(seed)
        self.always = always
        """What happens each time to the last page."""
        self.clock = clock
        """How far the server's clock is ahead."""
        self.served: Counter[str] = Counter()
        self.at_once = at_once
        self.tokens = 0
        self.is_token_good = False
        self.token_uses = 0
        self.held_since = self.held_until = 0.0
        self.early: list[tuple[str, float]] = []
        self.lock = threading.Lock()

    def __call__(self, asked: Asked, line: Line) -> None:
        with self.lock:
            if self.held_since + (UNDER_WAY_SECONDS if self.at_once else 0) < asked.at < self.held_until:
                self.early.append((asked.target, self.held_until - asked.at))
            fault = self.fault(asked)
            self.served[fault or "nothing"] += 1
        if asked.path == "/token":
            self.grant(fault, line)
            return
        with self.lock:
            self.token_uses += 1
            if fault == "expired token" and self.token_uses > USES:
                self.is_token_good = False
            is_let_in = self.is_token_good and asked.headers.get("authorization") == f"Bearer token-{self.tokens}"
        if not is_let_in:
            line.send(answer({"error": "invalid_token"}, 401))
            return
        body = page(int(asked.parameters.get("page", 0)), self.pages)
        if fault is None or fault == "expired token":
            line.send(self.random.choice([answer, chunked, zipped])(body))
        else:
            FAULTS[fault](self, line, body)

    def fault(self, asked: Asked) -> str | None:
        if self.always and asked.parameters.get("page") == str(self.pages - 1):
            return self.always
        if self.random.random() >= self.share:
            return None
        # Those that take a second or so are drawn less often, or nobody could wait for the end.
        slow = self.random.random() < 0.03
        return self.random.choice([fault for fault in FAULTS if (fault in SLOW) == slow])

    def grant(self, fault: str | None, line: Line) -> None:
        if fault is not None and fault != "expired token":
            # As long as a page, so that whatever is done to it spoils it.
            FAULTS[fault](self, line, json.dumps({"access_token": "none of ours", "more": [{"a": "b"}] * 20}).encode())
            return
        with self.lock:
            self.tokens += 1
            self.is_token_good, self.token_uses = True, 0
            token = f"token-{self.tokens}"
        line.send(answer({"access_token": token, "token_type": "Bearer", "expires_in": 3600}))

    def hold(self, line: Line, status: int, seconds: float, **headers: str) -> None:
        """Ask to be left alone, from now on."""
        now = datetime.now(UTC) + self.clock
        with self.lock:
            self.held_since = time.monotonic()
            self.held_until = max(self.held_until, self.held_since + seconds)
        line.send(answer({"error": "slow down"}, status, Date=format_datetime(now, usegmt=True), **headers))

    def until(self, line: Line, status: int, header: str) -> None:
        """The same, until a whole second of the server's clock."""
        now = datetime.now(UTC) + self.clock
        at = now.replace(microsecond=0) + timedelta(seconds=2)
        value = format_datetime(at, usegmt=True) if header == "Retry-After" else str(int(at.timestamp()))
        more = {"X-RateLimit-Remaining": "0"} if header != "Retry-After" else {}
        self.hold(line, status, (at - now).total_seconds(), **{header: value}, **more)


def _cut(line: Line, whole: bytes, at: float) -> None:
    line.send(whole[: int(len(whole) * at)])
    line.hang_up()


def _reset(line: Line, data: bytes) -> None:
    line.send(data)
    line.reset()


Fault = Callable[[Chaos, Line, bytes], None]
FAULTS: dict[str, Fault] = {
    "500": lambda _, line, body: line.send(answer({"error": "oops"}, 500)),
    "502": lambda _, line, body: line.send(answer(b"<html>Bad gateway", 502, Content_Type="text/html")),
    "504 without end": lambda _, line, body: _cut(line, answer(b"Gateway timeout", 504), 0.9),
    "429 for a moment": lambda chaos, line, body: chaos.hold(line, 429, 0.01, Retry_After="0.01"),
    "503, left alone for a second": lambda chaos, line, body: chaos.hold(line, 503, 1, Retry_After="1"),
    "503, left alone until then": lambda chaos, line, body: chaos.until(line, 503, "Retry-After"),
    "429, left alone until then": lambda chaos, line, body: chaos.until(line, 429, "Retry-After"),
    "403, limit used up": lambda chaos, line, body: chaos.until(line, 403, "X-RateLimit-Reset"),
    "reset at once": lambda _, line, body: line.reset(),
    "reset in the head": lambda _, line, body: _reset(line, answer(body)[:30]),
    "reset in the body": lambda _, line, body: _reset(line, answer(body)[:-20]),
    "closed at once": lambda _, line, body: line.hang_up(),
    "cut in the head": lambda _, line, body: _cut(line, answer(body), 0.05),
    "cut in the body": lambda chaos, line, body: _cut(line, answer(body), chaos.random.uniform(0.3, 0.99)),
    "cut in the chunks": lambda chaos, line, body: _cut(line, chunked(body), chaos.random.uniform(0.3, 0.99)),
    "cut before its length is counted": lambda _, line, body: line.send(answer(body[:-1])),
    "cut without a length": lambda _, line, body: _cut(line, head() + body, 0.99),
    "cut below its gzip": lambda chaos, line, body: line.send(
        answer(gzip.compress(body)[: -chaos.random.randint(1, 40)], Content_Encoding="gzip")
    ),
    "bad gzip": lambda _, line, body: line.send(answer(body, Content_Encoding="gzip")),
    "web page": lambda _, line, body: line.send(answer(b"Please log in", Content_Type="text/html")),
    "web page in disguise": lambda _, line, body: line.send(answer(b"<!doctype html><title>Log in</title>")),
    "malformed": lambda _, line, body: line.send(answer(body.replace(b"}, {", b"} {"))),
    "nothing at all": lambda _, line, body: line.send(answer(b"")),
    "something else": lambda _, line, body: line.send(answer({"status": "busy"})),
    "nested without end": lambda _, line, body: line.send(answer(b"[" * 100_000)),
    "no HTTP": lambda _, line, body: _cut(line, b"SSH-2.0-OpenSSH_9.6\r\n", 1),
    "silence": lambda _, line, body: time.sleep(0.6),
    "trickling head": lambda _, line, body: line.drip(answer(body), 0.02),
    "trickling body": lambda _, line, body: (line.send(head(Content_Length=len(body))), line.drip(body, 0.02)),  # type: ignore[func-returns-value]
    "expired token": lambda *_: None,
}
SLOW = {
    name for name in FAULTS if "left alone" in name or "used up" in name or "trickling" in name or name == "silence"
}


def load(source: RestSource, chaos: Chaos, destination: Destination) -> Wire:
    with wire(chaos) as served:
        ingest(source, source.streams[0], connections(served), destination)
    return served


@pytest.mark.parametrize(
    ("source", "pages", "seed", "clock"),
    [
        pytest.param(SOURCE, 200, 1, timedelta(hours=2), id="one after the other"),
        pytest.param(AT_ONCE, 200, 2, timedelta(0), id="at once"),
        pytest.param(SOURCE, 10_000, 3, timedelta(days=-3), marks=pytest.mark.chaos, id="many, one after the other"),
        pytest.param(AT_ONCE, 10_000, 4, timedelta(hours=2), marks=pytest.mark.chaos, id="many at once"),
    ],
)
def test_all_that_an_unreliable_api_has_is_loaded_and_it_is_left_alone_when_it_asks(
    source: RestSource,
    pages: int,
    seed: int,
    clock: timedelta,
    warehouse: Warehouse,
    destination: Destination,
    record_property: Callable[[str, object], None],
) -> None:
    chaos = Chaos(pages, 0.3, seed, clock=clock, at_once=source is AT_ONCE)
    served = load(source, chaos, destination)
    record_property("requests", len(served.asked))
    record_property("faults", dict(chaos.served))
    rows = warehouse.query("select id, name, amount, tags from raw_chaos.things order by id")
    assert rows == [tuple(record(number).values()) for number in range(pages * RECORDS)]
    assert chaos.early == []
    assert len(served.asked) <= 2 * pages
    assert sum(chaos.served.values()) - chaos.served["nothing"] > 0.2 * len(served.asked)
    assert pages < 10_000 or set(FAULTS) < set(chaos.served)


def spoilt() -> list[object]:
    """The faults that spoil an answer at once; in the short form those that only a look at the whole body finds."""
    deep = (
        "cut before its length is counted",
        "cut without a length",
        "cut below its gzip",
        "web page",
        "something else",
    )
    return [
        pytest.param(name, marks=() if name in deep else pytest.mark.chaos)
        for name in FAULTS
        if name not in SLOW and name != "expired token"
    ]


@pytest.mark.parametrize("fault", spoilt())
def test_what_is_no_page_never_lands(
    fault: str, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    """The last of two pages is always spoilt in the same way."""
    chaos = Chaos(2, 0, 1, always=fault)
    source = replace(SOURCE, retries=replace(SOURCE.retries, attempts=3))
    with pytest.raises((MalformedResponseError, SourceUnavailableError)):
        load(source, chaos, destination)
    assert chaos.served[fault] == 3
    assert warehouse.query("select status, rows_extracted from ops.loads") == [("failed", None)]
    assert warehouse.query("select from pg_tables where schemaname = 'raw_chaos'") == []
    assert not [path for path in landing_folder.rglob("*") if "manifest" in path.name]


def test_an_api_that_fails_more_often_than_not_is_given_up(warehouse: Warehouse, destination: Destination) -> None:
    chaos = Chaos(500, 0.7, 1)
    chaos.fault = lambda _: "500" if chaos.random.random() < 0.7 else None  # type: ignore[method-assign]
    with wire(chaos) as served, pytest.raises(SourceUnavailableError, match="failures in .* requests of this load"):
        ingest(SOURCE, SOURCE.streams[0], connections(served), destination)
    assert len(served.asked) < 60
