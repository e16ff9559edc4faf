"""Source → landing → raw, for one stream: the walk that every load takes.

1. Take the stream's lease, so that runs of one stream take turns; to read a window, that of the window.
2. A load that an earlier run left behind is finished first; if it has landed, from the landing.
3. Extract what changed since the watermark (or a window). Each chunk goes to the landing and to the attempt's table.
4. Write the manifest: from here on the source need not be asked again.
5. Commit, in one transaction.

A kill at any instant leaves raw as it was, and the next run picks up at step 2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.engine import URL
from uuid_utils.compat import uuid7

from connectors.connections import Connections, Database, ObjectStore
from connectors.destinations.landing import Landing, LandingWriter
from connectors.destinations.manifest import LoadPlace, Manifest
from connectors.destinations.warehouse import ledger
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.commit import CommitRequest, commit, settle
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.first_load import table_for_extraction
from connectors.destinations.warehouse.forgotten import FORGET_KEY, SecretOf, no_secret
from connectors.destinations.warehouse.ledger import LEASE_SECONDS, Lease, Load, LoadReport, Purpose
from connectors.destinations.warehouse.raw_table import LoadContext, raw_columns
from connectors.destinations.warehouse.typed_documents import UnfitError
from connectors.destinations.warehouse.watermark import Watermark, read_watermark
from connectors.erasure import leave_out_again
from connectors.errors import (
    ConfigurationError,
    DataError,
    DestinationUnavailableError,
    HeadwaterError,
    LandingCorruptError,
    SourceRewoundError,
)
from connectors.failpoints import reach
from connectors.model import (
    Chunk,
    Column,
    Extraction,
    ExtractRequest,
    FileVersion,
    LandingFormat,
    Snapshot,
    Source,
    SourcePosition,
    Stream,
    Window,
    check_full_refresh,
    check_window,
)
from connectors.overlap import ReadAhead, WriteBehind
from connectors.privacy import untreated
from connectors.shared_read import SharedRead
from connectors.stopping import is_stopped, stopped
from connectors.treatments.extractions import treated

WAREHOUSE_OWNER = Database("warehouse_owner")
WAREHOUSE_LOADER = Database("warehouse_loader")
LANDING = ObjectStore("landing")

_PROGRESS_ROWS = 100_000
_MOST_READINGS = 5

Logger = logging.Logger | logging.LoggerAdapter[Any]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where loads go."""

    warehouse: URL
    landing: Landing
    forget_secret: SecretOf = no_secret
    """What keys of forgotten rows are hashed with beside their salt, if anything."""

    @classmethod
    def of(cls, connections: Connections) -> Destination:
        """The destination that the connections name.

        Raises:
            ConfigurationError: one of the two is not set.
        """

        def secret() -> str | None:
            with suppress(ConfigurationError):
                return connections.secret(FORGET_KEY)
            return None

        return cls(connections.database(WAREHOUSE_LOADER), Landing(connections.object_store(LANDING)), secret)


