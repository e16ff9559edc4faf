"""Read paged JSON over HTTP: the records leave as the source wrote them, one a line.

A body is taken apart only as far as its records; their text is not re-encoded, so a number keeps all its digits.
While one page is landed and loaded, the next is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import httpx
import msgspec

from connectors.addresses import parse_origin
from connectors.auth import (
    ApiKeyHeader,
    ApiKeyQuery,
    Auth,
    BasicAuth,
    BearerToken,
    ClientAuthentication,
    OAuth2ClientCredentials,
)
from connectors.connections import Connections, Requirement, Setting
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError
from connectors.http import Answer, HttpClient, Limits, Request, RetryPolicy
from connectors.lenient_json import take_apart_leniently
from connectors.model import Chunk, Extraction, ExtractRequest, LandingFormat, Stream, check_source, check_window

__all__ = [
    "ApiKeyHeader",
    "ApiKeyQuery",
    "BasicAuth",
    "BearerToken",
    "ClientAuthentication",
    "Limits",
    "OAuth2ClientCredentials",
    "RestSource",
    "RestStream",
    "RetryPolicy",
    "TokenInBody",
]

_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | int | None)


class Pages(Protocol):
    """How to get from one page to the next."""

    def following(self, envelope: Mapping[str, msgspec.Raw], records: int) -> Mapping[str, str] | None:
        """The parameters that the next request adds to the first one's, or None after the last page."""
        ...


