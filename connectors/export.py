"""Any load as one file of Parquet or JSON lines, for a person or another engine: read from the landing alone.

The rows are those that the load brought, with the columns that raw gives them; of a record that no row could be made
of, there is the reason and its text instead. What became of them later, the landing does not know.

Loads in PostgreSQL's binary format are decoded by a PostgreSQL, since nothing else knows all of its types: by the
warehouse, in a table that is never committed. All others need no warehouse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.landing import Landing
from connectors.destinations.manifest import Manifest
from connectors.destinations.warehouse.columns import PAYLOAD, REJECTED, column_name
from connectors.destinations.warehouse.connection import LOADING, connect, translated_errors
from connectors.destinations.warehouse.file_records import parser_of
from connectors.destinations.warehouse.records import RecordParser, Rejected, unescaped
from connectors.errors import ConfigurationError, DestinationUnavailableError, HeadwaterError, LandingCorruptError
from connectors.formats.framing import PGCOPY_HEADER, PGCOPY_TRAILER
from connectors.model import Chunk, Column, LandingFormat, Source, Stream

if TYPE_CHECKING:
    import pyarrow as pa

_TABLE_ROWS = 2000
_TABLE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_IDLE_SECONDS = 600.0
"""How long writing the file may keep the warehouse waiting."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
"""As JSON has them."""
_NUMERIC = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


