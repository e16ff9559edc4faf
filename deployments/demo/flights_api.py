"""The flights API: pages of flights by time of change, over HTTP on loopback.

    python -m deployments.demo.flights_api --port 8711 --home .headwater

`GET /health` is open. `GET /v1/flights` wants the key of HEADWATER_FLIGHTS_API_KEY in the header `X-API-Key`, and takes

    updated_since                  only flights changed at or after this instant
    scheduled_from, scheduled_to   only flights scheduled to depart in this half-open range
    limit                          1 to 10000 flights a page, 1000 if not said
    after                          the `next` of the page before

It answers `{"data": [...], "next": <token or null>, "as_of": <instant>}`, ordered by (updated_at, id). Whoever follows
`next` to its end sees every flight at least once, also when flights change meanwhile: those come again, later.

The server is the standard library's: a page is one write of bytes that are ready, so a framework would add its start-up
time and nothing else.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from deployments.demo import clock, dataset
from deployments.demo.flights import Flights, Page, Window, event

DEFAULT_LIMIT = 1_000
LARGEST_LIMIT = 10_000
KEY_VARIABLE = "HEADWATER_FLIGHTS_API_KEY"
_PARAMETERS = ("updated_since", "scheduled_from", "scheduled_to", "limit", "after")
_BEFORE_EVERYTHING = event(-(2**40), 0)
_EVER = 2**40
_TOKEN = re.compile(r"e([0-9]{1,30})", re.ASCII)


class RequestError(Exception):
    """The request gets this status and message instead of data."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Query:
    """What a request for flights asks: events after `after`, at most `limit`, scheduled in `window` if given."""

    after: int
    limit: int
    window: Window | None


def parse_query(text: str) -> Query:
    """Read a query string; RequestError (400) says what is wrong with it."""
    pairs = parse_qsl(text, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise _bad("Each parameter may be given once.")
    if unknown := given.keys() - set(_PARAMETERS):
        raise _bad(f"Unknown parameter `{min(unknown)}`. Known are: {', '.join(_PARAMETERS)}.")
    after = _BEFORE_EVERYTHING
    if "updated_since" in given:
        after = event(_instant(given, "updated_since"), 0) - 1
    if "after" in given:
        after = max(after, _read_token(given["after"]))
    return Query(after, _limit(given), _window(given))


class Server(ThreadingHTTPServer):
    """The listening server: one thread per connection, all reading the same flights."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, *, flights: Flights, home: Path, key: str, host: str = "127.0.0.1") -> None:
        self.flights = flights
        self.clock = clock.CachedClock(home)
        self.key = key
        super().__init__((host, port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "flights"
    # Head and body are two writes; without this the second may wait for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    timeout = 120

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            if url.path == "/health":
                self._answer(HTTPStatus.OK, json.dumps({"status": "ok", "flights": len(self.server.flights)}).encode())
            elif url.path == "/v1/flights":
                self._require_key()
                self._answer(HTTPStatus.OK, self._flights(parse_query(url.query)))
            else:
                raise RequestError(HTTPStatus.NOT_FOUND, f"There is nothing at {url.path}. Try /v1/flights.")
        except RequestError as error:
            self.send_error(error.status, error.message)

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002 (the base class passes it)
    ) -> None:
        """Errors as JSON, those of the base class (bad method, bad request line) included."""
        self.close_connection = True
        text = message or HTTPStatus(code).phrase
        self._answer(HTTPStatus(code), json.dumps({"error": {"status": code, "message": text}}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Nothing per request."""

    def _flights(self, query: Query) -> bytes:
        now = self.server.clock.now()
        page = self.server.flights.page(
            now=int(now.timestamp()), after=query.after, limit=query.limit, window=query.window
        )
        return _encode(page, as_of=clock.iso(now))

    def _require_key(self) -> None:
        given = self.headers.get("X-API-Key", "")
        if not hmac.compare_digest(given.encode(), self.server.key.encode()):
            raise RequestError(HTTPStatus.UNAUTHORIZED, "Send the API key in the header X-API-Key.")

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="The demo's flights API.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True, help="the state folder, which holds the demo's clock")
    arguments = parser.parse_args()
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        sys.exit(f"The flights API has no key. Set {KEY_VARIABLE}.")
    server = Server(arguments.port, flights=Flights(dataset.text("flights")), home=arguments.home, key=key)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def _encode(page: Page, *, as_of: str) -> bytes:
    following = "null" if page.last is None else f'"{_token(page.last)}"'
    return b'{"data":[%b],"next":%b,"as_of":"%b"}' % (b",".join(page.records), following.encode(), as_of.encode())


def _token(last: int) -> str:
    return base64.urlsafe_b64encode(f"e{last}".encode()).decode().rstrip("=")


def _read_token(text: str) -> int:
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        decoded = ""
    match = _TOKEN.fullmatch(decoded)
    # Compared with its own rewriting, because the decoder overlooks characters it does not know.
    if match is None or _token(int(match[1])) != text:
        raise _bad("`after` is not a token of this API. Send the `next` of the page before, unchanged.")
    return int(match[1])


def _limit(given: Mapping[str, str]) -> int:
    text = given.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= LARGEST_LIMIT:
        raise _bad(f"`limit` is `{text}`; it must be a whole number from 1 to {LARGEST_LIMIT}.")
    return int(text)


def _window(given: Mapping[str, str]) -> Window | None:
    if not given.keys() & {"scheduled_from", "scheduled_to"}:
        return None
    window = Window(_instant(given, "scheduled_from", -_EVER), _instant(given, "scheduled_to", _EVER))
    if window.start > window.end:
        raise _bad("`scheduled_from` is later than `scheduled_to`.")
    return window


def _instant(given: Mapping[str, str], name: str, default: int = 0) -> int:
    """The first whole second at or after the instant: all events happen on whole seconds."""
    if name not in given:
        return default
    try:
        instant = datetime.fromisoformat(given[name])
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise _bad(f"`{name}` is `{given[name]}`; it must be an instant such as 2013-06-01T00:00:00Z (a + as %2B).")
    return math.ceil(instant.timestamp())


def _bad(message: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, message)


if __name__ == "__main__":
    main()
