"""Loads of an API cut down to their keys, for finding out what the source has deleted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from connectors.documents.path import OBJECT
from connectors.model import Chunk
from connectors.rest.bodies import BodyFormat


def only_keys(chunks: Iterable[Chunk], body_format: BodyFormat, key: tuple[str, ...]) -> Iterator[Chunk]:
    """The records of a load with their key fields alone, each value as received."""
    if body_format is not BodyFormat.CSV:
        for chunk in chunks:
            yield Chunk(b"".join(_only_members(line, key) for line in chunk.data.splitlines()), chunk.rows)
        return
    places: list[int] | None = None
    for chunk in chunks:
        written = io.StringIO(newline="")
        writer = csv.writer(written, lineterminator="\n")
        for values in csv.reader(io.StringIO(chunk.data.decode(), newline=""), strict=True):
            if places is None:
                places = [place for place, name in enumerate(values) if name in key]
            if values:
                # A record that is too short to have them is as wrong without the rest of it.
                writer.writerow([values[place] for place in places if place < len(values)])
        yield Chunk(written.getvalue().encode(), chunk.rows)


def _only_members(line: bytes, names: tuple[str, ...]) -> bytes:
    """A record that is no object stays as it is."""
    try:
        record = OBJECT.decode(line)
    except msgspec.DecodeError:
        return line + b"\n"
    fields = [msgspec.json.encode(name) + b":" + bytes(record[name]) for name in names if name in record]
    return b"{" + b",".join(fields) + b"}\n"
