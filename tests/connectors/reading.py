"""Reading a REST stream from a test's API, without a warehouse."""

from __future__ import annotations

from typing import Any

from connectors.connections import EnvironmentConnections, Setting
from connectors.http import RetryPolicy
from connectors.model import ExtractRequest
from connectors.rest import BodyFormat, RestSource, RestStream
from tests.conftest import Api


def read(api: Api, request: ExtractRequest | None = None, **definition: Any) -> list[bytes]:
    stream = RestStream(**{"name": "things", "path": "/things", "primary_key": ("id",), **definition})
    source = RestSource(
        name="api",
        base_url=Setting("api_url"),
        streams=(stream,),
        retries=RetryPolicy(attempts=1, read_timeout=2),
    )
    connections = EnvironmentConnections({"HEADWATER_API_URL": api.url})
    extraction = source.extract(stream, request or ExtractRequest(), connections)
    chunks = list(extraction.chunks)
    lines = b"".join(chunk.data for chunk in chunks).splitlines()
    assert sum(chunk.rows for chunk in chunks) == len(lines) - (stream.format is BodyFormat.CSV)
    return lines
