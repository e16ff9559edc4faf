"""How many rows a load is likely to bring, for whoever watches it. Nothing depends on it."""

from __future__ import annotations

from connectors.connections import Connections
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.ingest import WAREHOUSE_LOADER
from connectors.model import EstimatingSource, Source, Stream, Window


def expected_rows(
    source: Source, stream: Stream, connections: Connections, *, window: Window | None, is_full: bool
) -> int | None:
    """About how many rows a load brings; None if nobody knows.

    A window: as many as raw has of it. All of a stream: as many as the last load of all of it, or else as its source
    estimates. What has changed since the last load nobody knows.

    Raises:
        HeadwaterError: the warehouse or the source does not answer.
    """
    names = [source.name, stream.name]
    with translated_errors(), connect(connections.database(WAREHOUSE_LOADER), "expected rows") as connection:
        if window is not None:
            row = connection.execute(
                "select sum(rows)::bigint from ops.windows where source = %s and stream = %s"
                " and window_start >= %s and window_end <= %s",
                [*names, window.start, window.end],
            ).fetchone()
        else:
            known = connection.execute(
                "select from ops.watermarks where source = %s and stream = %s and value is not null", names
            ).fetchone()
            if known is not None and not is_full:
                return None
            row = connection.execute(
                "select rows_extracted from ops.loads where source = %s and stream = %s and status = 'loaded'"
                " and kind = 'rows' and window_start is null and cursor_from is null order by started_at desc limit 1",
                names,
            ).fetchone()
    if row is not None and row[0]:
        return int(row[0])
    return source.estimated_rows(stream, window, connections) if isinstance(source, EstimatingSource) else None
