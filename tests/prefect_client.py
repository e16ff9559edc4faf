"""This process as a client of one Prefect server after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import temporary_settings


@contextmanager
def prefect_settings(settings: Mapping[Any, Any]) -> Iterator[None]:
    """Prefect's settings of another server, while it runs.

    Events and logs are sent by threads that keep the server they were started for, and start once: without this, what
    later tests send to theirs would go to this one, or, when it is gone, nowhere.
    """
    _stop_senders()
    with temporary_settings(settings):
        try:
            yield
        finally:
            _stop_senders()


def _stop_senders() -> None:
    for sender in (EventsWorker, APILogWorker):
        sender.drain_all(timeout=10, at_exit=False)
