"""Rebuild raw from the landing alone: for a table that was dropped or damaged, or to prove that the landing suffices.

Every load of the stream that the ledger has as loaded is repeated in its order, each with the `_load_id` and
`_loaded_at` that it had, so the rows come out as they were, those marked as deleted too. The source is not asked.
Readers see the old rows until all are there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from connectors.destinations.landing import Landing, Manifest
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.key_comparison import KeyComparison
from connectors.destinations.warehouse.ledger import Lease, LoadKind
from connectors.destinations.warehouse.merge import Merge
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable
from connectors.errors import HeadwaterError, LandingCorruptError
from connectors.ingest import Destination, Logger
from connectors.model import Source, Stream, Window


@dataclass(frozen=True, slots=True)
class _PastLoad:
    load_id: UUID
    kind: str
    manifest_key: str
    window_start: datetime | None
    window_end: datetime | None
    full_refresh: bool
    raw_loaded_at: datetime

    @property
    def window(self) -> Window | None:
        return Window(self.window_start, self.window_end) if self.window_start and self.window_end else None


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild repeated, and what raw holds now."""

    loads: int
    rows: int


def rebuild(
    source: Source,
    stream: Stream,
    destination: Destination,
    *,
    run: str = "rebuild",
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> RebuildReport:
    """Empty a stream's raw table and fill it from the landing, in one transaction.

    Raises:
        LandingCorruptError: a manifest or an object is missing or altered; raw is as it was.
        HeadwaterError: see `connectors.ingest.ingest`.
    """
    log = log or logging.getLogger("headwater")
    try:
        with (
            translated_errors(),
            Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds) as lease,
            connect(destination.warehouse, f"rebuild {source.name}.{stream.name}", autocommit=True) as connection,
            connection.transaction(),
        ):
            lease.check(connection)
            loads = _past_loads(connection, source.name, stream.name)
            for number, load in enumerate(loads, 1):
                context = LoadContext(
                    source.name, stream, load.load_id, load.window, load.full_refresh, is_rebuild=True
                )
                table = RawTable(connection, context)
                if number == 1 and table.columns:
                    connection.execute(sql.SQL("delete from {}").format(table.name))
                _repeat(connection, destination.landing, context, load)
                log.info("Repeated load %s (%s of %s).", load.load_id, number, len(loads))
            return RebuildReport(len(loads), _rows(connection, source.name, stream.name))
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def _past_loads(connection: psycopg.Connection, source: str, stream: str) -> list[_PastLoad]:
    with connection.cursor(row_factory=class_row(_PastLoad)) as cursor:
        return cursor.execute(
            "select load_id, kind, manifest_key, window_start, window_end, full_refresh, raw_loaded_at from ops.loads"
            " where source = %s and stream = %s and status = 'loaded' and manifest_key is not null"
            " order by raw_loaded_at, loaded_at",
            [source, stream],
        ).fetchall()


def _repeat(connection: psycopg.Connection, landing: Landing, context: LoadContext, load: _PastLoad) -> None:
    manifest = _manifest(landing, load)
    with AttemptTable(
        connection,
        context.source,
        context.stream,
        load.load_id,
        manifest.attempt,
        manifest.landing_format,
        manifest.source_columns,
    ) as attempt:
        attempt.fill_from(landing, manifest)
        if load.kind == LoadKind.KEYS:
            KeyComparison(connection, attempt, context, marked_at=load.raw_loaded_at).mark()
            return
        merge = Merge(connection, attempt, context, loaded_at=load.raw_loaded_at)
        merge.judge()
        merge.write()


def _manifest(landing: Landing, load: _PastLoad) -> Manifest:
    manifest = landing.manifest(load.manifest_key)
    if manifest is None:
        raise LandingCorruptError(
            f"The manifest {load.manifest_key} is missing.",
            remedy="Restore it from a backup of the landing; raw is as it was.",
            load_id=load.load_id,
        )
    return manifest


def _rows(connection: psycopg.Connection, source: str, stream: str) -> int:
    name = sql.Identifier(f"raw_{source}", stream)
    if connection.execute("select to_regclass(%s)", [name.as_string(connection)]).fetchone() == (None,):
        return 0
    row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
    return int(row[0]) if row else 0
