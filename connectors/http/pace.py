"""How often and how many at once a host is asked, by all threads of this process together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from connectors.errors import ConfigurationError, SourceUnavailableError
from connectors.http.limits import Limits


class Pace:
    """The requests to one host: who may ask next, and when."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._changed = threading.Condition()
        self._running = 0
        self._next_at = -math.inf
        self._held_until = -math.inf

    def hold(self, seconds: float) -> None:
        """No request for so long, by any thread: the host has asked for it."""
        with self._changed:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    @property
    def seconds_held(self) -> float:
        """For how much longer the host is to be left alone."""
        return max(0.0, self._held_until - time.monotonic())

    @contextmanager
    def turn(self, limits: Limits, patience: float, is_over: Callable[[], bool]) -> Iterator[None]:
        """Wait until one more request is allowed; it counts until the block is left.

        Args:
            patience: seconds to leave a host alone at most, when it has asked for that.
            is_over: whether nobody waits for the answer any more.

        Raises:
            ConfigurationError: the host wants to be left alone for longer.
            SourceUnavailableError: it is over.
        """
        with self._changed:
            while (seconds := self._seconds_to_wait(limits)) > 0 or is_over():
                if is_over():
                    raise SourceUnavailableError(
                        f"{self._origin} was not asked: the read is over.", remedy="Run again."
                    )
                if (held := self.seconds_held) > patience:
                    raise left_alone(self._origin, held, patience)
                self._changed.wait(seconds)
            self._running += 1
            if limits.max_requests_per_second is not None:
                self._next_at = max(time.monotonic(), self._next_at) + 1 / limits.max_requests_per_second
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def look_again(self) -> None:
        """Let those that wait see whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def _seconds_to_wait(self, limits: Limits) -> float:
        at = self._held_until
        if limits.max_requests_per_second is not None:
            at = max(at, self._next_at)
        if self._running >= limits.max_concurrent_requests:
            at = max(at, time.monotonic() + 60)  # someone who leaves wakes us
        return at - time.monotonic()


def left_alone(who: str, seconds: float, patience: float) -> ConfigurationError:
    """The error for a host that asks for more patience than a run has."""
    return ConfigurationError(
        f"{who} asks to be left alone for {seconds:.0f} s, longer than the {patience:.0f} s that a run waits.",
        remedy="The next scheduled run tries again.",
    )


class Paces:
    """The pace of each host."""

    def __init__(self) -> None:
        self._by_origin: dict[str, Pace] = {}
        self._lock = threading.Lock()

    def of(self, origin: str) -> Pace:
        """The one for this host, which all share that ask it."""
        with self._lock:
            return self._by_origin.setdefault(origin, Pace(origin))


PACES = Paces()
"""Of this process: a host counts together what all streams ask it."""
