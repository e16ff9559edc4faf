"""Chunks whose rows are ready to be copied as they are: none of them is rejected, none brings a new field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

NULL = b"\\N"
"""A value that is not there, in COPY's own text."""

TEXT = sql.SQL("")
CSV = sql.SQL("(format csv, null 'null', escape '\\')")
"""CSV whose strings are written as JSON strings are, as far as these escape nothing but quotes and backslashes."""


@dataclass(frozen=True, slots=True)
class WholeChunk:
    """The rows of a chunk as lines for COPY."""

    rows: int
    columns: Sequence[str]
    """The columns that the lines have values of, in their order. Other columns have none in this chunk."""
    form: sql.SQL
    """What COPY is told of the lines: TEXT or CSV."""
    lines: bytes
    values: Callable[[str], bytes]
    """A column's values, one a line, less those that are not there: texts and JSON as they are, without quotes around
    them or anything escaped."""


def of_columns(columns: Mapping[str, list[bytes]]) -> WholeChunk:
    """A chunk of which COPY's texts of each column are known."""

    def values(column: str) -> bytes:
        return b"\n".join([value for value in columns[column] if value != NULL]).replace(b"\\\\", b"\\")

    rows = list(map(b"\t".join, zip(*columns.values(), strict=True)))
    return WholeChunk(len(rows), list(columns), TEXT, b"\n".join([*rows, b""]), values)
