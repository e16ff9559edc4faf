"""Clients of `bench.rest_server`, each in a process of its own: `… -m bench.rest_clients MODE URL PAGE_ROWS [WAY]`.

`discard` downloads page after page and throws it away; `parse` also decodes it; `load` is Headwater, Prefect loaded,
into the warehouse and landing of the environment, with WAY being AT_ONCE or IN_TURN. Each prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import httpx
import msgspec

_LAST_BYTES = 60


def discard(url: str, page_rows: int) -> int:
    """Rows that were thrown away. Where the next page is, is found without reading the page."""

    def following(body: bytes) -> tuple[str | None, int]:
        offset = body[-_LAST_BYTES:].rpartition(b'"next":')[2].removesuffix(b"}").decode()
        return (None, 0) if offset == "null" else (offset, int(offset))

    return _paged(url, page_rows, following)


def parse(url: str, page_rows: int) -> int:
    """Rows that were decoded and thrown away."""

    def following(body: bytes) -> tuple[str | None, int]:
        page = msgspec.json.decode(body)
        offset = page["next"]
        return (None, 0) if offset is None else (str(offset), int(offset))

    return _paged(url, page_rows, following)


def _paged(url: str, page_rows: int, following: Callable[[bytes], tuple[str | None, int]]) -> int:
    rows, offset = 0, "0"
    with httpx.Client(base_url=url) as client:
        while True:
            body = client.get("/orders", params={"limit": str(page_rows), "offset": offset}).content
            after, before = following(body)
            rows = max(rows, before)
            if after is None:
                return rows + page_rows
            offset = after


def load(url: str, page_rows: int, way: str) -> int:
    """Rows that are in raw."""
    from connectors.connections import EnvironmentConnections, Setting
    from connectors.ingest import Destination, ingest
    from connectors.model import Cursor
    from connectors.rest import Offset, RestSource, RestStream, TokenInBody

    at_once = way == "AT_ONCE"
    stream = RestStream(
        name="orders",
        path="/orders",
        records="data",
        parameters={} if at_once else {"limit": page_rows},
        pages=Offset(page_rows, total="total") if at_once else TokenInBody("next", "offset"),
        concurrency=8 if at_once else 1,
        primary_key=("id",),
        cursor=Cursor("updated_at"),
        since_parameter="since",
        columns={"created_at": "timestamptz", "updated_at": "timestamptz"},
    )
    source = RestSource(name="bench", base_url=Setting("bench_url"), streams=(stream,))
    connections = EnvironmentConnections({"HEADWATER_BENCH_URL": url})
    return ingest(source, stream, connections, Destination.of(EnvironmentConnections()))[-1].inserted


def main() -> None:
    mode, url, page_rows, *way = sys.argv[1:]
    if mode == "load":
        import flows.ingest  # noqa: F401 - for its memory; its time is told apart
    begun = time.monotonic()
    if mode == "load":
        rows = load(url, int(page_rows), way[0])
    else:
        rows = {"discard": discard, "parse": parse}[mode](url, int(page_rows))
    wall = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"rows": rows, "wall_s": wall, "peak_mb": round(peak, 1)}) + "\n")


if __name__ == "__main__":
    main()