def ingest(
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    window: Window | None = None,
    full_refresh: bool = False,
    shared: SharedRead | None = None,
    run: str = "by hand",
    wait_seconds: float = 300.0,
    lease_seconds: float = LEASE_SECONDS,
    log: Logger | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[LoadReport]:
    """Bring a stream up to date, or read one window of it again.

    Args:
        full_refresh: read everything, whatever the watermark, and take the source's word for each row even where raw
            has a newer version; the watermark starts again from what was read. Rows that the source has no more stay.
        shared: the instant to read as of, with other streams of the source; see `shared_read`. Not for a window.
        run: who does it, for the ledger and for those who wait.
        wait_seconds: how long to wait for another run of the same stream.
        lease_seconds: how long this run may sleep before another takes the stream over.
        watch: told how many rows have been read so far, after each chunk; it must return at once.

    Returns:
        What each load did: the one asked for, last; before it the one that an earlier run had left behind, if any.

    Raises:
        HeadwaterError: by kind, see `connectors.errors`; source, stream, window and load are filled in. Nothing of the
            failed load is in raw, and nothing of the earlier ones is lost.
    """
    log = log or logging.getLogger("headwater")
    try:
        check_window(stream, window)
        check_full_refresh(window, full_refresh)
        lease = Lease(
            destination.warehouse,
            source.name,
            stream.name,
            run,
            wait_seconds=wait_seconds,
            lease_seconds=lease_seconds,
            window=window,
        )
        with (
            translated_errors(),
            lease,
            connect(
                destination.warehouse,
                f"load {source.name}.{stream.name}",
                autocommit=True,
                idle_seconds=lease_seconds,
            ) as connection,
        ):
            ingestion = Ingestion(
                source,
                stream,
                connections,
                destination,
                lease,
                connection,
                window,
                full_refresh,
                shared,
                run,
                log,
                watch,
            )
            return list(ingestion.run())
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name, window=window) from error.__cause__


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Loads of one purpose, by a run that holds the lease."""

    source: Source
    stream: Stream
    connections: Connections
    destination: Destination
    lease: Lease
    connection: psycopg.Connection
    window: Window | None
    full_refresh: bool
    shared: SharedRead | None
    run_id: str
    log: Logger
    watch: Callable[[int], None] | None
    is_adopted: bool = False
    """Whether what landed is of an earlier warehouse, see `connectors.adopt`."""

    def run(self) -> Iterator[LoadReport]:
        reach("lease-taken")
        self._check_raw_is_there()
        earlier = ledger.open_load(self.connection, self._purpose())
        if earlier is not None and (manifest := self._manifest_of(earlier)) is not None:
            self.log.info("Load %s had landed before; loading it from the landing.", earlier.load_id)
            try:
                yield self.bring(self._begin(earlier.load_id), manifest)
            except DataError as error:  # damaged since, or refused as before: the source may have mended it
                self._give_up(earlier, error)
            earlier = None
        yield self.bring(self._begin(earlier.load_id if earlier else uuid7()), None)

    def _check_raw_is_there(self) -> None:
        """A load of what is new into a raw table that was dropped would leave out all that is not new.

        Raises:
            ConfigurationError: loads have filled the table, and there is none.
        """
        name, stream = f"{self.source.name}.{self.stream.name}", (self.source.name, self.stream.name)
        if self.window is not None or self.full_refresh or raw_columns(self.connection, *stream):
            return
        goes_on = self._watermark().value is not None or ledger.files_loaded(self.connection, *stream)
        if goes_on and ledger.has_filled_raw(self.connection, *stream):
            raise ConfigurationError(
                f"The table raw_{name} is gone, and a load of what is new would bring back little of it.",
                remedy=f"Run `headwater rebuild {name}`, which fills it from the landing; or load once with "
                "full_refresh, which reads all that the source has.",
            )

    def _purpose(self) -> Purpose:
        return Purpose(
            self.source.name,
            self.stream.name,
            window=self.window,
            cursor_from=self._watermark().value,
            full_refresh=self.full_refresh,
        )

    def _watermark(self) -> Watermark:
        """Where the load starts."""
        if self.window is not None or self.full_refresh:
            return Watermark()
        return read_watermark(self.connection, self.source.name, self.stream.name)

    def _begin(self, load_id: UUID) -> Load:
        with self.lease.guard(self.connection):
            return ledger.begin_load(self.connection, load_id, self._purpose(), self.run_id)

    def _place(self, load: Load) -> LoadPlace:
        return LoadPlace(self.source.name, self.stream.name, load.load_id, load.started_at)

    def _manifest_of(self, load: Load) -> Manifest | None:
        """The landing is asked, not the ledger: a run can die between the manifest and the ledger's note of it."""
        try:
            return self.destination.landing.manifest(self._place(load).manifest_key)
        except LandingCorruptError as error:
            self._give_up(load, error)
            return None

    def _give_up(self, load: Load, error: DataError) -> None:
        self.log.warning("%s Its range is extracted again.", error)
        ledger.abandon(self.connection, load.load_id, self._place(load).manifest_key, error)

    def bring(self, load: Load, manifest: Manifest | None) -> LoadReport:
        """Extract (or take from the landing) and commit; a failure is noted in the ledger on its way out."""
        reach("load-begun")
        try:
            report = self._load_landed(load, manifest) if manifest else self._extract(load)
        except Exception as met:
            error = stopped() if is_stopped() else met  # whatever a cancelled statement looks like to who waited for it
            if isinstance(error, HeadwaterError):
                error.at(source=self.source.name, stream=self.stream.name, window=self.window, load_id=load.load_id)
            if not self.connection.closed and not self.connection.broken:
                with self.lease.guard(self.connection):  # if the stream is lost, that is the error
                    ledger.mark_failed(self.connection, load.load_id, error)
            if error is met:
                raise
            raise error from met
        self.log.info("Loaded %s.%s: %s.", self.source.name, self.stream.name, report)
        return report

    def _extract(self, load: Load) -> LoadReport:
        request = ExtractRequest(
            window=self.window,
            watermark=load.cursor_from,
            files_loaded={}
            if self.full_refresh
            else ledger.files_loaded(self.connection, self.source.name, self.stream.name),
            snapshot=self._snapshot(),
        )
        self._warn_of_untreated()
        read = partial(self.source.extract, self.stream, request, self.connections)
        extraction = treated(read, self.stream, self.connections)
        if extraction.position is not None and extraction.position.is_behind:
            self._check_rewound(extraction.position)
        manifest: Manifest | None = None
        with table_for_extraction(
            self.connection,
            self.source.name,
            self.stream,
            load.load_id,
            load.attempt,
            extraction.format,
            extraction.columns,
            scope=self.lease.scope,
        ) as attempt:
            with self.destination.landing.writer(
                self._place(load), load.attempt, extraction.format, extraction.landing, extraction.columns
            ) as writer:
                files = take_in(extraction, attempt, writer, self.log, self.watch)
                if attempt.rows or files:
                    manifest = writer.finish(
                        columns=observed(attempt),
                        typed_fields=attempt.typed_fields,
                        window=(self.window.start, self.window.end) if self.window else None,
                        cursor_from=load.cursor_from,
                        cursor_to=extraction.position.highest if extraction.position else self._highest(attempt),
                        position=extraction.position,
                        privacy=self.stream.privacy,
                        full_refresh=self.full_refresh,
                    )
                    reach("manifest-written")
                    self._note_landed(load, manifest, extraction.requests() if extraction.requests else None)
                    reach("landed-noted")
            is_ours = manifest is None or manifest.attempt == load.attempt
            if is_ours and not attempt.does_not_fit:
                with suppress(UnfitError):
                    return self._commit(load, attempt, manifest, extraction.position, files)
        assert manifest is not None  # noqa: S101 - a load without rows fits
        if is_ours:
            self.log.info("Not every value fits its column as it is: each is judged, from the landing.")
        # Otherwise an earlier attempt woke up and was first: what it landed is the load, also for a rebuild.
        return self._load_landed(load, manifest)

    def _warn_of_untreated(self) -> None:
        """Say that the landing has values from before they became private, for as long as it has."""
        if not self.stream.privacy:
            return
        key = ledger.first_manifest(self.connection, self.source.name, self.stream.name)
        first = None
        with suppress(LandingCorruptError):  # whoever needs that load is told
            first = self.destination.landing.manifest(key) if key is not None else None
        if first is not None and (fields := untreated(self.stream.privacy, first.privacy)):
            self.log.warning(
                "%s landed untreated before it became private: the landing and raw still have its values."
                " docs/privacy.md says how to begin anew.",
                ", ".join(f"`{field}`" for field in fields),
            )

    def _snapshot(self) -> Snapshot | None:
        """The instant to read as of, unless somebody has loaded the stream since then."""
        if self.shared is None or self.window is not None:
            return None
        name = self.stream.name
        if ledger.loads_committed(self.connection, self.source.name).get(name, 0) == self.shared.loads.get(name, 0):
            return self.shared.snapshot
        self.log.info("%s was loaded meanwhile: it is read as of now, not as of the instant of the others.", name)
        return None

    def _check_rewound(self, position: SourcePosition) -> None:
        """The source's highest cursor is lower than the watermark: its newest rows were deleted, or it was put back.

        Raises:
            SourceRewoundError: it was put back; what it changes from now on might lie below the watermark.
        """
        before = self._watermark()
        cursor = self.stream.cursor.field if self.stream.cursor else ""
        behind = f"The highest {cursor} of the source is {position.highest}, and the watermark is {before.value}"
        if position.follows(before.source_state):
            self.log.warning("%s: its newest rows were deleted.", behind)
            return
        raise SourceRewoundError(
            f"{behind}: the source was restored from a backup, truncated or loaded anew. Nothing was read.",
            remedy="If the source is right as it is, run the stream once with full_refresh: every row is read, the "
            "source's word counts, and the watermark starts again from there.",
        )

    def _load_landed(self, load: Load, manifest: Manifest) -> LoadReport:
        for _ in range(_MOST_READINGS):
            with self._attempt(load, manifest.record_format, manifest.source_columns) as attempt, suppress(UnfitError):
                files = attempt.fill_from(self.destination.landing, manifest)
                self._note_landed(load, manifest)
                return self._commit(load, attempt, manifest, manifest.position, files)
        raise DestinationUnavailableError(
            f"The columns of raw changed {_MOST_READINGS} times while the load was taken from the landing.",
            remedy="Run again: the load has landed, and other loads of the stream have made their changes by now.",
        )

    def _attempt(self, load: Load, landing_format: LandingFormat, columns: tuple[Column, ...]) -> AttemptTable:
        return AttemptTable(
            self.connection,
            self.source.name,
            self.stream,
            load.load_id,
            load.attempt,
            landing_format,
            columns,
            scope=self.lease.scope,
        )

    def _highest(self, attempt: AttemptTable) -> str | None:
        if self.stream.cursor is None:
            return None
        column = column_name(self.stream.cursor.field)
        types = {column.name: column.type for column in observed(attempt)}
        kind = self.stream.columns.get(self.stream.cursor.field) or types.get(column, "text")
        return attempt.highest(column, kind)

    def _note_landed(self, load: Load, manifest: Manifest, requests: int | None = None) -> None:
        size = sum(landed.bytes for landed in manifest.objects)
        with self.lease.guard(self.connection):
            ledger.mark_landed(
                self.connection, load.load_id, self._place(load).manifest_key, manifest.rows, size, requests
            )

    def _commit(
        self,
        load: Load,
        attempt: AttemptTable,
        manifest: Manifest | None,
        position: SourcePosition | None,
        files: tuple[FileVersion, ...],
    ) -> LoadReport:
        context = LoadContext(self.source.name, self.stream, load.load_id, self.window, self.full_refresh)
        landed_at = manifest.landed_at if manifest is not None and self.is_adopted else None
        request = CommitRequest(context, position, files, self.destination.forget_secret, landed_at)
        left_out = leave_out_again(
            self.connection,
            self.lease,
            self.destination.landing,
            self.source.name,
            self.stream,
            attempt,
            manifest,
            self._place(load).manifest_key,
            self.destination.forget_secret,
        )
        warn_of_forgotten(left_out, self.log)
        work = partial(commit, self.connection, self.lease, attempt, request)
        return settled(work, self.destination, request, self.log)


