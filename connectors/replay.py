"""Load rows again from the landing, by the present definition: those in quarantine, or the whole of a load.

For when the stream's definition, its contract or Headwater itself was put right after a load: the source is not asked,
and may not have the rows any more. A replay is a load of its own in the ledger, committed like any other; what still
does not fit goes to quarantine again, as the replay's. Raw keeps what is newer than the load that is replayed, and the
watermark stays where it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from uuid_utils.compat import uuid7

from connectors.destinations.warehouse import ledger
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.commit import CommitRequest, commit
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.ledger import LEASE_SECONDS, Lease, Load, LoadKind, LoadReport, Purpose
from connectors.destinations.warehouse.raw_table import LoadContext, Replay, raw_columns
from connectors.erasure import leave_out_again
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.failpoints import reach
from connectors.ingest import Destination, Logger, settled
from connectors.model import Source, Stream, Window, WriteDisposition


def replay(
    source: Source,
    stream: Stream,
    destination: Destination,
    *,
    load_id: UUID | None = None,
    window: Window | None = None,
    run: str = "by hand",
    wait_seconds: float = 300.0,
    lease_seconds: float = LEASE_SECONDS,
    log: Logger | None = None,
) -> list[LoadReport]:
    """Load what is in a stream's quarantine again, or all of one load.

    Args:
        load_id: the load whose rows all come again, quarantined or not; a replay stands for the load that it replayed.
            Without it, the rows in quarantine of every load, the oldest load first.
        window: of that load only the rows whose event time is in it, quarantined or not.
        run: who does it, for the ledger and for those who wait.
        wait_seconds: how long to wait for another run of the same stream.
        lease_seconds: how long this run may sleep before another takes the stream over.

    Returns:
        What each replay did, one a load that was replayed; none if nothing is in quarantine.

    Raises:
        ConfigurationError: the load cannot be replayed; the message says why.
        LandingCorruptError: the landing no longer has the load as it was.
        HeadwaterError: see `connectors.ingest.ingest`. Replays before the one that failed stand.
    """
    log = log or logging.getLogger("headwater")
    try:
        lease = Lease(
            destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds, lease_seconds=lease_seconds
        )
        with (
            translated_errors(),
            lease,
            connect(
                destination.warehouse,
                f"replay {source.name}.{stream.name}",
                autocommit=True,
                idle_seconds=lease_seconds,
            ) as connection,
        ):
            return list(_Replaying(source, stream, destination, lease, connection, run, log, window).run(load_id))
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


@dataclass(frozen=True, slots=True)
class _Original:
    """A load that is in raw, and what of it is to come again."""

    load_id: UUID
    manifest_key: str
    window_start: datetime | None
    window_end: datetime | None
    raw_loaded_at: datetime
    rows: list[int] | None = None
    """Places of its rows that are in quarantine; None for the whole load."""

    @property
    def window(self) -> Window | None:
        return Window(self.window_start, self.window_end) if self.window_start and self.window_end else None


@dataclass(frozen=True, slots=True)
class _Replaying:
    source: Source
    stream: Stream
    destination: Destination
    lease: Lease
    connection: psycopg.Connection
    run_id: str
    log: Logger
    window: Window | None = None

    def run(self, load_id: UUID | None) -> Iterator[LoadReport]:
        reach("lease-taken")
        self._close_dead_replays()
        originals = [self._whole(load_id)] if load_id is not None else self._in_quarantine()
        if originals:
            self._check_raw()
        for original in originals:
            yield self._guarded(original)

    def _check_raw(self) -> None:
        """Refuse to start a raw table with some rows of its history.

        Raises:
            ConfigurationError: the table is gone, and the ledger knows of rows in it.
        """
        had_rows = "select from ops.loads where source = %s and stream = %s and rows_inserted > 0 limit 1"
        names = [self.source.name, self.stream.name]
        if raw_columns(self.connection, *names):
            return
        if self.connection.execute(had_rows, names).fetchone() is not None:
            raise ConfigurationError(
                f"There is no table raw_{self.source.name}.{self.stream.name} to replay into.",
                remedy=f"Run `headwater rebuild {self.source.name}.{self.stream.name}` first.",
            )

    def _close_dead_replays(self) -> None:
        """A replay that was killed committed nothing; the rows it was about are where they were."""
        with self.lease.guard(self.connection):
            self.connection.execute(
                "update ops.loads set status = 'failed', error = 'It was killed before it committed.'"
                " where source = %s and stream = %s and kind = %s and status in ('extracting', 'landed')",
                [self.source.name, self.stream.name, LoadKind.REPLAY],
            )

    def _in_quarantine(self) -> list[_Original]:
        with self.connection.cursor(row_factory=class_row(_Original)) as cursor:
            found = cursor.execute(
                """
                select o.load_id, o.manifest_key, o.window_start, o.window_end, o.raw_loaded_at,
                       array_agg(q.row_in_load order by q.row_in_load) as rows
                from ops.quarantine q
                join ops.loads l on l.load_id = q.load_id
                join ops.loads o on o.load_id = coalesce(l.replay_of, l.load_id)
                where q.source = %s and q.stream = %s and q.replayed_by is null and o.manifest_key is not null
                group by o.load_id
                order by o.raw_loaded_at
                """,
                [self.source.name, self.stream.name],
            ).fetchall()
        if self.stream.write is not WriteDisposition.REPLACE:
            return found
        latest = self._latest()
        for original in found:
            if original.load_id != latest:
                self.log.warning("Load %s was replaced by later ones; its rows stay in quarantine.", original.load_id)
        return [original for original in found if original.load_id == latest]

    def _whole(self, load_id: UUID) -> _Original:
        """The load of that id, or the one that it replayed.

        Raises:
            ConfigurationError: it is none of this stream, or not one that can be loaded again.
        """
        row = self.connection.execute(
            "select o.load_id, o.manifest_key, o.window_start, o.window_end, o.raw_loaded_at, o.status, o.kind"
            " from ops.loads l join ops.loads o on o.load_id = coalesce(l.replay_of, l.load_id)"
            " where l.load_id = %s and l.source = %s and l.stream = %s",
            [load_id, self.source.name, self.stream.name],
        ).fetchone()
        if row is None:
            raise ConfigurationError(
                f"The ledger has no load {load_id} of this stream.",
                remedy="Take one of `select load_id, status, raw_loaded_at from ops.loads`.",
            )
        original, status, kind = _Original(*row[:-2]), *row[-2:]
        if status != "loaded" or kind != LoadKind.ROWS or original.manifest_key is None:
            what = f"is {status}, not loaded" if status != "loaded" else "brought no rows"
            raise ConfigurationError(
                f"Load {load_id} {what}, so there is nothing of it to load again.",
                remedy="Name a load that is in raw; one that was left behind is taken up by the stream's next run.",
            )
        if self.stream.write is WriteDisposition.REPLACE and original.load_id != (latest := self._latest()):
            raise ConfigurationError(
                f"Load {load_id} was replaced by later ones, the latest of them {latest}.",
                remedy="Of a `replace` stream only the latest load can be replayed.",
            )
        return original

    def _latest(self) -> UUID | None:
        row = self.connection.execute(
            "select load_id from ops.loads where source = %s and stream = %s and status = 'loaded' and kind = %s"
            " order by raw_loaded_at desc limit 1",
            [self.source.name, self.stream.name, LoadKind.ROWS],
        ).fetchone()
        return row[0] if row else None

    def _guarded(self, original: _Original) -> LoadReport:
        """One replay; a failure is noted in the ledger on its way out."""
        purpose = Purpose(
            self.source.name,
            self.stream.name,
            kind=LoadKind.REPLAY,
            window=original.window,
            replay_of=original.load_id,
        )
        with self.lease.guard(self.connection):
            load = ledger.begin_load(self.connection, uuid7(), purpose, self.run_id)
        reach("load-begun")
        try:
            report = self._replay(load, original)
        except Exception as error:
            if isinstance(error, HeadwaterError):
                error.at(window=original.window, load_id=load.load_id)
            if not self.connection.closed and not self.connection.broken:
                with self.lease.guard(self.connection):  # if the stream is lost, that is the error
                    ledger.abandon(self.connection, load.load_id, original.manifest_key, error)
            raise
        self.log.info("Replayed load %s: %s.", original.load_id, report)
        return report

    def _replay(self, load: Load, original: _Original) -> LoadReport:
        manifest = self.destination.landing.manifest_of_loaded(original.manifest_key)
        with AttemptTable(
            self.connection,
            self.source.name,
            self.stream,
            load.load_id,
            load.attempt,
            manifest.record_format,
            manifest.source_columns,
        ) as attempt:
            attempt.fill_from(self.destination.landing, manifest)
            leave_out_again(
                self.connection,
                self.lease,
                self.destination.landing,
                self.source.name,
                self.stream,
                attempt,
                manifest,
                original.manifest_key,
                self.destination.forget_secret,
            )
            reach("all-copied")
            # The bytes are the original's: nothing landed anew.
            with self.lease.guard(self.connection):
                ledger.mark_landed(self.connection, load.load_id, original.manifest_key, attempt.rows, 0)
            reach("landed-noted")
            rows = None if original.rows is None else tuple(original.rows)
            if self.window is not None:
                rows = attempt.rows_within(
                    self.window, raw_columns(self.connection, self.source.name, self.stream.name)
                )
            context = LoadContext(
                self.source.name,
                self.stream,
                load.load_id,
                original.window,
                replay=Replay(original.load_id, original.raw_loaded_at, rows),
            )
            request = CommitRequest(context, secret=self.destination.forget_secret)
            work = partial(commit, self.connection, self.lease, attempt, request)
            return settled(work, self.destination, request, self.log)
