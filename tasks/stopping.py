"""SIGTERM within a flow: what its threads are at is broken off in order before Prefect ends the process.

Prefect raises `TerminationSignal` in the main thread, when a run is cancelled and when its worker is ended, and kills
the process with all of its threads as soon as the flow has been left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.exceptions import TerminationSignal

from connectors.stopping import stop


@contextmanager
def stoppable() -> Iterator[None]:
    """Use it inside a flow, around all that it does. A second signal is not waited for: it ends the process."""
    try:
        yield
    except TerminationSignal:
        log = get_run_logger()
        log.warning("This run was told to stop, and breaks off.")
        if not stop():
            log.warning("Not all of it has ended in time; what is left is ended with the process, and commits nothing.")
        raise
