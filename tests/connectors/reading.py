"""Reading a REST stream from a test's API, without a warehouse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from connectors.connections import EnvironmentConnections, Setting
from connectors.http.client import RetryPolicy
from connectors.model import ExtractRequest
from connectors.rest import BodyFormat, RestSource, RestStream
from tests.conftest import Answer, Api, Request


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


class Busy:
    """Answers after a while, and counts how many answers are under way at once.

    Args:
        counts: the requests that are delayed and counted; all, without it.
    """

    def __init__(self, answer: Callable[[Request], Answer], counts: Callable[[Request], bool] | None = None) -> None:
        self._answer = answer
        self._counts = counts or (lambda _: True)
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, request: Request) -> Answer:
        if self._counts(request):
            self._change(1)
            time.sleep(0.02)
            self._change(-1)
        return self._answer(request)

    def _change(self, by: int) -> None:
        with self._lock:
            self._now += by
            self.most = max(self.most, self._now)
