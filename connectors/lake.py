"""The lake: every load that is in raw as Parquet, and beside it what another engine has to know to make the same raw.

Layout::

    <source>/<stream>/loads.json
                     /load_id=<uuid>/<token>-00001.parquet

`loads.json` lists the loads in the order in which raw took them, with what the ledger alone knows: when each was
loaded, which of its rows went to quarantine, and whether it was a window, a full refresh, or a read of all keys. It is
written last and in one step, so a reader sees the stream as it was at one commit. Loads that landed as Parquet are
listed where they lie in the landing; all others are written once, by `connectors.export`, and again if rows of them
were erased.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import psycopg
from psycopg.rows import class_row
from sqlalchemy.engine import URL

from connectors.destinations.landed_rows import numbers_of
from connectors.destinations.landing import Landing
from connectors.destinations.manifest import Manifest
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.raw_table import raw_columns
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.export import ExportFormat, export_manifest
from connectors.ingest import Destination, Logger
from connectors.model import LandingFormat, Source, Stream

LIST = "loads.json"
_BLOCK_BYTES = 4 << 20


class LakeColumn(msgspec.Struct, frozen=True):
    """A column of raw as it is now."""

    name: str
    type: str
    """As PostgreSQL names it."""


class LakeFile(msgspec.Struct, frozen=True):
    """A Parquet file with rows of a load."""

    key: str
    """In the lake, or in the landing."""
    in_landing: bool
    rows: int


class LakeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One load of a stream."""

    load_id: UUID
    kind: str
    """`rows` or `keys`."""
    loaded_at: datetime
    """What raw says of its rows."""
    started_at: datetime
    """Of `keys`: what raw got later is not judged by them."""
    window_start: datetime | None
    window_end: datetime | None
    full_refresh: bool
    schema: list[LakeColumn]
    """The columns of its files; not all of raw's need be there, and their types may be narrower."""
    files: list[LakeFile]
    left_out_rows: list[int]
    """Of its rows, counted from 1 through all files, those that went to quarantine."""
    left_out_columns: list[str]
    """Columns that the contract kept out of raw."""
    erased_at: datetime | None
    """When rows of it were last erased."""


class LakeStream(msgspec.Struct, frozen=True, kw_only=True):
    """What `loads.json` holds."""

    format_version: int = 1
    source: str
    stream: str
    write: str
    """`merge`, `append` or `replace`."""
    key: list[str]
    cursor: str | None
    event_time: str | None
    columns: list[LakeColumn]
    loads: list[LakeLoad]
    """In the order in which raw took them."""


