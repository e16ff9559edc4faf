"""How far each stream is: up to when raw has all that its source has, as the ledger knows it.

It is what `data_as_of` in the trust record rests on, so it claims no more than is certain:

- A stream without windows was read when its last load of what is new began: everything that the source had then is in
  raw (see the watermark in docs/loads.md).
- A stream with windows is complete up to the first instant that no load has read: neither a read of windows, nor the
  loads of what is new, if the stream was once read from its beginning. Of the windows that loads of what is new reach,
  only those count that are over.
- A stream with windows and without a cursor (files) cannot be asked whether there is more: it is complete, at most, to
  the end of the last window that has rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.model import Source, Stream


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream is."""

    source: str
    stream: str
    as_of: datetime | None
    """Up to when raw is complete; None if nothing of it was ever loaded."""
    seen_at: datetime | None
    """What its age is counted from: `as_of`, or, where its last window is over for good, when it was last read."""


def positions(warehouse: URL, sources: Iterable[Source]) -> list[Position]:
    """How far all streams of these sources are.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(warehouse, "positions") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return [_position(connection, source.name, stream) for source in sources for stream in source.streams]


def _position(connection: psycopg.Connection, source: str, stream: Stream) -> Position:
    names = {"source": source, "stream": stream.name}
    row = connection.execute(
        """
        select max(started_at), max(started_at) filter (where window_start is null),
               bool_or(window_start is null and cursor_from is null)
        from ops.loads
        where source = %(source)s and stream = %(stream)s and kind = 'rows' and status = 'loaded'
        """,
        names,
    ).fetchone()
    read_at, followed, from_the_beginning = row or (None, None, None)
    if stream.event_time is None:
        return Position(source, stream.name, followed, followed)
    if not from_the_beginning or (stream.cursor is not None and stream.cursor.initial is not None):
        followed = None
    as_of = _complete_until(connection, names, stream, followed)
    return Position(source, stream.name, as_of, read_at if as_of and stream.windows.until is not None else as_of)


def _complete_until(
    connection: psycopg.Connection, names: dict[str, str], stream: Stream, followed: datetime | None
) -> datetime | None:
    windows = stream.windows
    row = connection.execute(
        "select min(window_start), max(window_end) filter (where rows > 0) from ops.windows"
        " where source = %(source)s and stream = %(stream)s",
        names,
    ).fetchone()
    earliest, last_with_rows = row or (None, None)
    complete = windows.begin or earliest
    if complete is None:
        return None
    begin = complete
    if followed is not None:
        complete = max(complete, windows.end_by(followed))
    reads = connection.execute(
        "select window_start, window_end from ops.loads where source = %(source)s and stream = %(stream)s"
        " and kind = 'rows' and status = 'loaded' and window_start is not null order by window_start",
        names,
    ).fetchall()
    for start, end in reads:
        if start > complete:
            break
        complete = max(complete, end)
    if stream.cursor is None:
        complete = min(complete, last_with_rows or begin)
    return complete if complete > begin else None
