"""Backfills: the windows of a plan, read or brought back by any number of workers, each window once.

The windows are rows of `ops.backfill_windows`. A worker takes some adjacent ones as a batch, reads them as one load,
and takes the next. One that dies gives its batch back by dying. A batch that fails is cut in two, until the windows
that are at fault are alone; the others are loaded. What is left can be planned again at any time: only that is in the
plan.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from sqlalchemy.engine import URL
from uuid_utils.compat import uuid7

from connectors.backfill_plan import BackfillPlan
from connectors.connections import Connections
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError, HeadwaterError, TransientError
from connectors.ingest import Destination, Logger, ingest
from connectors.model import Source, Stream, Window
from connectors.replay import replay
from connectors.stopping import check_stop
from connectors.unsaid import UNSAID

ROWS_AT_ONCE = 1_000_000
"""How many rows a batch is to have, by estimate: so many that what a load costs beside its rows is little of it, and so
few that what a kill takes away is read again in a minute."""
MOST_FAILURES = 3
"""After so many batches in a row for which the source or the warehouse was not there, a worker stops."""
_POLL_SECONDS = 0.5
_BEAT_SECONDS = 10.0
_SILENT_SECONDS = 60.0
"""How long a worker may give no sign of life until its batch is another's: its process sleeps."""


_OURS = """
    state = 'running' and (holder_pid, holder_session_start) = (
        select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()
    )
"""
"""Of windows: that this session has them."""


class BackfillState(StrEnum):
    """How a backfill is."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Batch:
    """Adjacent windows that a worker has taken."""

    backfill_id: UUID
    windows: tuple[Window, ...]
    from_landing: tuple[UUID, ...]
    """The loads that bring their rows back; empty where the source is asked."""

    @property
    def window(self) -> Window:
        """All of it."""
        return Window(min(window.start for window in self.windows), max(window.end for window in self.windows))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is, in windows."""

    backfill_id: UUID
    source: str
    stream: str
    state: BackfillState
    waiting: int
    running: int
    loaded: int
    failed: int
    rows: int
    """That the loaded ones have."""
    seconds: float
    """Since it was begun, or that it took."""

    @property
    def seconds_left(self) -> float | None:
        """By what its windows have taken so far; None before the first is loaded."""
        done = self.loaded + self.failed
        return self.seconds / done * (self.waiting + self.running) if done else None

    @property
    def percent(self) -> float:
        """Of its windows, those that are done, 0 to 100."""
        done = self.loaded + self.failed
        return round(100 * done / (done + self.waiting + self.running), 1)

    def __str__(self) -> str:
        total = self.waiting + self.running + self.loaded + self.failed
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.loaded:,} of {total:,} windows loaded{failed}, {self.rows:,} rows in {self.seconds:.0f} s"


def begin(
    plan: BackfillPlan,
    warehouse: URL,
    *,
    run: str = "by hand",
    backward: bool = False,
    at_once: int = 1,
    rows_at_once: int = ROWS_AT_ONCE,
) -> UUID:
    """Write a plan's windows down, for workers to take.

    Args:
        backward: the latest window first.
        at_once: how many workers there will be at most; batches are small enough that each gets some.
        rows_at_once: rows that a batch should have at most; a window is never cut.

    Raises:
        ConfigurationError: there is nothing to do, or a number is none.
    """
    if at_once < 1 or rows_at_once < 1:
        raise ConfigurationError(
            f"A backfill of {rows_at_once} rows at once by {at_once} workers cannot be.",
            remedy="Give 1 or more of each.",
        )
    if plan.window is None or not plan.chosen:
        raise ConfigurationError("The plan has no windows.", remedy="There is nothing to do; see `headwater windows`.")
    backfill_id = uuid7()
    with translated_errors(), connect(warehouse, f"plan a backfill of {plan.source}.{plan.stream}") as connection:
        connection.execute(
            "insert into ops.backfills (backfill_id, source, stream, window_start, window_end, mode, is_backward,"
            " at_once, rows_at_once, run_id) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                backfill_id, plan.source, plan.stream, plan.window.start, plan.window.end, plan.mode.value, backward,
                at_once, rows_at_once, run,
            ],
        )  # fmt: skip
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.backfill_windows (backfill_id, window_start, window_end, rows_estimated, from_landing)"
                " values (%s, %s, %s, %s, %s)",
                [
                    [
                        backfill_id,
                        status.window.start,
                        status.window.end,
                        plan.rows_by_window.get(status.window.start),
                        list(status.from_landing),
                    ]
                    for status in plan.chosen
                ],
            )
    return backfill_id


