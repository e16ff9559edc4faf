"""The ledger, schema `ops`: who may work on a stream, what was loaded, and how far.

A stream is worked on by one run at a time, and each of its windows by one more: windows are read beside each other and
beside what is new. A run takes a *lease*: a row in `ops.streams` with an epoch that grows by one, an end, and the
database session that renews it. Another run takes over when the lease has ended or its session is gone. The epoch is
the fence: a commit checks it under a row lock, so a run that slept through a takeover writes nothing. Commits of one
stream take turns, whoever makes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Self
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.shape import check_shape
from connectors.errors import FencedError, StoppedError, StreamBusyError
from connectors.model import Window
from connectors.stopping import begin_work, check_stop, end_work
from connectors.unsaid import UNSAID

LEASE_SECONDS = 60.0
"""How long a lease outlives the last sign of life of its holder. A holder that was killed is noticed at once, by its
session; only one that sleeps, or whose machine vanished, is waited for this long."""


class LoadKind(StrEnum):
    """What a load brings."""

    ROWS = "rows"
    """Rows of the source."""
    KEYS = "keys"
    """The keys that the source has; what raw has beside them was deleted there."""
    REPLAY = "replay"
    """Rows of an earlier load, from the landing."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a load is for. One that was left behind is taken up again by the next of the same purpose."""

    source: str
    stream: str
    kind: LoadKind = LoadKind.ROWS
    window: Window | None = None
    cursor_from: str | None = None
    """The watermark that it starts from."""
    full_refresh: bool = False
    """Whether everything is read, and counts even where raw has a newer version."""
    replay_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """A row of `ops.loads`."""

    load_id: UUID
    attempt: int
    status: str
    started_at: datetime
    cursor_from: str | None
    manifest_key: str | None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did, in rows. `extracted` is `inserted + updated + unchanged + duplicate + quarantined +
    forgotten`."""

    source: str
    stream: str
    load_id: UUID
    window: Window | None
    extracted: int
    inserted: int
    updated: int
    unchanged: int
    """In raw already, the same or newer."""
    duplicate: int
    """Other versions of a row that came in the same load; the last one counts."""
    quarantined: int
    deleted: int
    """Rows that a `replace` or a comparison of keys found gone."""
    watermark: str | None
    forgotten: int = 0
    """Rows whose key was forgotten: erased from the landing, and not loaded."""

    @property
    def moved(self) -> int:
        return self.inserted + self.updated + self.deleted

    def __str__(self) -> str:
        parts = [f"{self.extracted:,} extracted"]
        names = ("inserted", "updated", "unchanged", "duplicate", "quarantined", "forgotten", "deleted")
        parts += [f"{count:,} {name}" for name in names if (count := getattr(self, name))]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Fence:
    """What tells a run that it has lost its lease."""

    source: str
    stream: str
    scope: str
    epoch: int

    def check(self, connection: psycopg.Connection, *, is_snapshot_enough: bool = False) -> None:
        """Inside the transaction that commits: that no successor has taken over, and that none can until it ends.

        Args:
            is_snapshot_enough: that none had when the snapshot was taken; one may while the transaction goes on, which
                writes nothing but what it reads in that snapshot.

        Raises:
            FencedError: one has.
        """
        statement = "select epoch, holder from ops.streams where source = %s and stream = %s and scope = %s"
        if not is_snapshot_enough:
            statement += " for update"
        row = connection.execute(statement.encode(), [self.source, self.stream, self.scope]).fetchone()
        if row is None or row[0] != self.epoch:
            successor = f" (now held by {row[1]})" if row and row[1] else ""
            raise FencedError(
                f"This run lost the stream while it was stopped: epoch {self.epoch} was followed by "
                f"{row[0] if row else 'none'}{successor}. It committed nothing.",
                remedy="Nothing needs to be done: the successor did the work.",
                source=self.source,
                stream=self.stream,
            )


class Lease:
    """The right to work on one stream, or on one window of it. Use as a context manager; leaving it gives it free.

    Args:
        window: what it is for; without it, for all of the stream but reads of windows.
        scope: what else it is for, in a word, beside all of these.

    Raises (on entering):
        ConfigurationError: the warehouse is older or newer than this code.
        StreamBusyError: another run held it for all of `wait_seconds`.
        DestinationUnavailableError: the warehouse does not answer.
    """

    def __init__(
        self,
        url: URL,
        source: str,
        stream: str,
        holder: str,
        *,
        wait_seconds: float = 300.0,
        lease_seconds: float = LEASE_SECONDS,
        window: Window | None = None,
        scope: str = "",
    ) -> None:
        self._url = url
        self._window = window
        self.scope = scope
        """What tells it from other leases of the stream."""
        self._source = source
        self._stream = stream
        self._holder = holder
        self._wait_seconds = wait_seconds
        self._lease_seconds = lease_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.epoch = 0

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._wait_seconds
        with translated_errors():
            self._connection = connect(self._url, f"lease {self._source}.{self._stream}", autocommit=True)
            try:
                check_shape(self._connection)
                if self._window is not None:
                    self.scope = scope_of(self._connection, self._window)
                pause = 0.1
                while not self._take():
                    check_stop()
                    if time.monotonic() + pause > deadline:
                        raise self._busy()
                    time.sleep(pause)
                    pause = min(2 * pause, 2.0)
            except BaseException:
                self._connection.close()
                raise
        self._thread = threading.Thread(target=self._renew, name=f"lease {self._stream}", daemon=True)
        self._thread.start()
        self._work = begin_work()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._thread is not None  # noqa: S101 - set on entering
        self._thread.join()
        try:
            if kind is not None and not issubclass(kind, Exception):
                self._note_stopped()
            self._connection.execute(
                "update ops.streams set lease_until = now(), holder = null"
                " where source = %s and stream = %s and scope = %s and epoch = %s",
                [self._source, self._stream, self.scope, self.epoch],
            )
        except psycopg.Error:
            pass  # the session goes with the connection, and with it the lease
        finally:
            self._connection.close()
            end_work(self._work)

    def _note_stopped(self) -> None:
        """The run ends by a signal: what it was at is told from what was killed."""
        if self._connection.execute("select has_table_privilege('ops.loads', 'update')").fetchone() == (False,):
            return  # the role of a transform, which has no loads
        self._connection.execute(
            "update ops.loads l set status = case when status = 'landed' then status else 'failed' end,"
            " error = 'The run was told to stop, and broke off.', error_kind = %s"
            " where source = %s and stream = %s and status in ('extracting', 'landed')"
            " and coalesce(window_start || ' ' || window_end, '') = %s and exists (select from ops.streams s"
            " where s.source = l.source and s.stream = l.stream and s.scope = %s and s.epoch = %s)",
            [StoppedError.__name__, self._source, self._stream, self.scope, self.scope, self.epoch],
        )

    @property
    def fence(self) -> Fence:
        return Fence(self._source, self._stream, self.scope, self.epoch)

    def check(self, connection: psycopg.Connection) -> None:
        """Inside the transaction that commits: that no successor has taken over, and that none can until it ends.

        Raises:
            FencedError: one has.
        """
        self.fence.check(connection)

    @contextmanager
    def guard(self, connection: psycopg.Connection) -> Iterator[None]:
        """A transaction of a run that has the stream: one that lost it must not touch the loads of its successor.

        Raises:
            FencedError: it has lost it.
        """
        with connection.transaction():
            self.check(connection)
            yield

    def _take(self) -> bool:
        row = self._connection.execute(
            """
            insert into ops.streams as s
                (source, stream, scope, epoch, holder, lease_until, holder_pid, holder_session_start)
            select %(source)s, %(stream)s, %(scope)s, 1, %(holder)s, now() + %(seconds)s * interval '1 second',
                   a.pid, a.backend_start
            from pg_stat_activity a where a.pid = pg_backend_pid()
            on conflict (source, stream, scope) do update
            set epoch = s.epoch + 1, holder = excluded.holder, lease_until = excluded.lease_until,
                holder_pid = excluded.holder_pid, holder_session_start = excluded.holder_session_start
            where s.lease_until <= now()
               or not exists (
                   select from pg_stat_activity b
                   where b.pid = s.holder_pid and b.backend_start = s.holder_session_start
               )
            returning epoch
            """,
            {
                "source": self._source,
                "stream": self._stream,
                "scope": self.scope,
                "holder": self._holder,
                "seconds": self._lease_seconds,
            },
        ).fetchone()
        if row is None:
            return False
        self.epoch = row[0]
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._lease_seconds / 4):
            try:
                self._connection.execute(
                    "update ops.streams set lease_until = now() + %s * interval '1 second'"
                    " where source = %s and stream = %s and scope = %s and epoch = %s",
                    [self._lease_seconds, self._source, self._stream, self.scope, self.epoch],
                )
            except psycopg.Error:
                return  # the lease runs out; the commit will notice if someone took over

    def _busy(self) -> StreamBusyError:
        row = self._connection.execute(
            "select holder, lease_until from ops.streams where source = %s and stream = %s and scope = %s",
            [self._source, self._stream, self.scope],
        ).fetchone()
        holder = f"{row[0]} (lease until {row[1]:%H:%M:%S} UTC)" if row else "another run"
        return StreamBusyError(
            f"{holder} is working on the {'window' if self._window else 'stream'}; waited {self._wait_seconds:.0f} s.",
            remedy="Let it finish; runs of one stream take turns, and so do reads of one window.",
            source=self._source,
            stream=self._stream,
            window=self._window,
        )


def scope_of(connection: psycopg.Connection, window: Window) -> str:
    """The scope of a window's lease, as queries write it too: both bounds as PostgreSQL prints them in UTC."""
    row = connection.execute("select %s::timestamptz || ' ' || %s::timestamptz", [window.start, window.end]).fetchone()
    assert row is not None  # noqa: S101 - a query without a table has one row
    return str(row[0])


