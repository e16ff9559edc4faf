"""Take over loads that landed for an earlier warehouse: after a restore, what the landing has beyond the backup.

A load is what its manifest says, so raw gets its rows, the watermark, the file versions and the deletions without the
source being asked. Loads come in the order in which they landed, and count as loaded then. None is taken over that
would leave a hole: a load that starts behind the watermark follows one that the landing has not, and what they brought
is asked for again by the next load of what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from connectors.connections import Connections
from connectors.deletions import Comparing
from connectors.destinations.manifest import MANIFEST, Manifest
from connectors.destinations.warehouse import ledger
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.ledger import Lease, Load, LoadKind, LoadReport, Purpose
from connectors.destinations.warehouse.raw_table import raw_columns, type_name
from connectors.destinations.warehouse.watermark import highest_of, read_watermark
from connectors.errors import DataError, HeadwaterError
from connectors.failpoints import reach
from connectors.ingest import Destination, Ingestion, Logger
from connectors.model import KeySource, Source, Stream, Window


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What became of the loads of a stream that the ledger did not have."""

    source: str
    stream: str
    loads: tuple[LoadReport, ...] = ()
    left: tuple[str, ...] = ()
    """Those that were not taken over, and why: a sentence each."""
    lost: int = 0
    """Loads of the ledger that the landing has no more: raw cannot be rebuilt of it."""


def adopt(
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    run: str = "restore",
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> AdoptReport:
    """Load what the landing has of a stream and the ledger has not. Safe to repeat.

    Raises:
        HeadwaterError: see `connectors.errors`: the warehouse or the landing does not answer. Loads that cannot be
            accepted are left, and named.
    """
    log = log or logging.getLogger("headwater")
    try:
        with (
            translated_errors(),
            Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds) as lease,
            connect(destination.warehouse, f"adopt {source.name}.{stream.name}", autocommit=True) as connection,
        ):
            return _Adoption(source, stream, connections, destination, lease, connection, run, log).run()
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


