"""An HTTP API as a source: which streams it has, and how one is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import httpx

from connectors.connections import Connections, Requirement, Setting
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.http.addresses import parse_origin
from connectors.http.auth import Auth
from connectors.http.client import HttpClient, Limits, RetryPolicy
from connectors.model import Chunk, Extraction, ExtractRequest, Stream, check_source, check_window
from connectors.privacy import keys_of
from connectors.rest.bodies import Joined
from connectors.rest.bounds import since_bound, window_bounds
from connectors.rest.keys import only_keys
from connectors.rest.pages import Value
from connectors.rest.reading import Bounds, read
from connectors.rest.streams import RestStream


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSource:
    """An HTTP API."""

    name: str
    base_url: Setting
    streams: tuple[RestStream, ...]
    auth: Auth | None = None
    """How to be let in: one of the kinds in `connectors.http.auth`."""
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
        keys = keys_of(stream.privacy for stream in self.streams)
        return (self.base_url, *(self.auth.requirements if self.auth else ()), *keys)

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        rest = self._own(stream)
        client = self._client(connections, rest)
        chunks = _chunks(client, rest, _bounds(rest, request))
        return Extraction(rest.format.landing_format, chunks, requests=lambda: client.requests)

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        """Start reading the keys; see `connectors.model.KeySource.keys`. All pages are read, without any bound.

        Pages are no snapshot: where the API counts pages by offset, a row can slip between two of them while another
        is deleted. It is taken for deleted then, until the next comparison finds it again.
        """
        rest = self._own(stream)
        chunks = _chunks(self._client(connections, rest), rest, ())
        return Extraction(rest.format.landing_format, only_keys(chunks, rest.format, rest.primary_key))

    def _own(self, stream: Stream) -> RestStream:
        if not isinstance(stream, RestStream):
            raise TypeError(f"{self.name} reads RestStream, not {type(stream).__name__}")
        return stream

    def _client(self, connections: Connections, stream: RestStream) -> HttpClient:
        return HttpClient(
            connections.setting(self.base_url),
            credentials=self.auth.credentials(connections) if self.auth else None,
            policy=self.retries,
            limits=self.limits,
            allowed_origins=self.allowed_origins,
            allow_private_addresses=self.allow_private_addresses,
            transport=self.transport,
            quotes=stream.quotes,
        )


def _bounds(stream: RestStream, request: ExtractRequest) -> list[Mapping[str, Value]]:
    """The parameters that say from where on: a child whose cursor or windows are its parent's leaves them to it."""
    check_window(stream, request.window)
    bounds: list[Mapping[str, Value]] = []
    asked = stream
    while asked.parent is not None and (
        asked.follows_parents_cursor if request.window is None else asked.follows_parents_windows
    ):
        bounds.append({})
        asked = asked.parent.stream
    if request.window is None:
        return [*bounds, _since(stream, asked, request.watermark)]
    assert asked.window_parameters is not None  # noqa: S101 - it comes with event_time
    included = asked.window_end_included
    return [*bounds, window_bounds(request.window, asked.window_parameters, asked.instants, end_included=included)]


def _since(stream: RestStream, asked: RestStream, watermark: str | None) -> Mapping[str, Value]:
    if stream.cursor is None or asked.since_parameter is None:
        return {}
    try:
        since = since_bound(watermark, stream.cursor, asked.instants)
    except ConfigurationError as error:
        raise error.at(stream=stream.name) from error.__cause__
    return {asked.since_parameter: since} if since is not None else {}


def _chunks(client: HttpClient, stream: RestStream, bounds: Bounds) -> Iterator[Chunk]:
    joined = Joined(stream.bodies)
    try:
        with client, closing(read(client, stream, bounds)) as pages:
            for page in pages:
                chunk = joined.chunk(page)
                if chunk.data:
                    yield chunk
    except HeadwaterError as error:
        raise error.at(stream=stream.name) from error.__cause__