def take_turn(connection: psycopg.Connection, source: str, stream: str, at: datetime | None = None) -> datetime:
    """Inside a transaction: wait until no other commit of the stream is under way, and keep others out until it ends.

    Returns:
        Now, or the instant that is given; later than any commit of the stream before: by these instants a rebuild
        repeats them in their order.
    """
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"headwater.commit {source}.{stream}"])
    row = connection.execute(
        "select greatest(coalesce(%s::timestamptz, clock_timestamp()), max(raw_loaded_at) + interval '1 microsecond')"
        " from ops.loads where source = %s and stream = %s",
        [at, source, stream],
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    found: datetime = row[0]
    return found


def loads_committed(connection: psycopg.Connection, source: str) -> dict[str, int]:
    """How many loads of each stream have been committed; streams without any are not in it."""
    return dict(
        connection.execute(
            "select stream, count(*) from ops.loads where source = %s and status = 'loaded' group by stream", [source]
        ).fetchall()
    )


def files_loaded(connection: psycopg.Connection, source: str, stream: str) -> dict[str, str]:
    """The version of each file of a stream that raw holds, by path."""
    rows = connection.execute("select path, version from ops.files where source = %s and stream = %s", [source, stream])
    return dict(rows.fetchall())


def has_filled_raw(connection: psycopg.Connection, source: str, stream: str) -> bool:
    """Whether a load has ever brought rows of a stream into raw."""
    row = connection.execute(
        "select exists (select from ops.loads where source = %s and stream = %s and rows_inserted > 0)",
        [source, stream],
    ).fetchone()
    return bool(row and row[0])


def _values(purpose: Purpose) -> dict[str, object]:
    return {
        "source": purpose.source,
        "stream": purpose.stream,
        "kind": purpose.kind.value,
        "start": purpose.window.start if purpose.window else None,
        "end": purpose.window.end if purpose.window else None,
        "from": purpose.cursor_from,
        "full_refresh": purpose.full_refresh,
        "replay_of": purpose.replay_of,
    }


def open_load(connection: psycopg.Connection, purpose: Purpose) -> Load | None:
    """An earlier load of the same purpose that has not been committed, to be taken up again."""
    with connection.cursor(row_factory=class_row(Load)) as cursor:
        return cursor.execute(
            """
            select load_id, attempt, status, started_at, cursor_from, manifest_key
            from ops.loads
            where source = %(source)s and stream = %(stream)s
              and (status in ('extracting', 'landed') or status = 'failed' and manifest_key is null)
              and kind = %(kind)s and full_refresh = %(full_refresh)s
              and window_start is not distinct from %(start)s and window_end is not distinct from %(end)s
              and cursor_from is not distinct from %(from)s and replay_of is not distinct from %(replay_of)s
            order by started_at desc limit 1
            """,
            _values(purpose),
        ).fetchone()


def begin_load(connection: psycopg.Connection, load_id: UUID, purpose: Purpose, run_id: str | None) -> Load:
    """Write a load's row, or count another attempt of it."""
    with connection.cursor(row_factory=class_row(Load)) as cursor:
        load = cursor.execute(
            """
            insert into ops.loads as l
                (load_id, source, stream, kind, window_start, window_end, cursor_from, full_refresh, replay_of,
                 status, attempt, run_id)
            values
                (%(load_id)s, %(source)s, %(stream)s, %(kind)s, %(start)s, %(end)s, %(from)s, %(full_refresh)s,
                 %(replay_of)s, 'extracting', 1, %(run_id)s)
            on conflict (load_id) do update
            set status = case when l.status = 'landed' then 'landed' else 'extracting' end,
                attempt = l.attempt + 1, error = null, error_kind = null, run_id = excluded.run_id
            where l.status <> 'loaded'
            returning load_id, attempt, status, started_at, cursor_from, manifest_key
            """,
            {**_values(purpose), "load_id": load_id, "run_id": run_id},
        ).fetchone()
    assert load is not None  # noqa: S101 - an open load is never loaded: the caller holds the lease
    return load


def mark_landed(
    connection: psycopg.Connection, load_id: UUID, manifest_key: str, rows: int, size: int, requests: int | None = None
) -> None:
    """Record that the landing holds the whole load: from now on it can be loaded without asking the source.

    A run that wakes up after another has loaded it changes nothing: a load stays loaded.

    Args:
        requests: how many the source was asked for it; None if it was not asked now, or nobody counts.
    """
    connection.execute(
        "update ops.loads set status = 'landed', manifest_key = %s, rows_extracted = %s, bytes_landed = %s,"
        " requests = coalesce(%s, requests), landed_at = clock_timestamp()"
        " where load_id = %s and status <> 'loaded'",
        [manifest_key, rows, size, requests, load_id],
    )


def first_manifest(connection: psycopg.Connection, source: str, stream: str) -> str | None:
    """The key of the manifest of the stream's first load that is in raw."""
    row = connection.execute(
        "select manifest_key from ops.loads where source = %s and stream = %s and status = 'loaded'"
        " and manifest_key is not null order by started_at limit 1",
        [source, stream],
    ).fetchone()
    return row[0] if row else None


def abandon(connection: psycopg.Connection, load_id: UUID, manifest_key: str, error: Exception) -> None:
    """Give up a load that has landed and cannot be loaded; its range is extracted anew, as another load."""
    connection.execute(
        "update ops.loads set status = 'failed', manifest_key = %s, error = %s, error_kind = %s"
        " where load_id = %s and status <> 'loaded'",
        [manifest_key, UNSAID(str(error))[:4000], type(error).__name__, load_id],
    )


def mark_failed(connection: psycopg.Connection, load_id: UUID, error: Exception) -> None:
    """Record why an attempt ended. A load that has landed stays landed: only its error is noted."""
    connection.execute(
        "update ops.loads set status = case when status = 'landed' then status else 'failed' end, error = %s,"
        " error_kind = %s where load_id = %s and status <> 'loaded'",
        [UNSAID(str(error))[:4000], type(error).__name__, load_id],
    )


def close_key_loads(
    connection: psycopg.Connection, source: str, stream: str, message: str, error: Exception | None = None
) -> None:
    """Give up the reads of keys that were not committed. Keys age: rows that raw has got since would seem deleted, so
    they are read anew each time, under a `load_id` of their own."""
    connection.execute(
        "update ops.loads set status = 'failed', error = coalesce(error, %s), error_kind = coalesce(error_kind, %s)"
        " where source = %s and stream = %s and kind = 'keys' and status in ('extracting', 'landed')",
        [message[:4000], type(error).__name__ if error else None, source, stream],
    )
