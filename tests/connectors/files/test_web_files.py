"""Files on a web server: new and changed ones alone, whole or not at all, through breaks; no key in any message."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from connectors.connections import EnvironmentConnections, ObjectStore, Secret
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.files import CsvStream, FilesSource, OnBadFile
from connectors.http.auth import ApiKeyHeader
from connectors.http.client import RetryPolicy
from connectors.ingest import Destination, ingest
from connectors.model import Chunk, ExtractRequest, Window
from tests.conftest import Warehouse
from tests.connectors.examples import counts, raw

IMPATIENT = RetryPolicy(attempts=3, wait_initial=0.01, wait_max=0.05, connect_timeout=1, read_timeout=1)
TABLE = "raw_met.t"


@dataclass(slots=True)
class Page:
    """What is at a path."""

    body: bytes
    etag: str | None = '"1"'
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Said to the next GETs instead of giving the file."""
    breaks: list[int] = field(default_factory=list)
    """After how many bytes of the next answers to hang up."""
    knows_ranges: bool = True


@dataclass(slots=True)
class Web:
    """A server on loopback."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and query, and what was asked for of it."""
    knows_head: bool = True
    wants: dict[str, str] = field(default_factory=dict)
    """Headers that a request needs to have."""

    def gets(self, path: str) -> list[str | None]:
        return [part for method, asked, part in self.requests if (method, asked) == ("GET", path)]


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            served.requests.append((self.command, self.path, self.headers.get("Range")))
            page = served.pages.get(self.path)
            if not with_body and not served.knows_head:
                self._say(405)
            elif any(self.headers.get(name) != value for name, value in served.wants.items()):
                self._say(401)
            elif page is None:
                self._say(404)
            elif with_body and page.statuses:
                self._say(page.statuses.pop(0), {"Location": "http://127.0.0.1:1/elsewhere", **page.headers})
            else:
                self._give(page, with_body=with_body)

        def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _give(self, page: Page, *, with_body: bool) -> None:
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if page.knows_ranges else 0
            body = page.body[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
            if page.etag:
                self.send_header("ETag", page.etag)
            for name, value in {"Content-Length": str(len(body)), **page.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if with_body:
                end = page.breaks.pop(0) if page.breaks else len(body)
                with suppress(OSError):
                    self.wfile.write(body[:end])
                self.close_connection = end < len(body) or "Content-Length" in page.headers

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def load(web: Web, destination: Destination, *, window: Window | None = None, **definition: Any) -> tuple[int, ...]:
    stream = CsvStream(**{"name": "t", "primary_key": ("id",), "pattern": "out/t.csv", **definition})
    source = FilesSource(
        name="met",
        root=ObjectStore("met"),
        streams=(stream,),
        settle_seconds=0,
        auth=ApiKeyHeader("X-Key", Secret("met_key")),
        retries=IMPATIENT,
    )
    where = EnvironmentConnections({"HEADWATER_MET_URL": f"{web.url}/data/", "HEADWATER_MET_KEY": "sesame"})
    return counts(ingest(source, stream, where, destination, window=window)[-1])


def test_a_file_is_fetched_once_and_again_when_its_etag_changes(
    web: Web, warehouse: Warehouse, destination: Destination
) -> None:
    web.wants = {"X-Key": "sesame", "Accept-Encoding": "identity"}
    page = web.pages["/data/out/t.csv"] = Page(b"id,v\n1,x\n")
    assert load(web, destination)[:2] == (1, 1)
    assert load(web, destination)[0] == 0
    assert len(web.gets("/data/out/t.csv")) == 1, "asked by HEAD alone"
    page.body, page.etag = b"id,v\n1,y\n2,z\n", '"2"'
    assert load(web, destination) == (2, 1, 1, 0, 0, 0)
    assert raw(warehouse, "id, v", TABLE) == [("1", "y"), ("2", "z")]


@pytest.mark.parametrize("knows_head", [True, False])
@pytest.mark.parametrize("versioned_by", ["time", "content"])
def test_without_an_etag_a_file_is_told_by_its_time_or_its_content(
    web: Web, destination: Destination, versioned_by: str, knows_head: bool
) -> None:
    web.knows_head = knows_head
    page = web.pages["/data/out/t.csv"] = Page(b"id,v\n1,x\n", etag=None)
    if versioned_by == "time":
        page.headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert load(web, destination)[:2] == (1, 1)
    assert load(web, destination)[0] == 0
    page.body = b"id,v\n1,y\n"
    if versioned_by == "time":
        assert load(web, destination)[0] == 0
        page.headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:01 GMT"
    assert load(web, destination) == (1, 0, 1, 0, 0, 0)


def test_dates_name_the_files_of_the_last_days_or_of_a_window(
    web: Web, warehouse: Warehouse, destination: Destination
) -> None:
    today = datetime.now(UTC).date()
    for back in (0, 2, 9, 40):
        day = today - timedelta(days=back)
        web.pages[f"/data/{day}.csv?part=a%20b"] = Page(f"id,at\n{back},{day}\n".encode())
    dated = {"pattern": "{date}.csv?part=a%20b", "event_time": "at", "days": 10, "columns": {"at": "date"}}
    assert load(web, destination, **dated)[:2] == (3, 3)
    heads = [path for method, path, _ in web.requests if method == "HEAD"]
    assert len(heads) == 11, "ten days, and tomorrow, which it is already in the east"
    start = datetime.combine(today - timedelta(days=40), datetime.min.time(), UTC)
    assert load(web, destination, window=Window(start, start + timedelta(days=1)), **dated)[:2] == (1, 1)
    assert len(raw(warehouse, "id", TABLE)) == 4


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_body_that_breaks_off_is_taken_up_again(
    web: Web, warehouse: Warehouse, destination: Destination, knows_ranges: bool
) -> None:
    lines = b"".join(b"%d,%s\n" % (number, b"x" * 50) for number in range(5000))
    web.pages["/data/out/t.csv"] = Page(b"id,v\n" + lines, breaks=[100_000, 120_000], knows_ranges=knows_ranges)
    assert load(web, destination)[:2] == (5000, 5000)
    assert raw(warehouse, "count(*), sum(length(v))", TABLE) == [(5000, 250_000)]
    asked = web.gets("/data/out/t.csv")
    assert len(asked) == 3
    assert asked[0] is None
    assert all(part is not None and part.startswith("bytes=") for part in asked[1:])


def test_a_body_that_always_breaks_off_never_lands(web: Web, warehouse: Warehouse, destination: Destination) -> None:
    web.pages["/data/out/t.csv"] = Page(b"id,v\n" + b"1,x\n" * 1000, breaks=[10, 0, 0, 0, 0])
    with pytest.raises(SourceUnavailableError, match="/data/out/t.csv broke off"):
        load(web, destination)
    assert warehouse.query("select count(*) from pg_tables where schemaname like 'raw%'") == [(0,)]


def extracted(web: Web) -> Iterator[Chunk]:
    """The chunks of `out/t.csv`, which are fetched as they are taken."""
    stream = CsvStream(name="t", primary_key=("id",), pattern="out/t.csv")
    source = FilesSource(name="met", root=ObjectStore("met"), streams=(stream,), retries=IMPATIENT, settle_seconds=0)
    where = EnvironmentConnections({"HEADWATER_MET_URL": f"{web.url}/data"})
    return source.extract(stream, ExtractRequest(), where).chunks


@pytest.mark.parametrize("etag", ['W/"1"', None])
def test_what_cannot_be_told_from_another_version_is_not_put_together(web: Web, etag: str | None) -> None:
    """Also where the lines that came are whole: the body's length says that more was to come."""
    content = b"id,v\n" + b"1,x\n" * 50_000
    page = web.pages["/data/out/t.csv"] = Page(content, etag=etag)
    for end in (70_001, len(content) - 4, len(content) - 1):
        chunks = extracted(web)
        page.breaks = [end]
        with pytest.raises(SourceUnavailableError, match="/data/out/t.csv broke off"):
            list(chunks)


def test_a_file_that_changes_between_two_parts_is_not_put_together(web: Web) -> None:
    page = web.pages["/data/out/t.csv"] = Page(b"id,v\n" + b"1,x\n" * 100_000, breaks=[200_000])
    chunks = extracted(web)
    next(chunks)
    page.etag = '"2"'
    with pytest.raises(SourceUnavailableError, match="out/t.csv changed while it was read"):
        list(chunks)


@pytest.mark.parametrize(
    ("page", "kind", "what"),
    [
        (Page(b"", headers={"Content-Length": ""}), MalformedResponseError, "comes without a length"),
        (Page(b"<html>", headers={"Content-Type": "text/html"}), MalformedResponseError, "is a web page, no file"),
        (Page(b"", statuses=[302] * 9), ConfigurationError, "answered 302. The source redirects"),
        (Page(b"", statuses=[403] * 9), ConfigurationError, "answered 403"),
        (Page(b"", statuses=[500] * 9), SourceUnavailableError, "answered 500"),
        (Page(b"", statuses=[429] * 9, headers={"Retry-After": "3600"}), ConfigurationError, "answered 429"),
        (Page(gzip.compress(b"id\n1\n"), headers={"Content-Encoding": "gzip"}), MalformedResponseError, "is gzip"),
    ],
)
def test_what_is_no_file_is_refused(
    web: Web, warehouse: Warehouse, destination: Destination, page: Page, kind: type[HeadwaterError], what: str
) -> None:
    web.pages["/data/out/t.csv"] = page
    with pytest.raises(kind) as caught:
        load(web, destination)
    assert what in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert warehouse.query("select count(*) from pg_tables where schemaname like 'raw%'") == [(0,)]


def test_a_server_that_fails_for_a_moment_is_asked_again(web: Web, destination: Destination) -> None:
    web.pages["/data/out/t.csv"] = Page(b"id\n1\n", statuses=[503, 500])
    assert load(web, destination)[:2] == (1, 1)


def test_files_that_cannot_be_known_or_found_are_named(web: Web, destination: Destination) -> None:
    with pytest.raises(ConfigurationError, match="a web server does not list them"):
        load(web, destination, pattern="*.csv")
    with pytest.raises(ConfigurationError, match="Name the path, or put {date} into it and give the stream `days`"):
        load(web, destination, pattern="{date}.csv")
    with pytest.raises(ConfigurationError, match="There is no http://127.0.0.1:.*/data/out/t.csv"):
        load(web, destination, pattern="out/t.csv?token=hidden")


def test_a_bad_file_on_the_web_is_set_aside(web: Web, warehouse: Warehouse, destination: Destination) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    web.pages[f"/data/{yesterday}.csv.gz"] = Page(gzip.compress(b"id\n1\n")[:-4])
    web.pages[f"/data/{today}.csv.gz"] = Page(gzip.compress(b"id\n2\n"))
    dated = {"pattern": "{date}.csv.gz", "days": 3, "on_bad_file": OnBadFile.QUARANTINE}
    assert load(web, destination, **dated) == (2, 1, 0, 0, 0, 1)
    assert load(web, destination, **dated)[0] == 0
    web.pages[f"/data/{yesterday}.csv.gz"] = Page(gzip.compress(b"id\n1\n"), etag='"mended"')
    assert load(web, destination, **dated)[:2] == (1, 1)


def test_a_file_that_was_just_written_is_left_to_the_next_run(web: Web, destination: Destination) -> None:
    page = Page(b"id\n1\n", headers={"Last-Modified": format_datetime(datetime.now(UTC), usegmt=True)})
    web.pages["/data/out/t.csv"] = page
    stream = CsvStream(name="t", primary_key=("id",), pattern="out/t.csv")
    source = FilesSource(name="met", root=ObjectStore("met"), streams=(stream,), retries=IMPATIENT, settle_seconds=60)
    where = EnvironmentConnections({"HEADWATER_MET_URL": f"{web.url}/data"})
    assert counts(ingest(source, stream, where, destination)[-1])[0] == 0
    page.headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert counts(ingest(source, stream, where, destination)[-1])[:2] == (1, 1)
