"""Find the rows that a source has deleted: read all its keys, and mark in raw what is not among them.

A cursor shows what is new or changed, never what is gone. For a stream whose definition has `deletes`, the keys go
through the same walk as rows do: the stream's lease, an attempt's table and the landing together, the manifest, one
commit. No load of rows can come between: what raw got after the keys were read would seem deleted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import psycopg
from uuid_utils.compat import uuid7

from connectors.connections import Connections
from connectors.destinations.manifest import LoadPlace, Manifest
from connectors.destinations.warehouse import ledger
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.commit import CommitRequest, record
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.key_comparison import KeyComparison, commit_keys
from connectors.destinations.warehouse.ledger import (
    LEASE_SECONDS,
    Lease,
    Load,
    LoadKind,
    LoadReport,
    Purpose,
    take_turn,
)
from connectors.destinations.warehouse.raw_table import LoadContext, raw_columns
from connectors.erasure import leave_out_again
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.failpoints import reach
from connectors.ingest import Destination, Logger, observed, settled, take_in, warn_of_forgotten
from connectors.model import KeySource, Source, Stream
from connectors.treatments.extractions import treated


def check_limit(limit: float | None) -> None:
    """Refuse a limit that is no share.

    Raises:
        ConfigurationError: it is below 0 or above 1.
    """
    if limit is not None and not 0 <= limit <= 1:
        raise ConfigurationError(
            f"The limit of deletions is {limit}.", remedy="It is a share of the rows: give a number from 0 to 1."
        )


def find_deleted(
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    limit: float | None = None,
    run: str = "by hand",
    wait_seconds: float = 300.0,
    lease_seconds: float = LEASE_SECONDS,
    log: Logger | None = None,
) -> LoadReport:
    """Mark the rows of raw that the source no longer has, and unmark those that it has again.

    Args:
        limit: the share of raw's live rows, 0 to 1, that may be gone; the stream's own, without it. Only a limit of 1
            given here takes a source without a single row at its word.
        run: who does it, for the ledger and for those who wait.
        wait_seconds: how long to wait for another run of the same stream.
        lease_seconds: how long this run may sleep before another takes the stream over.

    Returns:
        In keys: `extracted` were read, `deleted` rows were marked, `updated` are back; the rest is `unchanged`. Zeros
        if the stream has never been loaded; the source is not asked then.

    Raises:
        ConfigurationError: the stream has no `deletes`, its source cannot tell its keys, or the limit is no share.
        ContractViolationError: more is gone than the limit allows, or the keys cannot be compared.
        HeadwaterError: others by kind, see `connectors.errors`. Whatever it is, nothing was marked.
    """
    log = log or logging.getLogger("headwater")
    try:
        check_limit(limit)
        if stream.deletes is None:
            raise ConfigurationError(
                "This stream's deletions are not looked for.",
                remedy="Give it `deletes` in its definition, if its source deletes rows.",
            )
        if not isinstance(source, KeySource):
            raise ConfigurationError(
                "This source cannot tell which keys it has.", remedy="Drop the stream's `deletes`, or give it `keys`."
            )
        lease = Lease(
            destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds, lease_seconds=lease_seconds
        )
        with (
            translated_errors(),
            lease,
            connect(
                destination.warehouse,
                f"keys {source.name}.{stream.name}",
                autocommit=True,
                idle_seconds=lease_seconds,
            ) as connection,
        ):
            comparing = Comparing(source, stream, connections, destination, lease, connection, limit, run, log)
            return comparing.run(stream.deletes.limit)
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


@dataclass(frozen=True, slots=True)
class Comparing:
    """Reads of all keys of a stream, by a run that holds the lease."""

    source: KeySource
    stream: Stream
    connections: Connections
    destination: Destination
    lease: Lease
    connection: psycopg.Connection
    limit: float | None
    run_id: str
    log: Logger

    def run(self, usual_limit: float) -> LoadReport:
        reach("lease-taken")
        self._close("It ended before its commit; keys are read anew.")
        purpose = Purpose(self.source.name, self.stream.name, LoadKind.KEYS)
        with self.lease.guard(self.connection):
            # Commits before it are in raw when the keys are read; those after it say so by when they were.
            take_turn(self.connection, self.source.name, self.stream.name)
            load = ledger.begin_load(self.connection, uuid7(), purpose, self.run_id)
        reach("load-begun")
        try:
            if raw_columns(self.connection, self.source.name, self.stream.name):
                report = self._compare(load, partial(self._check, usual_limit=usual_limit))
            else:
                report = self._nothing_to_compare(load)
        except Exception as error:
            if isinstance(error, HeadwaterError):
                error.at(source=self.source.name, stream=self.stream.name, load_id=load.load_id)
            if not self.connection.closed and not self.connection.broken:
                self._close(str(error), error)
            raise
        self.log.info("Compared keys of %s.%s: %s.", self.source.name, self.stream.name, report)
        return report

    def _close(self, message: str, error: Exception | None = None) -> None:
        with self.lease.guard(self.connection):
            ledger.close_key_loads(self.connection, self.source.name, self.stream.name, message, error)

    def _compare(self, load: Load, check: partial[None]) -> LoadReport:
        read = partial(self.source.keys, self.stream, self.connections)
        extraction = treated(read, self.stream, self.connections, only=self.stream.primary_key)
        place = LoadPlace(self.source.name, self.stream.name, load.load_id, load.started_at)
        with AttemptTable(
            self.connection,
            self.source.name,
            self.stream,
            load.load_id,
            load.attempt,
            extraction.format,
            extraction.columns,
        ) as attempt:
            with self.destination.landing.writer(place, load.attempt, extraction.format) as writer:
                take_in(extraction, attempt, writer, self.log)
                # Also when there is no key at all: that says something, and a rebuild repeats it.
                manifest = writer.finish(
                    columns=observed(attempt),
                    typed_fields=attempt.typed_fields,
                    window=None,
                    cursor_from=None,
                    cursor_to=None,
                    kind=LoadKind.KEYS.value,
                    privacy=self.stream.privacy,
                )
                reach("manifest-written")
                size = sum(landed.bytes for landed in manifest.objects)
                with self.lease.guard(self.connection):
                    ledger.mark_landed(self.connection, load.load_id, place.manifest_key, manifest.rows, size)
                reach("landed-noted")
            return self._commit(load, attempt, manifest, place.manifest_key, check)

    def take_landed(self, load: Load, manifest: Manifest, manifest_key: str, usual_limit: float) -> LoadReport:
        """Compare keys that were read for an earlier warehouse, see `connectors.adopt`.

        Raises:
            As `find_deletions`.
        """
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
            check = partial(self._check, usual_limit=usual_limit)
            return self._commit(load, attempt, manifest, manifest_key, check, manifest.landed_at)

    def _commit(
        self,
        load: Load,
        attempt: AttemptTable,
        manifest: Manifest,
        manifest_key: str,
        check: partial[None],
        landed_at: datetime | None = None,
    ) -> LoadReport:
        secret = self.destination.forget_secret
        left_out = leave_out_again(
            self.connection,
            self.lease,
            self.destination.landing,
            self.source.name,
            self.stream,
            attempt,
            manifest,
            manifest_key,
            secret,
        )
        warn_of_forgotten(left_out, self.log)
        context = LoadContext(self.source.name, self.stream, load.load_id, None)
        request = CommitRequest(context, secret=secret, landed_at=landed_at)
        work = partial(commit_keys, self.connection, self.lease, attempt, request, check, began_at=load.started_at)
        return settled(work, self.destination, request, self.log)

    def _nothing_to_compare(self, load: Load) -> LoadReport:
        self.log.info("%s.%s has never been loaded: there are no rows to compare.", self.source.name, self.stream.name)
        report = LoadReport(self.source.name, self.stream.name, load.load_id, None, 0, 0, 0, 0, 0, 0, 0, None)
        with self.lease.guard(self.connection):
            when = take_turn(self.connection, self.source.name, self.stream.name)
            record(self.connection, report, when)
        return report

    def _check(self, comparison: KeyComparison, *, usual_limit: float) -> None:
        """Refuse a comparison that looks like a mishap at the source rather than like deletions.

        Raises:
            ContractViolationError: it does.
        """
        unusable = comparison.read - comparison.usable
        if unusable > self.stream.reject_limit * comparison.read:
            raise comparison.violation(
                f"{unusable:,} of the {comparison.read:,} keys that were read are null or no values of their column's "
                f"type, more than the {self.stream.reject_limit:.1%} allowed.",
                "Nothing was marked. Ask the source's owner what became of the key, or raise the reject_limit.",
            )
        if unusable:
            self.log.warning("%s keys that were read are null or no values of their column's type.", f"{unusable:,}")
        live = comparison.count_live()
        if not comparison.read and live and self.limit != 1:
            raise comparison.violation(
                f"The source has no rows any more, and raw has {live:,}.",
                "Nothing was marked. If it is right, run it again with a limit of 1.",
            )
        limit = usual_limit if self.limit is None else self.limit
        gone = comparison.count_gone()
        if gone and gone / live > limit:
            raise comparison.violation(
                f"{gone:,} of {live:,} rows ({gone / live:.1%}) are gone at the source, more than the {limit:.1%} "
                "allowed.",
                "Nothing was marked. If it is right, run it again with a higher limit, once.",
            )
