"""Do two things of a load at once: read ahead of whoever takes, and write behind whoever gives.

Reading, loading and landing each wait for somebody else most of the time (the source's server, the warehouse's, the
disk), or work in C without Python's lock. A few chunks between them keep all three busy; no more are held in memory.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Generic, Self, TypeVar

from connectors.stopping import check_stop, is_stopped

T = TypeVar("T")
_WAITING = 2
"""Items that wait between two sides."""
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0
"""How long a side that is not needed any more is waited for: it may be in the middle of a read."""


_PATIENCE_AT_STOP_SECONDS = 3.0


class _End:
    """The other side has ended, with an error or without."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def _patience() -> float:
    return _PATIENCE_AT_STOP_SECONDS if is_stopped() else _PATIENCE_SECONDS


def _thread(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread in the context of this one: who logs there logs for the same run."""
    return threading.Thread(target=contextvars.copy_context().run, args=[work], name=name, daemon=True)


class ReadAhead(Generic[T]):
    """Takes from iterators, each in a thread of its own, a few items ahead. Use as a context manager; iterate within.

    Of several iterators the items come as they are ready; of one, in their order. Leaving it ends the iterators, which
    are touched by no other thread. What one of them raises is raised here.
    """

    def __init__(self, *iterators: Iterator[T]) -> None:
        self._queue: Queue[T | _End] = Queue(_WAITING)
        self._stop = threading.Event()
        self._threads = [_thread(partial(self._take, items), "read ahead") for items in iterators]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        deadline = time.monotonic() + _patience()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __iter__(self) -> Iterator[T]:
        running = len(self._threads)
        while running:
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                check_stop()
                continue
            if not isinstance(item, _End):
                check_stop()
                yield item
                continue
            if item.error is not None:
                raise item.error
            running -= 1

    def _take(self, items: Iterator[T]) -> None:
        end = _End()
        try:
            for item in items:
                if not self._give(item):
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            end = _End(error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            self._give(end)

    def _give(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
            except Full:
                continue
        return False


class WriteBehind(Generic[T]):
    """Gives items to a function in a thread of its own, in their order. Use as a context manager.

    Leaving it without an error waits until all are written. What the function raises is raised at the next item, or on
    leaving.
    """

    def __init__(self, write: Callable[[T], None]) -> None:
        self._write = write
        self._queue: Queue[T | _End] = Queue(_WAITING)
        self._failure: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = _thread(self._run, "write behind")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandoned.set()
        self._offer(_End())
        self._thread.join(_patience() if error is not None else None)
        if error is None and self._failure is not None:
            raise self._failure

    def put(self, item: T) -> None:
        """Have an item written when those before it are."""
        self._offer(item)
        if self._failure is not None:
            raise self._failure

    def _offer(self, item: T | _End) -> None:
        while self._failure is None:
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return
            except Full:
                continue

    def _run(self) -> None:
        try:
            while not isinstance(item := self._queue.get(), _End):
                if not self._abandoned.is_set():
                    self._write(item)
        except BaseException as error:  # noqa: BLE001 - it is raised where the items come from
            self._failure = error
