"""Who works on a backfill: takes adjacent windows as a batch, one batch after the other, and gives back what it has by
dying."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from sqlalchemy.engine import URL

from connectors.backfill.books import BackfillState
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError, TransientError
from connectors.model import Window
from connectors.stopping import check_stop
from connectors.unsaid import UNSAID

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
