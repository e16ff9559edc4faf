"""Being told to stop: work that is under way is broken off, in order, within seconds.

A process that gets SIGTERM (a worker that is ended, a run that is cancelled) has some seconds until it is killed. Who
handles the signal calls `stop`, from any thread: statements that run are cancelled, those who wait or read on raise
`StoppedError` at their next step, and so leave everything as an error would, their lease given back at once. What is
committed by then is committed; what is not leaves no trace.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from types import TracebackType
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from connectors.errors import StoppedError

WITHIN_SECONDS = 10.0
"""How long `stop` waits for the work to end. Prefect's worker kills what is still there 30 seconds after SIGTERM."""
_CANCEL_SECONDS = 2.0
_POLL_SECONDS = 0.05

_stopped = threading.Event()
_lock = threading.Lock()
_connections: WeakSet[StoppableConnection] = WeakSet()
_numbers = itertools.count()
_working: dict[int, int] = {}
"""What was begun and is not over, with its thread."""


def stop() -> bool:
    """Break off what other threads are at, and wait until they have left it, for a time.

    Returns:
        Whether all have.
    """
    _stopped.set()
    with _lock:
        open_connections = list(_connections)
    for connection in open_connections:
        connection.break_off()  # once each: what is said to the warehouse on the way out is not to be cancelled
    deadline = time.monotonic() + WITHIN_SECONDS
    mine = threading.get_ident()
    while any(thread != mine for thread in list(_working.values())):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def is_stopped() -> bool:
    """Whether this process was told to stop."""
    return _stopped.is_set()


def check_stop() -> None:
    """Between two steps.

    Raises:
        StoppedError: this process was told to stop.
    """
    if _stopped.is_set():
        raise stopped()


def stopped() -> StoppedError:
    """That it was told to stop, as an error."""
    return StoppedError(
        "This run was told to stop, and broke off. It committed nothing of this.",
        remedy="Nothing needs to be done: the next run does the work.",
    )


class StoppableConnection(psycopg.Connection):
    """A connection whose statement is cancelled when this process is told to stop."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            # A signal has come while this thread waited for the statement: the server is not to go on with it.
            self.break_off()
        super().__exit__(kind, error, trace)

    def break_off(self) -> None:
        """Cancel the statement that runs, if one does."""
        with suppress(psycopg.Error):
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.cancel_safe(timeout=_CANCEL_SECONDS)


def cancelled_at_stop(connection: StoppableConnection) -> StoppableConnection:
    """The connection, now known to `stop`."""
    with _lock:
        _connections.add(connection)
    return connection


def begin_work() -> int:
    """Have `stop` wait for what this thread begins; returns what `end_work` is told."""
    number = next(_numbers)
    _working[number] = threading.get_ident()
    return number


def end_work(number: int) -> None:
    """It is over."""
    _working.pop(number, None)