@dataclass(frozen=True, slots=True)
class TokenInBody:
    """The body names a token (a keyset, a cursor) that the next request sends back; null or absent at the end."""

    token: str
    parameter: str

    def following(self, envelope: Mapping[str, msgspec.Raw], records: int) -> Mapping[str, str] | None:  # noqa: ARG002 - part of the protocol, for offset pages
        raw = envelope.get(self.token)
        token = _TEXT.decode(raw) if raw is not None else None
        return {self.parameter: str(token)} if token not in (None, "") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestStream(Stream):
    """A stream of a JSON API."""

    path: str
    records: str = ""
    """Where the list of records is in the body, dots between names; empty when the body is the list."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, page size included."""
    pages: Pages | None = None
    since_parameter: str | None = None
    """The parameter that takes the watermark, inclusive."""
    window_parameters: tuple[str, str] | None = None
    """The two parameters that take a window's start (inclusive) and end (exclusive)."""

    def __post_init__(self) -> None:
        # Slotted dataclasses are made anew by the decorator, so a bare super() would name the discarded class.
        Stream.__post_init__(self)
        if (self.cursor is None) != (self.since_parameter is None):
            raise ConfigurationError(
                f"Stream `{self.name}` has only one of cursor and since_parameter.",
                remedy="An incremental API stream needs both: the field, and the parameter that filters by it.",
            )
        if (self.event_time is None) != (self.window_parameters is None):
            raise ConfigurationError(
                f"Stream `{self.name}` has only one of event_time and window_parameters.",
                remedy="A stream read by windows needs both: the column, and the two parameters that filter by it.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSource:
    """An HTTP API with JSON bodies."""

    name: str
    base_url: Setting
    streams: tuple[RestStream, ...]
    auth: Auth | None = None
    """How to be let in: one of the kinds in `connectors.auth`."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    limits: Limits = field(default_factory=Limits)
    allowed_origins: tuple[str, ...] = ()
    """Other origins (https://files.example.com) that links and redirects may lead to, without credentials."""
    allow_private_addresses: bool = False
    """Whether names may lead to this machine, its network, or another that is not of the open internet. An address
    that is written as such (http://10.0.0.7, http://localhost:8000) needs no leave."""
    transport: httpx.BaseTransport | None = None

    def __post_init__(self) -> None:
        for origin in self.allowed_origins:
            parse_origin(origin)
        check_source(self.name, self.streams)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.base_url, *(self.auth.requirements if self.auth else ()))

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        if not isinstance(stream, RestStream):
            raise TypeError(f"{self.name} reads RestStream, not {type(stream).__name__}")
        parameters = {**stream.parameters, **_bounds(stream, request)}
        return Extraction(LandingFormat.JSONL, _chunks(self._client(connections), stream, parameters))

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        """Start reading the keys; see `connectors.model.KeySource.keys`. All pages are read, without any bound.

        Pages are no snapshot: where the API counts pages by offset, a row can slip between two of them while another
        is deleted. It is taken for deleted then, until the next comparison finds it again.
        """
        if not isinstance(stream, RestStream):
            raise TypeError(f"{self.name} reads RestStream, not {type(stream).__name__}")
        chunks = _chunks(self._client(connections), stream, stream.parameters)
        return Extraction(LandingFormat.JSONL, (_only_keys(chunk, stream.primary_key) for chunk in chunks))

    def _client(self, connections: Connections) -> HttpClient:
        return HttpClient(
            connections.setting(self.base_url),
            credentials=self.auth.credentials(connections) if self.auth else None,
            policy=self.retries,
            limits=self.limits,
            allowed_origins=self.allowed_origins,
            allow_private_addresses=self.allow_private_addresses,
            transport=self.transport,
        )


def _bounds(stream: RestStream, request: ExtractRequest) -> dict[str, str]:
    if request.window is not None:
        check_window(stream, request.window)
        assert stream.window_parameters is not None  # noqa: S101 - it comes with event_time
        start, end = stream.window_parameters
        return {start: _iso(request.window.start), end: _iso(request.window.end)}
    if stream.cursor is None or stream.since_parameter is None:
        return {}
    if request.watermark is None:
        return {stream.since_parameter: stream.cursor.initial} if stream.cursor.initial else {}
    return {stream.since_parameter: _since(request.watermark, stream)}


def _since(watermark: str, stream: RestStream) -> str:
    """The watermark less the lag, in ISO 8601 where it is an instant; otherwise as it is."""
    assert stream.cursor is not None  # noqa: S101 - the caller has looked
    try:
        instant = datetime.fromisoformat(watermark)
    except ValueError:
        if stream.cursor.lag:
            raise ConfigurationError(
                f"The cursor `{stream.cursor.field}` has a lag but its position `{watermark}` is no instant.",
                remedy="Drop the lag, or declare the column as timestamptz.",
                stream=stream.name,
            ) from None
        return watermark
    return _iso(instant - stream.cursor.lag)


def _iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _chunks(client: HttpClient, stream: RestStream, parameters: Mapping[str, str]) -> Iterator[Chunk]:
    def reader(answer: Answer) -> tuple[Mapping[str, msgspec.Raw], list[msgspec.Raw]]:
        return _take_apart(answer.body, stream)

    # The client is left first: it gives up what waits in the thread.
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead, client:
        seen: set[tuple[tuple[str, str], ...]] = set()
        page = ahead.submit(client.read, Request(stream.path, parameters), reader)
        while True:
            envelope, records = page.result()
            following = stream.pages.following(envelope, len(records)) if stream.pages else None
            if following is not None:
                mark = tuple(sorted(following.items()))
                if mark in seen:
                    raise MalformedResponseError(
                        f"The pages of {stream.path} go in a circle: {dict(mark)} came twice.",
                        remedy="Check the stream's pages against the source's manual.",
                        stream=stream.name,
                    )
                seen.add(mark)
                page = ahead.submit(client.read, Request(stream.path, {**parameters, **following}), reader)
            if records:
                yield Chunk(b"".join(_line(record) for record in records), len(records))
            if following is None:
                return


def _take_apart(body: bytes, stream: RestStream) -> tuple[Mapping[str, msgspec.Raw], list[msgspec.Raw]]:
    """A body as its outermost object (empty when it is a bare list) and its records, each undecoded.

    A record that is nearly JSON (with NaN, or half of a surrogate pair) does not spoil the others: it is taken as it
    is, and goes to quarantine.
    """
    try:
        if not body.isascii():
            body.decode()  # the decoder below does not look inside records
        if not stream.records:
            return {}, _RAW_LIST.decode(body)
        envelope = inner = _RAW_OBJECT.decode(body)
        *parents, last = stream.records.split(".")
        for name in parents:
            inner = _RAW_OBJECT.decode(inner[name])
        return envelope, _RAW_LIST.decode(inner[last])
    except KeyError as missing:
        raise _malformed(stream, f"has no {missing}", body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return take_apart_leniently(body.decode(), stream.records.split(".") if stream.records else [])
        except (ValueError, RecursionError):
            raise _malformed(stream, f"cannot be read ({error})", body) from error


def _malformed(stream: RestStream, what: str, body: bytes) -> HeadwaterError:
    beginning = " ".join(body[:80].decode("utf-8", "replace").split())
    return MalformedResponseError(
        f"A body of {stream.path} {what}; it begins: {beginning}",
        remedy=f"Check the stream's path and records (`{stream.records}`) against the source's manual.",
        stream=stream.name,
    )


def _line(record: msgspec.Raw) -> bytes:
    """A record on one line. JSON strings cannot hold a bare line break, so those found are only layout."""
    line = bytes(record)
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line + b"\n"


def _only_keys(chunk: Chunk, key: tuple[str, ...]) -> Chunk:
    """The records with their key fields alone, each value as received. A record that is no object stays as it is."""
    lines = []
    for line in chunk.data.splitlines():
        try:
            record = _RAW_OBJECT.decode(line)
        except msgspec.DecodeError:
            lines.append(line)
            continue
        fields = [msgspec.json.encode(name) + b":" + bytes(record[name]) for name in key if name in record]
        lines.append(b"{" + b",".join(fields) + b"}")
    return Chunk(b"".join(line + b"\n" for line in lines), chunk.rows)
