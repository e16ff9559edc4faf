"""What a load consists of, as its manifest says it, and where its objects are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from connectors.model import Column, LandingFormat, SourcePosition

MANIFEST = "manifest.json"


class LandedObject(msgspec.Struct, frozen=True):
    """One object of a load."""

    key: str
    sha256: str
    """Of the object as stored."""
    bytes: int
    """As stored."""
    rows: int
    file: str | None = None
    """For file streams: the path in the source."""
    file_version: str | None = None
    file_bytes: int | None = None
    """As in the source."""
    refused: str | None = None
    """Why the file could not be read to its end; the object is what came until then, and none of it is rows."""


class LandedColumn(msgspec.Struct, frozen=True):
    """A column as the load saw it."""

    name: str
    type: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a load consists of; its presence is what makes the objects data."""

    format_version: int = 1
    load_id: UUID
    source: str
    stream: str
    attempt: int
    kind: str = "rows"
    """What the objects hold: `rows` of the stream, or its `keys` alone."""
    landing_format: LandingFormat
    records: LandingFormat | None = None
    """What the objects' records are read as, if not as they lie there."""
    window_start: datetime | None
    window_end: datetime | None
    cursor_from: str | None
    """The watermark that the load started from."""
    cursor_to: str | None
    """The highest cursor value in it."""
    rows: int
    columns: list[LandedColumn]
    typed_fields: list[LandedColumn] = []
    """Of documents: the fields that their source typed, by their names in the documents."""
    objects: list[LandedObject]
    landed_at: datetime
    position: SourcePosition | None = None
    """How far the read got, where the source can tell."""
    privacy: dict[str, str] = {}
    """What became of private fields before they landed, as the stream's definition then had it: `hashed`, `dropped` or
    `masked`. Where any is hashed or dropped, files are not as their source wrote them."""
    full_refresh: bool | None = None
    """Whether everything was read, and counts even where raw has a newer version; None where it was not noted yet."""
    forgotten: list[int] = []
    """Places in the load, from 1, of rows that were erased by their keys; the others keep the places that they had."""
    erased_at: datetime | None = None
    """When rows were last erased."""

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The load's columns as the source typed them; empty where it did not."""
        is_typed = self.landing_format is LandingFormat.PGCOPY or self.records is LandingFormat.CSV
        return tuple(Column(column.name, column.type) for column in (self.columns if is_typed else self.typed_fields))

    @property
    def record_format(self) -> LandingFormat:
        """What the chunks are that `Landing.read` gives out."""
        return self.records or self.landing_format


@dataclass(frozen=True, slots=True)
class LoadPlace:
    """Where one load's objects are."""

    source: str
    stream: str
    load_id: UUID
    started_at: datetime

    @property
    def prefix(self) -> str:
        day = self.started_at.astimezone(UTC).date().isoformat()
        return f"{self.source}/{self.stream}/dt={day}/load_id={self.load_id}"

    @property
    def manifest_key(self) -> str:
        return f"{self.prefix}/{MANIFEST}"


def encoded(manifest: Manifest) -> bytes:
    """As it is written."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
