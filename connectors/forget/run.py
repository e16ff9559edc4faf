"""Forget rows by their keys, everywhere: raw, landing, quarantine and ledger, and what models made of them.

1. The keys are written down as hashes, beside the landing too (`kept_list`): from here on neither a load nor a
   restore brings their rows, and nobody needs the keys any more.
2. The landing: objects with such rows are written anew (`landing`).
3. The ledger: quarantine, differences, messages (`words`).
4. Raw.
5. Models that keep rows, what is served, what a rollback would bring back, rows that tests failed on
   (`derived`).

Each step can be repeated, and what it erases is noted in the transaction that erases it. A run that was killed is taken
up by `resume`, at any time, by anyone who may; until then nothing that was erased comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse import forget_requests
from connectors.destinations.warehouse.connection import column_types, connect, translated_errors
from connectors.destinations.warehouse.forget_requests import Request, RequestStatus
from connectors.destinations.warehouse.forgotten import (
    ForgottenKeys,
    allow_again,
    forgotten_keys,
    key_kinds,
    note_place,
    record,
    unrecorded,
)
from connectors.destinations.warehouse.ledger import Lease, take_turn
from connectors.destinations.warehouse.windows import WindowBook, WindowColumn, counted
from connectors.errors import DataError, HeadwaterError
from connectors.failpoints import reach
from connectors.forget.derived import DerivedRows, Lineage
from connectors.forget.kept_list import keep_list
from connectors.forget.keys import Subject
from connectors.forget.landing import LandingFound, LandingOfStream
from connectors.forget.words import LedgerOfStream
from connectors.ingest import Destination, Logger
from connectors.model import Source, Stream

IDLE_SECONDS = 600.0
"""How long writing an object may keep the warehouse waiting."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may what in the warehouse; each erases what is its own. The loader is the destination's."""

    owner: URL
    transformer: URL
    publisher: URL


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What became of a request, or what one would do."""

    request_id: UUID | None
    """None if nothing was to be changed."""
    status: RequestStatus | None
    places: Mapping[str, int]
    """Rows by where they were; of the landing also objects."""
    doubtful: int
    """Records that no row could be made of and that may be of one of the keys: they are where they were."""
    to_be_built: tuple[str, ...] = ()
    """Tables that lose the rows with the next build."""
    remarks: tuple[str, ...] = ()


def forget(
    subject: Subject,
    destination: Destination,
    roles: Roles,
    lineage: Lineage,
    *,
    by: str,
    why: str | None = None,
    with_unreadable: bool = False,
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> ForgetReport:
    """Erase rows for good.

    Args:
        subject: which rows of which stream.
        lineage: what models made of the stream.
        by: who wants it, for the ledger.
        with_unreadable: also records that no row could be made of and that have a word which is one of the keys.
        wait_seconds: how long to wait for a run of the stream, and for a build.

    Raises:
        ConfigurationError: a model keeps rows and does not say by which columns they are told; nothing was erased.
        DataError: loads of the landing could not be read; all else is erased, and the request stays open.
        HeadwaterError: others by kind, see `connectors.errors`. What was erased until then is; `resume` goes on.
    """
    lineage.check(subject.columns)
    with translated_errors(), connect(roles.owner, f"forget {subject}", autocommit=True) as owner:
        with owner.transaction():
            request = forget_requests.begin(
                owner,
                subject.source.name,
                subject.stream.name,
                subject.columns,
                len(subject.keys),
                by=by,
                why=why,
                with_unreadable=with_unreadable,
            )
            record(
                owner,
                subject.source.name,
                subject.stream.name,
                subject.columns,
                _kinds(destination, subject),
                subject.keys,
                request.request_id,
                destination.forget_secret(),
            )
        reach("keys-recorded")
    return resume(
        request, subject.source, subject.stream, destination, roles, lineage, wait_seconds=wait_seconds, log=log
    )


def resume(
    request: Request,
    source: Source,
    stream: Stream,
    destination: Destination,
    roles: Roles,
    lineage: Lineage,
    *,
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> ForgetReport:
    """Go on with a request that is not done; arguments, result and errors as of `forget`."""
    log = log or logging.getLogger("headwater")
    run = f"forget {request.request_id}"
    lineage.check(request.columns)
    try:
        with (
            translated_errors(),
            Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds) as lease,
            _connected(destination, f"forget {source.name}.{stream.name}") as loader,
            connect(roles.owner, f"forget {source.name}.{stream.name}", autocommit=True) as owner,
        ):
            # Before anything is erased: a backup that is older than this request has to know of it.
            keep_list(owner, destination.landing, source.name, stream.name)
            reach("list-kept")
            keys = forgotten_keys(
                owner, source.name, stream.name, destination.forget_secret, request=request.request_id
            )
            if keys is None and request.status == RequestStatus.RUNNING:
                # A later request has taken its keys over, or they may come again.
                forget_requests.set_status(owner, request.request_id, RequestStatus.DONE)
                done = forget_requests.places(owner, request.request_id)
                return ForgetReport(request.request_id, RequestStatus.DONE, done, 0)
            derived = DerivedRows(roles.transformer, roles.publisher, lineage, keys, request, wait_seconds, run)
            landing = LandingFound()
            if request.status == RequestStatus.RUNNING and keys is not None:
                landing = LandingOfStream(
                    loader,
                    lease,
                    destination,
                    source,
                    stream,
                    keys,
                    request.request_id,
                    log,
                    with_unreadable=request.with_unreadable,
                ).forget()
                reach("landing-erased")
                LedgerOfStream(owner, loader, source, stream, keys, request.request_id).forget()
                reach("ledger-erased")
                RawOfStream(loader, source, stream, keys).forget(lease, request.request_id)
                reach("raw-erased")
                derived.forget(lambda: forget_requests.note_derived(owner, request.request_id))
                reach("models-erased")
                if landing.unreached:
                    raise _unreached(landing.unreached)
                forget_requests.set_status(owner, request.request_id, RequestStatus.TO_BE_BUILT)
            waiting = derived.waiting()
            if not waiting:
                derived.forget_generations()
                reach("generations-forgotten")
                forget_requests.set_status(owner, request.request_id, RequestStatus.DONE)
            return ForgetReport(
                request.request_id,
                RequestStatus.TO_BE_BUILT if waiting else RequestStatus.DONE,
                forget_requests.places(owner, request.request_id),
                landing.doubtful,
                tuple(waiting),
                tuple(derived.remarks()),
            )
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def look(
    subject: Subject,
    destination: Destination,
    roles: Roles,
    lineage: Lineage,
    *,
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> ForgetReport:
    """What `forget` would erase; nothing is changed.

    Raises:
        ConfigurationError: a model keeps rows and does not say by which columns they are told.
        HeadwaterError: others by kind, see `connectors.errors`.
    """
    log = log or logging.getLogger("headwater")
    lineage.check(subject.columns)
    source, stream = subject.source, subject.stream
    try:
        with (
            translated_errors(),
            Lease(destination.warehouse, source.name, stream.name, "forget", wait_seconds=wait_seconds) as lease,
            _connected(destination, f"forget {source.name}.{stream.name}") as loader,
            connect(roles.owner, f"forget {source.name}.{stream.name}", autocommit=True) as owner,
        ):
            keys = unrecorded(loader, subject.columns, key_kinds(loader, source.name, stream), subject.keys)
            landing = LandingOfStream(loader, lease, destination, source, stream, keys, None, log).forget()
            places = {
                "landing": landing.rows,
                "landing, objects of killed runs": landing.orphans,
                "loading, tables of killed runs": landing.attempts,
                **LedgerOfStream(owner, loader, source, stream, keys, None).forget(),
                f"raw_{source.name}.{stream.name}": RawOfStream(loader, source, stream, keys).count(),
            }
            derived = DerivedRows(roles.transformer, roles.publisher, lineage, keys, None, wait_seconds, "forget")
            places |= derived.count()
            return ForgetReport(
                None,
                None,
                {place: rows for place, rows in places.items() if rows},
                landing.doubtful,
                tuple(derived.rebuilt_tables()),
                (*derived.remarks(), *landing.unreached),
            )
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def let_come_again(subject: Subject, destination: Destination, owner: URL, *, by: str, why: str | None = None) -> int:
    """Take keys out of what is forgotten, so that the next loads bring their rows if the source sends them.

    Returns:
        How many of the keys were forgotten.

    Raises:
        HeadwaterError: by kind, see `connectors.errors`.
    """
    source, stream = subject.source, subject.stream
    kinds = _kinds(destination, subject)
    with (
        translated_errors(),
        connect(owner, f"forget {subject}", autocommit=True) as connection,
        connection.transaction(),
    ):
        forget_requests.begin(
            connection, source.name, stream.name, subject.columns, len(subject.keys), by=by, why=why, allows_again=True
        )
        known = allow_again(
            connection, source.name, stream.name, subject.columns, kinds, subject.keys, destination.forget_secret
        )
        keep_list(connection, destination.landing, source.name, stream.name)
        return known


class RawOfStream:
    """The raw table of a stream, rows marked as deleted too."""

    def __init__(self, connection: psycopg.Connection, source: Source, stream: Stream, keys: ForgottenKeys) -> None:
        self._connection = connection
        self._source = source
        self._stream = stream
        self.name = sql.Identifier(f"raw_{source.name}", stream.name)
        self._types = column_types(connection, f"raw_{source.name}", stream.name)
        self._condition = keys.condition(self._types, self._types)

    def count(self) -> int:
        """The rows with one of the keys."""
        if self._condition is None:
            return 0
        row = self._connection.execute(
            sql.SQL("select count(*) from {} where {}").format(self.name, self._condition)
        ).fetchone()
        return int(row[0]) if row else 0

    def forget(self, lease: Lease, request: UUID) -> None:
        """Delete them, have the ledger expect them no more, and have PostgreSQL clear their pages.

        Raises:
            FencedError: a successor has taken the stream over.
        """
        if self._condition is None:
            return
        column = WindowColumn.of(self._stream, self._types)
        start: sql.Composable = column.start() if column is not None else sql.SQL("null::timestamptz")
        with lease.guard(self._connection):
            when = take_turn(self._connection, self._source.name, self._stream.name)
            rows = self._connection.execute(
                sql.SQL("delete from {} where {} returning {}").format(self.name, self._condition, start)
            ).fetchall()
            if column is not None and rows:
                self._recount(column, sorted({each for (each,) in rows if each is not None}), when)
            note_place(self._connection, request, f"raw_{self._source.name}.{self._stream.name}", len(rows))
        self._connection.execute(sql.SQL("vacuum {}").format(self.name))

    def _recount(self, column: WindowColumn, starts: Sequence[datetime], when: datetime) -> None:
        book = WindowBook(self._connection, self._source.name, self._stream, None, when)
        book.recount(counted(self._connection, self.name, column), starts)
        self._connection.execute(
            "update ops.windows set is_stale = true where source = %s and stream = %s and window_start = any(%s)"
            " and built_by is not null",
            [self._source.name, self._stream.name, list(starts)],
        )


def _connected(destination: Destination, purpose: str) -> psycopg.Connection:
    return connect(destination.warehouse, purpose, autocommit=True, idle_seconds=IDLE_SECONDS)


def _kinds(destination: Destination, subject: Subject) -> dict[str, str]:
    with _connected(destination, f"forget {subject}") as connection:
        return key_kinds(connection, subject.source.name, subject.stream)


def _unreached(loads: Sequence[str]) -> DataError:
    return DataError(
        f"{len(loads)} loads of the landing could not be reached: {'; '.join(loads)}",
        remedy="All else is erased. Put right what is said of each, then run `headwater forget --resume`.",
    )