def take_in(
    extraction: Extraction,
    attempt: AttemptTable,
    writer: LandingWriter,
    log: Logger,
    watch: Callable[[int], None] | None = None,
) -> tuple[FileVersion, ...]:
    """Copy all that is extracted into the attempt's table and the landing, chunk by chunk, each in a thread of its own.

    Returns:
        The source's files that it consists of, if it does.
    """
    files: dict[str, FileVersion] = {}
    landed = 0

    def land(chunk: Chunk) -> None:
        writer.write(chunk)
        reach("chunk-landed")

    with ReadAhead(extraction.chunks) as chunks, WriteBehind(land) as landing:
        for chunk in chunks:
            rows = attempt.write(chunk)
            reach("chunk-copied")
            landing.put(replace(chunk, rows=rows))
            if chunk.file is not None:
                files[chunk.file.path] = chunk.file
            landed += rows
            if watch is not None:
                watch(landed)
            if landed // _PROGRESS_ROWS > (landed - rows) // _PROGRESS_ROWS:
                log.info("%s rows so far.", f"{landed:,}")
    attempt.finish()
    reach("all-copied")
    if attempt.rows != landed:
        raise DataError(
            f"{landed:,} rows were read and {attempt.rows:,} arrived in the warehouse.",
            remedy="Run again; if it lasts, report it: this must not happen.",
        )
    return tuple(files.values())


def warn_of_forgotten(rows: int, log: Logger) -> None:
    """Say that the source has rows that were forgotten here."""
    if rows:
        log.warning("%s rows of forgotten keys came again and were left out: delete them at the source.", f"{rows:,}")


def settled(
    work: Callable[[], LoadReport], destination: Destination, request: CommitRequest, log: Logger
) -> LoadReport:
    """Commit. If the connection breaks while COMMIT is under way, only the ledger knows how it ended: it is asked."""
    try:
        return work()
    except (psycopg.OperationalError, psycopg.InterfaceError):
        report = settle(destination.warehouse, request)
        if report is None:
            raise
        log.warning("The connection broke at the commit of load %s; the ledger has it.", request.context.load_id)
        return report


def observed(attempt: AttemptTable) -> list[Column]:
    """The columns of a load, as its source or else its values say."""
    return [Column(name, kind or "text") for name, kind in attempt.asked.items()]
