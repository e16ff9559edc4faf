"""Several streams of a source, read as of one instant, so that what they say of each other fits together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.engine import URL

from connectors.connections import Connections
from connectors.destinations.warehouse import ledger
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.watermark import read_watermark
from connectors.model import Snapshot, SnapshotSource, Source, Stream


class SharedRead:
    """An instant of a source, and how often each of its streams had been loaded then.

    A stream that somebody has loaded since is not read as of it: that would put older rows over newer ones.
    """

    def __init__(self, snapshot: Snapshot, loads: Mapping[str, int]) -> None:
        self.snapshot = snapshot
        self.loads = loads


@contextmanager
def shared_read(
    source: Source,
    streams: Iterable[Stream],
    connections: Connections,
    warehouse: URL,
    *,
    full_refresh: bool = False,
) -> Iterator[SharedRead | None]:
    """Hold on to one instant of a source while its streams begin to be read; give it to `connectors.ingest.ingest`.

    None comes of it where there is nothing to share: a single stream, or a source that cannot.

    Raises:
        HeadwaterError: the source or the warehouse cannot be reached, or a definition is wrong.
    """
    chosen = list(streams)
    if len(chosen) < 2 or not isinstance(source, SnapshotSource):
        yield None
        return
    with translated_errors(), connect(warehouse, f"look up {source.name}", autocommit=True) as connection:
        loads = ledger.loads_committed(connection, source.name)  # first: what is loaded from here on is noticed
        watermarks = {
            stream.name: None if full_refresh else read_watermark(connection, source.name, stream.name).value
            for stream in chosen
        }
    snapshot = source.snapshot(watermarks, connections)
    try:
        yield SharedRead(snapshot, loads)
    finally:
        snapshot.close()