class ExportFormat(StrEnum):
    """What a load is written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    load_id: UUID
    path: Path
    rows: int
    rejected: int
    """Of these, the ones that no values could be made of."""


def export(
    source: Source,
    stream: Stream,
    landing: Landing,
    to: Path,
    form: ExportFormat,
    *,
    load_id: UUID | None = None,
    warehouse: Callable[[], URL],
) -> ExportReport:
    """Write a load as a file, which is there whole or not at all.

    Args:
        to: the file, which must not exist yet; or a folder, for a file named after the load.
        load_id: which load; without it, the latest that landed with rows of the stream.
        warehouse: where a PostgreSQL is; called only if one is needed.

    Raises:
        ConfigurationError: there is no such load, or the file cannot be made or is there already.
        LandingCorruptError: an object of the load is missing or altered.
        DestinationUnavailableError: the landing or the warehouse does not answer, or the disk is full.
    """
    try:
        manifest = _manifest(landing, source.name, stream.name, load_id)
        path = to / f"{source.name}.{stream.name}.{manifest.load_id}.{form.value}" if to.is_dir() else to
        return export_manifest(stream, landing, manifest, path, form, warehouse=warehouse)
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name, load_id=load_id) from error.__cause__


def export_manifest(
    stream: Stream,
    landing: Landing,
    manifest: Manifest,
    path: Path,
    form: ExportFormat,
    *,
    warehouse: Callable[[], URL],
) -> ExportReport:
    """Write the load of a manifest as a new file; see `export`."""
    load = _Load(stream, landing, manifest, warehouse)
    with translated_errors(), _new_file(path) as file:
        rows = _write_parquet(load, file) if form is ExportFormat.PARQUET else _write_lines(load, file)
        if rows != manifest.rows:
            raise LandingCorruptError(
                f"The landing has {rows:,} rows of this load; its manifest says {manifest.rows:,}.",
                remedy="Restore its objects from a backup of the landing. If the stream's definition was changed "
                "so that other rows come of them, change it back.",
            )
    return ExportReport(manifest.load_id, path, rows, load.rejected)


def _manifest(landing: Landing, source: str, stream: str, load_id: UUID | None) -> Manifest:
    for manifest in landing.manifests(source, stream):
        if manifest.load_id == load_id or (load_id is None and manifest.kind == "rows"):
            return manifest
    raise ConfigurationError(
        f"The landing has no load {load_id or 'with rows'} of this stream.",
        remedy="Take one of `select load_id, status, landed_at from ops.loads`.",
    )


class _Load:
    """The rows of a load as texts.

    Where they come of documents and files, two columns more say why no row could be made of a record, and what it was.
    """

    def __init__(self, stream: Stream, landing: Landing, manifest: Manifest, warehouse: Callable[[], URL]) -> None:
        self._stream = stream
        self._landing = landing
        self._manifest = manifest
        self._warehouse = warehouse
        self.columns = tuple(Column(column.name, column.type) for column in manifest.columns)
        self.rejected = 0
        if self._parser() is not None:
            self.columns += (Column(REJECTED, "text"), Column(PAYLOAD, "text"))

    def tables(self) -> Iterator[pa.Table]:
        """Some rows at a time, each time from the first on."""
        self.rejected = 0
        parser = self._parser()
        return self._typed() if parser is None else self._parsed(parser)

    def _parser(self) -> RecordParser | None:
        json_columns = {column_name(name) for name, kind in self._stream.columns.items() if kind == "jsonb"}
        return parser_of(self._stream, self._manifest.record_format, self._manifest.source_columns, json_columns)

    def _typed(self) -> Iterator[pa.Table]:
        from connectors.formats.parquet_rows import csv_table

        if self._manifest.record_format is LandingFormat.PGCOPY:
            chunks = _decoded(self._landing, self._manifest, self._warehouse())
        else:
            chunks = self._landing.read(self._manifest)
        return (csv_table(chunk, self.columns) for chunk in chunks)

    def _parsed(self, parser: RecordParser) -> Iterator[pa.Table]:
        rows: list[dict[str, str | None]] = []
        size = 0
        for chunk in self._landing.read(self._manifest):
            for row in parser.rows(chunk):
                if isinstance(row, Rejected):
                    self.rejected += 1
                    rows.append({REJECTED: row.reason, PAYLOAD: row.payload})
                    size += len(row.payload)
                else:
                    rows.append(dict(zip(parser.columns, map(unescaped, row), strict=False)))
                    size += sum(map(len, row))
                if len(rows) >= _TABLE_ROWS or size >= _TABLE_BYTES:
                    yield self._table(rows)
                    rows, size = [], 0
        yield self._table(rows)
        if unknown := sorted(set(parser.columns) - {column.name for column in self.columns}):
            raise ConfigurationError(
                f"By the stream's present definition, the load has columns that it had not: {', '.join(unknown)}.",
                remedy="Change the definition back for this, or read the files anew with full_refresh.",
            )

    def _table(self, rows: list[dict[str, str | None]]) -> pa.Table:
        import pyarrow as pa

        names = [column.name for column in self.columns]
        return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})


def _decoded(landing: Landing, manifest: Manifest, warehouse: URL) -> Iterator[Chunk]:
    """Binary COPY as CSV, object by object. The table for it is in a transaction that always ends without a trace."""
    table = sql.Identifier(LOADING, f"export_{uuid4().hex}")
    connection = connect(warehouse, f"export {manifest.source}.{manifest.stream}", idle_seconds=_IDLE_SECONDS)
    try:
        definitions = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type))  # as it was landed
            for column in manifest.columns
        )
        connection.execute(sql.SQL("create table {} ({})").format(table, definitions))
        for landed in manifest.objects:
            with connection.cursor().copy(sql.SQL("copy {} from stdin (format binary)").format(table)) as copy:
                copy.write(PGCOPY_HEADER)
                for chunk in landing.read_object(landed, manifest):
                    copy.write(chunk.data)
                copy.write(PGCOPY_TRAILER)
            with connection.cursor().copy(sql.SQL("copy {} to stdout (format csv)").format(table)) as copy:
                yield from _chunks(copy)
            connection.execute(sql.SQL("truncate {}").format(table))
    finally:
        connection.close()


def _chunks(rows: psycopg.Copy) -> Iterator[Chunk]:
    buffer = bytearray()
    number = 0
    for row in rows:
        buffer += row
        number += 1
        if len(buffer) >= _CHUNK_BYTES:
            yield Chunk(bytes(buffer), number)
            buffer.clear()
            number = 0
    if number:
        yield Chunk(bytes(buffer), number)


def _write_parquet(load: _Load, file: IO[bytes]) -> int:
    """A file has one schema. Where a value turns out to have no twin in Parquet, it is begun anew, with texts there."""
    from connectors.formats.parquet_rows import ParquetFile, ParquetTables

    tables = ParquetTables(load.columns)
    while True:
        file.seek(0)
        file.truncate()
        schema = tables.schema
        rows = 0
        with closing(ParquetFile(schema, file)) as parquet:
            for texts in load.tables():
                table = tables.table(texts)
                if table.schema != schema:
                    break
                parquet.write(table)
                rows += table.num_rows
        if tables.schema == schema:
            return rows


def _write_lines(load: _Load, file: IO[bytes]) -> int:
    """One JSON object a row: numbers and JSON as they are, everything else as a string of PostgreSQL's."""
    names = [msgspec.json.encode(column.name).decode() for column in load.columns]
    kinds = [column.type for column in load.columns]
    written = 0
    for table in load.tables():
        values = [column.to_pylist() for column in table.columns]
        for row in zip(*values, strict=True):
            members = (f"{name}:{_json(text, kind)}" for name, kind, text in zip(names, kinds, row, strict=True))
            file.write(f"{{{','.join(members)}}}\n".encode())
        written += table.num_rows
    return written


def _json(text: str | None, kind: str) -> str:
    if text is None:
        return "null"
    if kind == "boolean":
        return "true" if text in ("t", "true") else "false"
    if kind in ("json", "jsonb"):
        return text.replace("\n", " ").replace("\r", " ")
    if kind.startswith(_NUMERIC) and _NUMBER.fullmatch(text):
        return text
    return msgspec.json.encode(text).decode()


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written, which gets its name when it is whole and on disk.

    Raises:
        ConfigurationError: it cannot be made there, or there is one.
        DestinationUnavailableError: the disk is full.
    """
    if path.exists():
        raise _is_there(path)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a new name, it takes no other file's place
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        if error.errno == 28:
            raise DestinationUnavailableError(
                f"The disk is full: {path} was not written.", remedy="Free space there."
            ) from error
        raise ConfigurationError(
            f"{path} cannot be written: {error}.", remedy="Name another file or folder."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _is_there(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} is there already.", remedy="Name another file, or move that one away.")