@dataclass(frozen=True, slots=True)
class LakeReport:
    """What became of a stream."""

    source: str
    stream: str
    loads: int
    written: int
    """Loads whose rows were written by this run."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    load_id: UUID
    kind: str
    manifest_key: str
    raw_loaded_at: datetime
    started_at: datetime
    window_start: datetime | None
    window_end: datetime | None
    full_refresh: bool
    replay_of: UUID | None
    quarantined: list[int]
    discarded: list[str]
    changed: list[str]
    """Columns some of whose values were discarded."""


def refresh(
    source: Source, stream: Stream, destination: Destination, lake: Landing, *, log: Logger | None = None
) -> LakeReport | None:
    """Bring a stream's part of the lake up to date; None if it was never loaded.

    Args:
        lake: the object store that the lake is in.

    Raises:
        ConfigurationError: the stream has a load that its files do not tell in full: a replay, or one with values that
            were discarded. Nothing was changed.
        LandingCorruptError: an object of a load is missing or altered.
        DestinationUnavailableError: the warehouse or a store does not answer.
    """
    log = log or logging.getLogger("headwater")
    try:
        with translated_errors(), connect(destination.warehouse, f"lake {source.name}.{stream.name}") as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            loads = _loaded(connection, source.name, stream.name)
            columns = [LakeColumn(*pair) for pair in raw_columns(connection, source.name, stream.name).items()]
        if not columns:
            return None
        for load in loads:
            _check(load)
        prefix = f"{source.name}/{stream.name}"
        before = _before(lake, f"{prefix}/{LIST}")
        writing = _Writing(stream, destination, lake, prefix)
        listed = []
        for load in loads:
            manifest = destination.landing.manifest_of_loaded(load.manifest_key)
            listed.append(_follows(before.get(load.load_id), load, manifest) or writing.listed(load, manifest))
        log.info("%s.%s: %s loads, %s of them written now.", source.name, stream.name, len(listed), writing.written)
        body = LakeStream(
            source=source.name,
            stream=stream.name,
            write=stream.write.value,
            key=[column_name(name) for name in stream.primary_key],
            cursor=column_name(stream.cursor.field) if stream.cursor else None,
            event_time=column_name(stream.event_time) if stream.event_time else None,
            columns=columns,
            loads=listed,
        )
        lake.put_whole(f"{prefix}/{LIST}", msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n")
        kept = {file.key for load in listed for file in load.files}
        lake.delete([file.key for load in before.values() for file in load.files if file.key not in kept])
        return LakeReport(source.name, stream.name, len(listed), writing.written)
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def _loaded(connection: psycopg.Connection, source: str, stream: str) -> list[_Loaded]:
    with connection.cursor(row_factory=class_row(_Loaded)) as cursor:
        return cursor.execute(
            """
            select l.load_id, l.kind, l.manifest_key, l.raw_loaded_at, l.started_at, l.window_start, l.window_end,
                l.full_refresh, l.replay_of,
                array(
                    select row_in_load from ops.quarantine q
                    where q.source = l.source and q.stream = l.stream and q.load_id = l.load_id order by 1
                ) as quarantined,
                array(
                    select column_name from ops.schema_changes c where c.source = l.source and c.stream = l.stream
                    and c.load_id = l.load_id and c.change = 'discarded' and c.from_type is null
                ) as discarded,
                array(
                    select column_name from ops.schema_changes c where c.source = l.source and c.stream = l.stream
                    and c.load_id = l.load_id and c.change = 'discarded' and c.from_type is not null
                ) as changed
            from ops.loads l
            where l.source = %s and l.stream = %s and l.status = 'loaded' and l.manifest_key is not null
            order by l.raw_loaded_at, l.loaded_at
            """,
            [source, stream],
        ).fetchall()


def _check(load: _Loaded) -> None:
    if load.replay_of is None and not load.changed:
        return
    what = "a replay" if load.replay_of else f"one that lost values of {', '.join(load.changed)}"
    raise ConfigurationError(
        f"Load {load.load_id} is {what}, which other engines cannot repeat from its files.",
        remedy="Leave the stream to PostgreSQL.",
    )


def _before(lake: Landing, key: str) -> dict[UUID, LakeLoad]:
    body = lake.get_whole(key)
    if body is None:
        return {}
    return {load.load_id: load for load in msgspec.json.decode(body, type=LakeStream).loads}


def _follows(before: LakeLoad | None, load: _Loaded, manifest: Manifest) -> LakeLoad | None:
    """A load that was listed before, as the ledger has it now; None if its files have to be written."""
    if before is None or before.erased_at != manifest.erased_at:
        return None
    return msgspec.structs.replace(
        before, left_out_rows=_numbers(load, manifest), left_out_columns=load.discarded, loaded_at=load.raw_loaded_at
    )


def _numbers(load: _Loaded, manifest: Manifest) -> list[int]:
    """Where the rows in quarantine are among those that have not been erased."""
    places = sorted({*load.quarantined} - {*manifest.forgotten})
    return [*numbers_of(places, sorted(manifest.forgotten))]


class _Writing:
    def __init__(self, stream: Stream, destination: Destination, lake: Landing, prefix: str) -> None:
        self._stream = stream
        self._landing = destination.landing
        self._warehouse: Callable[[], URL] = lambda: destination.warehouse
        self._lake = lake
        self._prefix = prefix
        self.written = 0

    def listed(self, load: _Loaded, manifest: Manifest) -> LakeLoad:
        """A load with its files, which are there."""
        # Columns that a reader of JSON lines typed as it went are JSON in the file, and need the export.
        if manifest.landing_format is LandingFormat.PARQUET and manifest.records is LandingFormat.CSV:
            files = [LakeFile(landed.key, True, landed.rows) for landed in manifest.objects]
        else:
            files = [self._written(manifest)] if manifest.rows else []
        return LakeLoad(
            load_id=load.load_id,
            kind=load.kind,
            loaded_at=load.raw_loaded_at,
            started_at=load.started_at,
            window_start=load.window_start,
            window_end=load.window_end,
            full_refresh=load.full_refresh,
            schema=[LakeColumn(column.name, column.type) for column in manifest.columns],
            files=files,
            left_out_rows=_numbers(load, manifest),
            left_out_columns=load.discarded,
            erased_at=manifest.erased_at,
        )

    def _written(self, manifest: Manifest) -> LakeFile:
        key = f"{self._prefix}/load_id={manifest.load_id}/{uuid4().hex[:12]}-00001.parquet"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "load.parquet")
            export_manifest(
                self._stream, self._landing, manifest, path, ExportFormat.PARQUET, warehouse=self._warehouse
            )
            self._lake.put_object(key, _blocks(path))
        self.written += 1
        return LakeFile(key, False, manifest.rows)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