@dataclass(frozen=True, slots=True)
class _Adoption:
    source: Source
    stream: Stream
    connections: Connections
    destination: Destination
    lease: Lease
    connection: psycopg.Connection
    run_id: str
    log: Logger

    def run(self) -> AdoptReport:
        stored = self.destination.landing.stored(self.source.name, self.stream.name)
        keys = [each.key for each in stored if each.key.endswith(f"/{MANIFEST}")]
        known: dict[UUID, bool] = dict(
            self.connection.execute(
                "select load_id, status = 'loaded' or status = 'superseded' or manifest_key is not null"
                " and status = 'failed' from ops.loads where source = %s and stream = %s and kind <> 'replay'",
                [self.source.name, self.stream.name],
            ).fetchall()
        )
        loads: list[LoadReport] = []
        left: list[str] = []
        for key, manifest in self._unknown(keys, known, left):
            try:
                report = self._take_over(key, manifest)
            except DataError as error:
                left.append(f"load {manifest.load_id}: {error.what}")
                self.log.warning("Not taken over: %s", error)
                continue
            if report is None:
                left.append(f"load {manifest.load_id}: it starts behind what raw has; the source is asked again")
                continue
            loads.append(report)
            self.log.info("Took over load %s: %s.", manifest.load_id, report)
            reach("load-adopted")
        return AdoptReport(self.source.name, self.stream.name, tuple(loads), tuple(left), self._lost(set(keys)))

    def _unknown(self, keys: list[str], known: dict[UUID, bool], left: list[str]) -> Iterator[tuple[str, Manifest]]:
        """Manifests of loads that are not done, in the order in which they landed."""
        found = []
        for key in keys:
            load_id = UUID(key.split("/")[3].removeprefix("load_id="))
            if known.get(load_id):
                continue
            try:
                manifest = self.destination.landing.manifest(key)
            except DataError as error:
                left.append(f"load {load_id}: {error.what}")
                continue
            if manifest is not None:
                found.append((key, manifest))
        yield from sorted(found, key=lambda each: each[1].landed_at)

    def _take_over(self, key: str, manifest: Manifest) -> LoadReport | None:
        """Load it; None if that would leave a hole before it."""
        window = Window(manifest.window_start, manifest.window_end) if manifest.window_start else None  # type: ignore[arg-type]  # both are set, or none
        is_full = self._is_full_refresh(manifest, window)
        if window is None and not is_full and self._is_behind_a_hole(manifest):
            return None
        purpose = Purpose(
            self.source.name,
            self.stream.name,
            LoadKind(manifest.kind),
            window,
            manifest.cursor_from,
            is_full,
        )
        load = self._write_down(purpose, key, manifest)
        if purpose.kind is LoadKind.KEYS:
            return self._take_over_keys(load, key, manifest)
        ingestion = Ingestion(
            self.source,
            self.stream,
            self.connections,
            self.destination,
            self.lease,
            self.connection,
            window,
            is_full,
            None,
            self.run_id,
            self.log,
            None,
            is_adopted=True,
        )
        try:
            return ingestion.bring(load, manifest)
        except DataError as error:
            ledger.abandon(self.connection, load.load_id, key, error)
            raise

    def _take_over_keys(self, load: Load, key: str, manifest: Manifest) -> LoadReport:
        try:
            if self.stream.deletes is None or not isinstance(self.source, KeySource):
                raise DataError("The stream's deletions are no longer looked for.", remedy="Nothing needs to be done.")
            comparing = Comparing(
                self.source,
                self.stream,
                self.connections,
                self.destination,
                self.lease,
                self.connection,
                None,
                self.run_id,
                self.log,
            )
            return comparing.take_landed(load, manifest, key, self.stream.deletes.limit)
        except DataError as error:
            ledger.abandon(self.connection, load.load_id, key, error)
            raise

    def _write_down(self, purpose: Purpose, key: str, manifest: Manifest) -> Load:
        size = sum(landed.bytes for landed in manifest.objects)
        with self.lease.guard(self.connection):
            ledger.begin_load(self.connection, manifest.load_id, purpose, self.run_id)
            ledger.mark_landed(self.connection, manifest.load_id, key, manifest.rows, size)
            row = self.connection.execute(
                "update ops.loads set started_at = %s, landed_at = %s where load_id = %s returning attempt, started_at",
                [_begun(key, manifest), manifest.landed_at, manifest.load_id],
            ).fetchone()
        assert row is not None  # noqa: S101 - written just now
        return Load(manifest.load_id, row[0], "landed", row[1], manifest.cursor_from, key)

    def _is_full_refresh(self, manifest: Manifest, window: Window | None) -> bool:
        if manifest.full_refresh is not None:
            return manifest.full_refresh
        # Of a load from before that was noted: what starts at the beginning although there is a watermark.
        is_of_rows = manifest.kind == LoadKind.ROWS and self.stream.cursor is not None and window is None
        return is_of_rows and manifest.cursor_from is None and self._watermark() is not None

    def _watermark(self) -> str | None:
        return read_watermark(self.connection, self.source.name, self.stream.name).value

    def _is_behind_a_hole(self, manifest: Manifest) -> bool:
        """Whether a load starts behind the watermark: those between are not there."""
        if self.stream.cursor is None or manifest.cursor_from is None:
            return False
        reached = self._watermark()
        kind = raw_columns(self.connection, self.source.name, self.stream.name).get(
            column_name(self.stream.cursor.field)
        )
        if reached is None or kind is None:
            return True
        name = type_name(kind)
        both = highest_of(self.connection, name, [reached, manifest.cursor_from])
        return both != highest_of(self.connection, name, [reached])

    def _lost(self, keys: set[str]) -> int:
        rows = self.connection.execute(
            "select distinct manifest_key from ops.loads"
            " where source = %s and stream = %s and status = 'loaded' and manifest_key is not null",
            [self.source.name, self.stream.name],
        ).fetchall()
        return sum(key not in keys for (key,) in rows)


def _begun(key: str, manifest: Manifest) -> datetime:
    """When a load was begun: its id says so to the millisecond, and its folder has the day."""
    day = datetime.fromisoformat(key.split("/")[2].removeprefix("dt=")).replace(tzinfo=UTC)
    by_id = datetime.fromtimestamp((manifest.load_id.int >> 80) / 1000, UTC)
    return by_id if by_id.date() == day.date() else day
