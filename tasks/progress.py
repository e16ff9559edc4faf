"""Progress of a load as an artifact: rows, how many a second, how long it still takes.

It is shown by a thread of its own, which looks at a number now and then: neither Prefect nor the warehouse can hold up
the load that way. A load that is over within `FIRST_SECONDS` shows nothing.
"""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from connectors.backfill.plan import estimated
from connectors.connections import Connections
from connectors.errors import HeadwaterError
from connectors.expectations import expected_rows
from connectors.model import Source, Stream, Window
from tasks.names import span_of

FIRST_SECONDS = 4.0
"""How long a load takes before its progress is shown."""
UPDATE_SECONDS = 2.0
"""How long it then stays as it is, at least."""
_LAST_SECONDS = 2.0
"""How long the end of a load or a backfill waits for its last update."""
_AGAIN_SECONDS = 10.0
"""How long after the server did not take an update the next one is tried."""
_NEARLY = 99.0


class LoadProgress:
    """The progress of one load. Use as a context manager within a task, and call it with the rows so far."""

    def __init__(
        self,
        source: Source,
        stream: Stream,
        connections: Connections,
        window: Window | None = None,
        *,
        is_full: bool = False,
    ) -> None:
        self._source = source
        self._stream = stream
        self._connections = connections
        self._window = window
        self._is_full = is_full
        self._begun = time.monotonic()
        self._read_until = self._begun
        self._rows = 0
        self._is_done = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=[self._show], daemon=True, name="progress")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_done = error is None
        self._over.set()
        self._thread.join(_LAST_SECONDS)

    def __call__(self, rows: int) -> None:
        """So many rows have been read."""
        self._rows = rows
        self._read_until = time.monotonic()

    def _show(self) -> None:
        if self._over.wait(FIRST_SECONDS):
            return
        try:
            expected = self._expected()
            name = f"{self._source.name}-{self._stream.name}".replace("_", "-")
            artifact = create_progress_artifact(
                self._percent(expected), key=f"load-{name}", description=self._said(expected)
            )
            is_over = False
            while not is_over:
                is_over = self._over.wait(UPDATE_SECONDS)
                self._update(artifact, expected)
        except Exception as error:  # noqa: BLE001 - the load goes on, whatever becomes of its progress
            get_run_logger().warning("The progress of this load cannot be shown: %s", error)

    def _update(self, artifact: Any, expected: int | None) -> None:
        update_progress_artifact(artifact, self._percent(expected), description=self._said(expected))

    def _expected(self) -> int | None:
        try:
            return expected_rows(
                self._source, self._stream, self._connections, window=self._window, is_full=self._is_full
            )
        except HeadwaterError:
            return None  # who does not know is told of no end

    def _percent(self, expected: int | None) -> float:
        if self._is_done:
            return 100.0
        return min(_NEARLY, round(100 * self._rows / expected, 1)) if expected else 0.0

    def _said(self, expected: int | None) -> str:
        """`flights_api.flights 2013-07-01/08: 120,000 of about 336,776 rows, 41,000 a second, about 6 s left`"""
        window = f" {span_of(self._window)}" if self._window else ""
        of = f" of about {expected:,}" if expected and not self._is_done else ""
        text = f"{self._source.name}.{self._stream.name}{window}: {self._rows:,}{of} rows"
        if not self._rows:
            return text
        a_second = self._rows / max(self._read_until - self._begun, 0.001)
        text += f", {a_second:,.0f} a second"
        if self._is_done:
            return f"{text}, loaded in {time.monotonic() - self._begun:.0f} s"
        if self._over.is_set():
            return f"{text}; it did not end well"
        if expected and self._rows < expected:
            text += f", about {estimated((expected - self._rows) / a_second)} left"
        return text


class BackfillProgress:
    """The progress of a backfill, as an artifact that shows the latest that this was called with.

    As with that of loads, a thread of its own shows it: a server that is away holds up no batch, and is tried again.
    Use as a context manager within a flow.
    """

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._latest = (0.0, description)
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=[self._show], daemon=True, name="progress")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_LAST_SECONDS)

    def __call__(self, percent: float, description: str) -> None:
        """It is so far."""
        self._latest = (percent, description)

    def _show(self) -> None:
        artifact: Any = None
        shown: tuple[float, str] | None = None
        is_last = False
        while not is_last:
            is_last = self._over.is_set()
            latest = percent, description = self._latest
            try:
                if artifact is None:
                    artifact = create_progress_artifact(percent, key=self._key, description=description)
                elif latest != shown:
                    update_progress_artifact(artifact, percent, description=description)
                shown = latest
            except Exception as error:  # noqa: BLE001 - the backfill goes on, whatever becomes of its progress
                get_run_logger().warning("The progress of this backfill cannot be shown: %s", error)
            self._over.wait(UPDATE_SECONDS if shown == latest else _AGAIN_SECONDS)
