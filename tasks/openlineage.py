"""OpenLineage, as an option: events of loads and builds, to an HTTP endpoint or a file, for catalogues of lineage.

It is on where the client's own variables say where events go (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`,
`OPENLINEAGE__TRANSPORT__…`) and the extra `openlineage` is installed. A thread makes and sends them, in their order, so
that no load and no build waits for it, but for `FLUSH_SECONDS` at its end; an endpoint that does not take an event gets
no other for `PAUSE_SECONDS`. What goes wrong is a warning in the log of the run.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from uuid_utils.compat import uuid7

from connectors.connections import Connections
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.ingest import WAREHOUSE_LOADER
from connectors.model import Source, Stream, Window
from tasks.credentials import WAREHOUSE_TRANSFORMER
from tasks.dbt_results import message_of

if TYPE_CHECKING:
    from tasks.history import BuildHistory
    from tasks.openlineage_events import Event

FLUSH_SECONDS = 3.0
PAUSE_SECONDS = 60.0
_MOST_WAITING = 1_000

Make = Callable[[ModuleType], "Iterable[Event]"]
"""Makes events by `tasks.openlineage_events`, which takes a second to import, and the extra."""


def is_on() -> bool:
    """Whether somebody has said where events go."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return False
    return any(
        name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__TRANSPORT")
        for name, value in os.environ.items()
        if value
    )


class Emitter:
    """Sends events in a thread of its own, which begins with the first of them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._resumes_at = 0.0

    def emit(self, make: Make) -> None:
        """Have events made and sent. This returns at once and raises nothing."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="openlineage")
                self._thread.start()
        try:
            self._waiting.put_nowait(partial(copy_context().run, self._send, make))
        except queue.Full:
            get_run_logger().warning("An event of OpenLineage is dropped: %s are waiting.", f"{_MOST_WAITING:,}")

    def flush(self, seconds: float) -> None:
        """Wait until all events are sent, but no longer than so."""
        deadline = time.monotonic() + seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = deadline - time.monotonic()
                if left <= 0 or not self._waiting.all_tasks_done.wait(left):
                    get_run_logger().warning("Events of OpenLineage are not sent within %g s.", seconds)
                    return

    def _work(self) -> None:
        while True:
            send = self._waiting.get()
            try:
                send()
            finally:
                self._waiting.task_done()

    def _send(self, make: Make) -> None:
        if time.monotonic() < self._resumes_at:
            return
        try:
            from tasks import openlineage_events

            self._client = self._client or openlineage_events.client()
            for event in make(openlineage_events):
                self._client.emit(event)
        except ModuleNotFoundError as error:
            self._resumes_at = float("inf")
            get_run_logger().warning("OpenLineage needs `pip install 'headwater[openlineage]'`, or more: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is not to suffer for it
            self._resumes_at = time.monotonic() + PAUSE_SECONDS
            get_run_logger().warning(
                "OpenLineage took no event, and gets none for %g s: %s", PAUSE_SECONDS, message_of(str(error))
            )


EMITTER = Emitter()


@dataclass(slots=True)
class LoadOutcome:
    """What a load did, to be filled in."""

    reports: list[LoadReport] = field(default_factory=list)


@contextmanager
def load_events(
    source: Source, stream: Stream, connections: Connections, window: Window | None = None
) -> Iterator[LoadOutcome]:
    """Tell of the load that is made meanwhile: that it starts, and that it is complete or has failed."""
    outcome = LoadOutcome()
    if not is_on():
        yield outcome
        return
    facts = (str(uuid7()), source, stream, connections, window, _parent(), datetime.now(UTC))
    EMITTER.emit(lambda events: events.Load(*facts).started())
    try:
        yield outcome
    except Exception as error:
        text = message_of(str(error))
        EMITTER.emit(lambda events: events.Load(*facts).failed(text))
        raise
    else:
        EMITTER.emit(
            lambda events: events.Load(*facts).completed(outcome.reports, connections.database(WAREHOUSE_LOADER))
        )
    finally:
        EMITTER.flush(FLUSH_SECONDS)


@contextmanager
def build_events(history: BuildHistory, connections: Connections) -> Iterator[None]:
    """Tell of the build that is made meanwhile, and of each model in it once it is over."""
    if not is_on():
        yield
        return
    facts = (str(uuid7()), history, _parent())
    EMITTER.emit(lambda events: events.Build(*facts).started())
    try:
        yield
    finally:
        EMITTER.emit(lambda events: events.Build(*facts).ended(connections.database(WAREHOUSE_TRANSFORMER)))
        EMITTER.flush(FLUSH_SECONDS)


def _parent() -> tuple[str, str] | None:
    """The flow run, and the flow's name."""
    return (str(flow_run.id), str(flow_run.flow_name)) if flow_run.id else None