class Worker:
    """One of those who work on a backfill. Use as a context manager: leaving it, or dying, gives back what it has."""

    def __init__(self, warehouse: URL, backfill_id: UUID, name: str) -> None:
        self._warehouse = warehouse
        self._id = backfill_id
        self._name = name
        self._failures = 0
        self._over = threading.Event()

    def __enter__(self) -> Worker:
        with translated_errors():
            self._connection = connect(self._warehouse, f"backfill {self._id}", autocommit=True)
        self._thread = threading.Thread(target=self._beat, name="backfill", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()

    def _beat(self) -> None:
        """Say something now and then while a batch is being loaded: the server knows when a session last did."""
        while not self._over.wait(_BEAT_SECONDS):
            with suppress(psycopg.Error):  # whoever works with the connection is told
                self._connection.execute("select")

    def batches(self, *, wait: bool = True) -> Iterator[Batch]:
        """The batches to work on, until there are no more; after each call `done` or `failed` before the next.

        Args:
            wait: while others have windows that may come back, and while the backfill is paused.

        Raises:
            ConfigurationError: there is no such backfill.
        """
        while self._failures < MOST_FAILURES:
            with translated_errors():
                state, batch = self._take()
            if batch is not None:
                yield batch
            elif not wait or state in (BackfillState.CANCELLED, BackfillState.ENDED):
                return
            else:
                check_stop()
                time.sleep(_POLL_SECONDS)

    def done(self, batch: Batch) -> None:
        """A batch is in raw. One that another worker has taken meanwhile is that one's."""
        self._failures = 0
        with translated_errors():
            self._connection.execute(
                f"""
                update ops.backfill_windows b
                set state = 'loaded', error = null, ended_at = clock_timestamp(), (rows_loaded, load_id) = (
                    select w.rows, coalesce(w.read_by, w.changed_by)
                    from ops.backfills f join ops.windows w using (source, stream)
                    where f.backfill_id = b.backfill_id and w.window_start = b.window_start
                )
                where backfill_id = %(id)s and window_start = any(%(starts)s) and {_OURS}
                """,  # noqa: S608 - a constant
                {"id": self._id, "starts": [window.start for window in batch.windows]},
            )

    def failed(self, batch: Batch, error: Exception) -> None:
        """A batch is not. Its windows are tried again in smaller batches, unless it is alone or nobody was there."""
        is_nobody_there = isinstance(error, TransientError)
        self._failures = self._failures + 1 if is_nobody_there else 0
        again = len(batch.windows) > 1 and not is_nobody_there
        with translated_errors():
            self._connection.execute(
                f"""
                update ops.backfill_windows
                set state = %s, most_beside = %s, error = %s, ended_at = clock_timestamp()
                where backfill_id = %s and window_start = any(%s) and {_OURS}
                """,  # noqa: S608 - a constant
                [
                    "waiting" if again else "failed",
                    max(1, len(batch.windows) // 2) if again else None,
                    UNSAID(str(error))[:4000],
                    self._id,
                    [window.start for window in batch.windows],
                ],
            )

    def _take(self) -> tuple[BackfillState, Batch | None]:
        with self._connection.transaction():
            row = self._connection.execute(
                "select state, is_backward, rows_at_once, at_once, source, stream,"
                " (select count(*) from ops.backfill_windows w where w.backfill_id = f.backfill_id)"
                " from ops.backfills f where backfill_id = %s for update",
                [self._id],
            ).fetchone()
            if row is None:
                raise ConfigurationError(
                    f"There is no backfill {self._id}.", remedy="`headwater backfill list` shows those there are."
                )
            state, is_backward, rows_at_once, at_once, source, stream, total = row
            if state != BackfillState.RUNNING:
                return BackfillState(state), None
            self._take_back_from_the_dead()
            waiting = self._waiting(backward=is_backward)
            if not waiting:
                running = self._connection.execute(
                    "select 1 from ops.backfill_windows where backfill_id = %s and state = 'running' limit 1",
                    [self._id],
                ).fetchone()
                if running is None:
                    self._connection.execute(
                        "update ops.backfills set state = 'ended', ended_at = clock_timestamp() where backfill_id = %s",
                        [self._id],
                    )
                    return BackfillState.ENDED, None
                return BackfillState.RUNNING, None
            share = _share(len(waiting), total, at_once)
            batch = self._landed_already(source, stream, waiting) or _first_of(waiting, rows_at_once, share)
            self._connection.execute(
                """
                update ops.backfill_windows
                set state = 'running', attempts = attempts + 1, holder = %s, started_at = clock_timestamp(),
                    ended_at = null, batch_start = %s, holder_pid = a.pid, holder_session_start = a.backend_start
                from pg_stat_activity a
                where a.pid = pg_backend_pid() and backfill_id = %s and window_start = any(%s)
                """,
                [
                    self._name,
                    min(each.window_start for each in batch),
                    self._id,
                    [each.window_start for each in batch],
                ],
            )
        windows = sorted((each.window for each in batch), key=lambda window: window.start)
        return BackfillState.RUNNING, Batch(self._id, tuple(windows), tuple(batch[0].from_landing))

    def _take_back_from_the_dead(self) -> None:
        self._connection.execute(
            """
            update ops.backfill_windows b set state = 'waiting'
            where backfill_id = %s and state = 'running' and not exists (
                select from pg_stat_activity a
                where a.pid = b.holder_pid and a.backend_start = b.holder_session_start
                  and (a.state = 'active' or a.state_change > clock_timestamp() - %s * interval '1 second')
            )
            """,
            [self._id, _SILENT_SECONDS],
        )

    def _waiting(self, *, backward: bool) -> list[_Waiting]:
        with self._connection.cursor(row_factory=class_row(_Waiting)) as cursor:
            found = cursor.execute(
                """
                select window_start, window_end, most_beside, from_landing,
                       coalesce(rows_estimated, (
                           select avg(rows_loaded)::bigint from ops.backfill_windows l
                           where l.backfill_id = b.backfill_id and l.state = 'loaded'
                       )) as rows
                from ops.backfill_windows b where backfill_id = %s and state = 'waiting' order by window_start
                """,
                [self._id],
            ).fetchall()
        return found[::-1] if backward else found

    def _landed_already(self, source: str, stream: str, waiting: list[_Waiting]) -> list[_Waiting] | None:
        """Windows that an earlier run has landed together and not loaded: the source need not be asked for them."""
        loads = self._connection.execute(
            "select window_start, window_end from ops.loads where source = %s and stream = %s and kind = 'rows'"
            " and status = 'landed' and error is null and window_start is not null",
            [source, stream],
        ).fetchall()
        for start, end in loads:
            within = sorted(
                (each for each in waiting if start <= each.window_start and each.window_end <= end),
                key=lambda each: each.window_start,
            )
            if within and within[0].window_start == start and within[-1].window_end == end and _adjacent(within):
                return within
        return None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A window that nobody has taken."""

    window_start: datetime
    window_end: datetime
    most_beside: int | None
    from_landing: list[UUID]
    rows: int | None

    @property
    def window(self) -> Window:
        return Window(self.window_start, self.window_end)


def _adjacent(windows: list[_Waiting]) -> bool:
    return all(one.window_end == other.window_start for one, other in pairwise(windows))


def _share(waiting: int, total: int, workers: int) -> int:
    """How many windows a batch may have, so that the others have something to do and none waits long for the last: half
    of a worker's part of what is left, but not ever smaller ones."""
    if workers == 1:
        return waiting
    return max(-(-waiting // (2 * workers)), -(-total // (8 * workers)))


def _first_of(waiting: list[_Waiting], rows_at_once: int, share: int) -> list[_Waiting]:
    """Windows for one batch: adjacent, of one kind, not more rows than one should have. Where nobody knows yet how many
    rows a window has, the first one tells."""
    first = waiting[0]
    batch, rows = [first], first.rows or 0
    for each in waiting[1:]:
        most = min(other.most_beside or share for other in (*batch, each))
        touches = each.window_start == batch[-1].window_end or each.window_end == batch[-1].window_start
        rows += each.rows or 0
        if each.rows is None or not touches or rows > rows_at_once or len(batch) >= min(most, share):
            break
        if each.from_landing != first.from_landing:
            break
        batch.append(each)
    return batch


def load(
    batch: Batch,
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    run: str = "by hand",
    log: Logger | None = None,
    watch: Callable[[int], None] | None = None,
) -> int:
    """Read the windows of a batch from the source, or bring their rows back from the landing.

    Args:
        watch: see `connectors.ingest.ingest`; rows of the landing are not watched.

    Returns:
        How many rows were inserted or changed.

    Raises:
        HeadwaterError: see `connectors.ingest.ingest` and `connectors.replay.replay`.
    """
    if batch.from_landing:
        moved = 0
        for load_id in batch.from_landing:
            reports = replay(source, stream, destination, load_id=load_id, window=batch.window, run=run, log=log)
            moved += sum(report.moved for report in reports)
        return moved
    reports = ingest(source, stream, connections, destination, window=batch.window, run=run, log=log, watch=watch)
    return sum(report.moved for report in reports)


def work(
    backfill_id: UUID,
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    run: str = "by hand",
    log: Logger | None = None,
) -> Progress:
    """Work on a backfill until nothing of it is left; beside as many others as there are.

    Raises:
        ConfigurationError: there is no such backfill.
        DestinationUnavailableError: the warehouse does not answer.
    """
    log = log or logging.getLogger("headwater")
    with Worker(destination.warehouse, backfill_id, run) as worker:
        for batch in worker.batches():
            try:
                load(batch, source, stream, connections, destination, run=run, log=log)
            except HeadwaterError as error:
                log.warning("%s failed: %s", batch.window, error)
                worker.failed(batch, error)
            else:
                worker.done(batch)
    return progress(destination.warehouse, backfill_id)


def progress(warehouse: URL, backfill_id: UUID) -> Progress:
    """How far a backfill is.

    Raises:
        ConfigurationError: there is no such backfill.
    """
    for found in backfills(warehouse, backfill_id):
        return found
    raise ConfigurationError(
        f"There is no backfill {backfill_id}.", remedy="`headwater backfill list` shows those there are."
    )


def backfills(warehouse: URL, backfill_id: UUID | None = None, *, latest: int = 20) -> list[Progress]:
    """The latest backfills, the last one first; or the one of that id."""
    with translated_errors(), connect(warehouse, "backfills") as connection:
        rows = connection.execute(
            """
            select f.backfill_id, f.source, f.stream, f.state,
                   count(*) filter (where w.state = 'waiting'), count(*) filter (where w.state = 'running'),
                   count(*) filter (where w.state = 'loaded'), count(*) filter (where w.state = 'failed'),
                   coalesce(sum(w.rows_loaded), 0)::bigint,
                   extract(epoch from coalesce(f.ended_at, clock_timestamp()) - f.started_at)::float
            from ops.backfills f join ops.backfill_windows w using (backfill_id)
            where %(id)s::uuid is null or f.backfill_id = %(id)s
            group by f.backfill_id order by f.started_at desc limit %(latest)s
            """,
            {"id": backfill_id, "latest": latest},
        ).fetchall()
    return [
        Progress(found, source, stream, BackfillState(state), waiting, running, loaded, failed, count, seconds)
        for found, source, stream, state, waiting, running, loaded, failed, count, seconds in rows
    ]


def failures(warehouse: URL, backfill_id: UUID) -> list[tuple[Window, str]]:
    """The windows that failed, each with its error."""
    with translated_errors(), connect(warehouse, "backfills") as connection:
        rows = connection.execute(
            "select window_start, window_end, error from ops.backfill_windows"
            " where backfill_id = %s and state = 'failed' order by window_start",
            [backfill_id],
        ).fetchall()
    return [(Window(start, end), error) for start, end, error in rows]


def set_state(warehouse: URL, backfill_id: UUID, state: BackfillState) -> None:
    """Pause a backfill, let it go on, or cancel it. Batches that are being loaded are loaded.

    Raises:
        ConfigurationError: there is no such backfill, or it is over.
    """
    with translated_errors(), connect(warehouse, "backfills") as connection:
        changed = connection.execute(
            "update ops.backfills set state = %(state)s,"
            " ended_at = case when %(state)s = 'cancelled' then clock_timestamp() end"
            " where backfill_id = %(id)s and state in ('running', 'paused')",
            {"state": state.value, "id": backfill_id},
        ).rowcount
    if not changed:
        found = progress(warehouse, backfill_id)
        raise ConfigurationError(
            f"Backfill {backfill_id} is {found.state}.",
            remedy="Run the same backfill again: its plan has what is not done.",
        )


@contextmanager
def closing(warehouse: URL, backfill_id: UUID) -> Iterator[None]:
    """A backfill that whoever began it leaves is over, unless it is paused: what is left is in the next plan."""
    try:
        yield
    finally:
        with translated_errors(), connect(warehouse, "backfills") as connection:
            connection.execute(
                "update ops.backfills set state = 'ended', ended_at = clock_timestamp()"
                " where backfill_id = %s and state = 'running'",
                [backfill_id],
            )
