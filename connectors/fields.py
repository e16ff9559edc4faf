"""Which field of its source each column of raw holds, as the stream's definition says.

For lineage: the other way round than a load goes. A field that the definition names (key, cursor, type, treatment) has
the spelling that it has there; of others raw keeps the column's name alone, which is the field's in lower case, with
underscores for what no column can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from connectors.destinations.warehouse.columns import OWN_COLUMNS, column_name
from connectors.documents.path import parse_path
from connectors.formats.file_streams import FileStream, JsonStream
from connectors.model import Stream
from connectors.postgres import TableStream
from connectors.privacy import of_column
from connectors.rest.streams import RestStream
from connectors.sql import SqlStream


@dataclass(frozen=True, slots=True)
class SourceField:
    """What a column of raw holds."""

    path: str | None
    """Where the value is at the source: `data[].dest`, a column's name. None: loading makes it."""
    treatment: str | None = None
    """What becomes of it before it lands: hashed, masked."""


def field_of(stream: Stream, column: str) -> SourceField:
    """The field that a column of a stream's raw table holds."""
    if column in OWN_COLUMNS:
        return SourceField(None)
    if isinstance(stream, FileStream) and stream.file_column and column_name(stream.file_column) == column:
        return SourceField(None)
    treatment = of_column(stream.privacy, column)
    name = next((name for name in _named(stream) if column_name(name) == column), column)
    return SourceField(_path(stream, name), treatment.word if treatment else None)


def place_of(stream: Stream) -> str:
    """Where a stream's records are at the source: an endpoint, a table, a pattern of files."""
    if isinstance(stream, RestStream):
        return f"{'POST' if stream.body is not None else 'GET'} {stream.path}"
    if isinstance(stream, TableStream | SqlStream):
        return f"{stream.schema}.{stream.table_name}" if stream.schema else stream.table_name
    if isinstance(stream, FileStream):
        return stream.pattern
    return stream.name


def _named(stream: Stream) -> Iterator[str]:
    """The fields that the definition names."""
    yield from stream.columns
    yield from stream.primary_key
    if stream.cursor is not None:
        yield stream.cursor.field
    if stream.event_time is not None:
        yield stream.event_time
    for text in stream.privacy:
        path = parse_path(text)
        if path and path[0] is not None:
            yield path[0]


def _path(stream: Stream, name: str) -> str:
    if isinstance(stream, RestStream):
        if stream.parent is not None and name in stream.parent.fields:
            return _path(stream.parent.stream, stream.parent.fields[name])
        if stream.single:
            return f"{stream.records}.{name}" if stream.records else name
        list_of = stream.records if stream.records.endswith("]") or "[]." in stream.records else f"{stream.records}[]"
        return f"{list_of}.{name}"
    if isinstance(stream, JsonStream):
        return f"{stream.records}[].{name}"
    return name
