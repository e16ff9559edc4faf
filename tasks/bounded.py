"""What is done beside a run for those who look at it: it must neither fail the run nor hold it up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context

from prefect import get_run_logger

from connectors.errors import HeadwaterError

_SHOW_SECONDS = 10.0
"""How long a run waits for the server to take what it has to show."""


def within_deadline(work: Callable[[], Iterable[str]], seconds: float, what: str) -> list[str]:
    """Do something within a time, in a thread of its own: it may hang, whatever bounds it was given.

    Args:
        work: returns its problems; what it raises is one. Once the time is over it is left alone, in a thread that ends
            with the process.
        what: it is, for those who look at the process's threads.

    Returns:
        The problems; empty if all went well.
    """
    problems: list[str] = []

    def run() -> None:
        try:
            problems.extend(work())
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is not to fail for it
            problems.append(in_a_line(error))

    thread = threading.Thread(target=copy_context().run, args=[run], daemon=True, name=what)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [*problems, f"it was not done within {seconds:g} s"]
    return problems


def show(artifact: Callable[[], object], what: str) -> None:
    """Keep an artifact of the run. Nothing fails or waits for want of it: the server may be away for a while.

    Call it inside a flow or task.

    Args:
        what: it is of the run, in the plural: its links, its loads.
    """

    def keep() -> tuple[str, ...]:
        artifact()
        return ()

    if problems := within_deadline(keep, _SHOW_SECONDS, what):
        get_run_logger().warning("The %s of this run could not be shown: %s.", what, "; ".join(problems))


def in_a_line(error: Exception) -> str:
    """What an error says, less the lines in which PostgreSQL shows the statement; its kind too, unless it is ours."""
    said = str(error).partition("\n")[0].rstrip(".")
    return said if isinstance(error, HeadwaterError) and said else f"{type(error).__name__}: {said}"
