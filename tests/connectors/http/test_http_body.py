"""Bodies: whole or not at all, within bounds, and what was asked for."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections, Setting
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError
from connectors.http.body import take_in
from connectors.http.client import HttpClient, Limits, Request, RetryPolicy
from connectors.model import ExtractRequest
from connectors.rest import RestSource, RestStream
from tests.connectors.wire import Asked, Line, answer, chunked, head, wire, zipped

ONCE = RetryPolicy(attempts=1, connect_timeout=1, read_timeout=2)
PAGE = b'{"data": [{"id": 1, "name": "caf\xc3\xa9"}, {"id": 2, "tags": ["a", "b"], "n": 1.50}], "next": null}'
MIB = 1 << 20


def fetch(source_says: bytes, *, accept: str = "application/json", limits: Limits | None = None) -> bytes:
    """What the client makes of an answer after which the source hangs up."""

    def reply(_: Asked, line: Line) -> None:
        line.send(source_says)
        line.hang_up()

    with wire(reply) as source, HttpClient(source.url, policy=ONCE, limits=limits) as client:
        return client.fetch(Request("/", accept=accept)).body


WAYS = {
    "with its length": lambda body: answer(body),
    "in chunks": lambda body: chunked(body),
    "compressed": lambda body: zipped(body),
    "in several compressed parts": lambda body: answer(
        gzip.compress(body[:20]) + gzip.compress(body[20:]), Content_Encoding="gzip"
    ),
    "until the connection ends": lambda body: head() + body,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_page_is_read_in_whatever_way_it_is_sent(way: str) -> None:
    assert fetch(WAYS[way](PAGE)) == PAGE


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_is_cut_at_any_byte_is_never_accepted(way: str) -> None:
    """Through the public door: some cuts only a reader of JSON can see. First the answer is cut, then the body below
    an answer that is whole, as something in between may do that counts anew what it lets through."""
    whole = WAYS[way](PAGE)
    says = [whole[:cut] for cut in range(len(whole))]
    if way == "compressed":
        body = gzip.compress(PAGE)
        says += [answer(body[:cut], Content_Encoding="gzip") for cut in range(len(body))]
    stream = RestStream(name="things", path="/", records="data", primary_key=("id",))
    source = RestSource(name="api", base_url=Setting("api_url"), streams=(stream,), retries=ONCE)

    def reply(_: Asked, line: Line) -> None:
        line.send(says[len(served.asked) - 1])
        line.hang_up()

    with wire(reply) as served:
        connections = EnvironmentConnections({"HEADWATER_API_URL": served.url})
        for cut in says:
            extraction = source.extract(stream, ExtractRequest(), connections)
            with pytest.raises(HeadwaterError) as caught:
                list(extraction.chunks)
            assert not isinstance(caught.value, ConfigurationError), cut
    assert len(served.asked) == len(says)


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans(), st.integers(1, 20))
def test_any_body_is_taken_in_as_it_was_or_not_at_all(body: bytes, block: int, is_zipped: bool, lost: int) -> None:
    sent = gzip.compress(body) if is_zipped else body
    headers = {"content-encoding": "gzip"} if is_zipped else {}

    def blocks(data: bytes) -> list[bytes]:
        return [data[start : start + block] for start in range(0, len(data), block)]

    assert take_in(blocks(sent), headers, 300, "x") == body
    if is_zipped:
        with pytest.raises(MalformedResponseError):
            take_in(blocks(sent[:-lost]), headers, 300, "x")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (answer(b"no gzip", Content_Encoding="gzip"), "no whole gzip"),
        (answer(b"", Content_Encoding="gzip"), "no whole gzip"),
        (answer(gzip.compress(PAGE) + b"and more", Content_Encoding="gzip"), "no whole gzip"),
        (answer(gzip.compress(PAGE)[:-8] + bytes(8), Content_Encoding="gzip"), "no whole gzip"),
        (answer(zlib.compress(PAGE), Content_Encoding="deflate"), "compressed as `deflate`"),
        (answer(PAGE, Content_Encoding="br"), "compressed as `br`"),
        (head(Content_Length="7, 8") + PAGE, "Content-Length"),
        (head(Transfer_Encoding="chunked") + b"zz\r\n", "broke off"),
    ],
)
def test_a_damaged_body_is_refused(says: bytes, why: str) -> None:
    with pytest.raises(HeadwaterError, match=why):
        fetch(says)


@pytest.mark.parametrize(
    "says",
    [
        answer(b"<!DOCTYPE html><html><body>Please log in", Content_Type="text/html; charset=utf-8"),
        answer(b"\n  <html lang=en>", Content_Type="application/json"),
        answer(b"\xef\xbb\xbf<HTML>"),
        answer(b"Please log in", Content_Type="text/html"),
        answer(b"", Content_Type="text/html"),
        zipped(b"<html>"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/csv, */*;q=0.1", "application/x-ndjson"])
def test_a_web_page_with_status_200_is_refused(says: bytes, accept: str) -> None:
    with pytest.raises(MalformedResponseError, match="answered with a web page"):
        fetch(says, accept=accept)


def test_xml_is_no_json() -> None:
    with pytest.raises(MalformedResponseError, match="answered with a web page"):
        fetch(answer(b"<error>quota</error>"))


@pytest.mark.parametrize(
    ("body", "accept"),
    [(b' [{"a": "<html>"}]', "application/json"), (b'{"a": 1}', "application/json, text/plain;q=0.5")],
)
def test_json_that_its_server_calls_a_web_page_is_read(body: bytes, accept: str) -> None:
    assert fetch(answer(body, Content_Type="text/html"), accept=accept) == body


def test_a_table_may_begin_with_a_bracket() -> None:
    assert fetch(answer(b"<b>,a\n1,2\n"), accept="text/csv") == b"<b>,a\n1,2\n"


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson, application/jsonl;q=0.9"])
def test_lines_whose_end_cannot_be_told_are_refused(accept: str) -> None:
    lines = b"1,2\n3,4\n"
    with pytest.raises(ConfigurationError, match="does not say how long it is"):
        fetch(head() + lines, accept=accept)
    assert fetch(answer(lines), accept=accept) == lines
    assert fetch(chunked(lines), accept=accept) == lines
    assert fetch(head(Content_Encoding="gzip") + gzip.compress(lines), accept=accept) == lines


@pytest.mark.parametrize("way", [way for way in WAYS if way != "in several compressed parts"])
def test_a_body_beyond_the_limit_is_refused_and_one_at_it_is_not(way: str) -> None:
    assert fetch(WAYS[way](PAGE), limits=Limits(max_body_bytes=len(PAGE))) == PAGE
    with pytest.raises(ConfigurationError, match=f"larger than {len(PAGE) - 1} bytes"):
        fetch(WAYS[way](PAGE), limits=Limits(max_body_bytes=len(PAGE) - 1))


@pytest.mark.parametrize("parts", [1, 64])
def test_a_bomb_is_given_up_before_memory_grows(parts: int) -> None:
    """A quarter of a gibibyte of zeros, as one stream and as many."""
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    part = b"".join(compressor.compress(bytes(MIB)) for _ in range(256 // parts)) + compressor.flush()
    says = answer(part * parts, Content_Encoding="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError, match="larger than 2,097,152 bytes"):
            fetch(says, limits=Limits(max_body_bytes=2 * MIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


def test_a_body_without_end_is_given_up() -> None:
    def reply(_: Asked, line: Line) -> None:
        line.send(head(Transfer_Encoding="chunked"))
        while True:
            line.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    limits = Limits(max_body_bytes=3 * MIB)
    with (
        wire(reply) as source,
        HttpClient(source.url, policy=ONCE, limits=limits) as client,
        pytest.raises(ConfigurationError, match="larger than 3,145,728 bytes"),
    ):
        client.fetch(Request("/"))


@pytest.mark.parametrize("depth", [2_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_body_that_is_nested_without_measure_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    stream = RestStream(name="things", path="/", records="data", primary_key=("id",))
    source = RestSource(name="api", base_url=Setting("api_url"), streams=(stream,), retries=ONCE)
    says = answer(b'{"data": [' + opening * depth + b"1" + closing * depth + b"]}")
    with wire(lambda _, line: line.send(says)) as served:
        extraction = source.extract(stream, ExtractRequest(), EnvironmentConnections({"HEADWATER_API_URL": served.url}))
        with pytest.raises(MalformedResponseError):
            list(extraction.chunks)
