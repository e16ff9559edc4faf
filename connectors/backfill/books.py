"""The books of backfills: what was begun, how far each is, and what has failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.engine import URL
from uuid_utils.compat import uuid7

from connectors.backfill.plan import BackfillPlan
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError
from connectors.model import Window

ROWS_AT_ONCE = 1_000_000
"""How many rows a batch is to have, by estimate: so many that what a load costs beside its rows is little of it, and so
few that what a kill takes away is read again in a minute."""


class BackfillState(StrEnum):
    """How a backfill is."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ENDED = "ended"


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
