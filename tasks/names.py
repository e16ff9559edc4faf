"""Names of flow and task runs: what is done, of which source, stream and window, so that a list of runs tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prefect.runtime import flow_run

from connectors.errors import WindowError
from connectors.model import Window

_MOST_NAMED = 3
_WAYS = {"full_refresh": "in full", "heal": "healing", "replay": "from the landing"}
"""What a parameter that is set says in a name."""


def span(start: str | None, end: str | None) -> str:
    """A window as a name has it, in ISO 8601: `2013-07-01/02`, `2013-07-01T06:00Z/12:00Z`, what both ends share once.

    Parameters that mean no window stay as they were given: the run says what is wrong with them, not its name.
    """
    if not start or not end:
        return f"{start or '..'}/{end or '..'}" if start or end else ""
    try:
        return span_of(Window.parse(start, end))
    except WindowError:
        return f"{start}/{end}"


def span_of(window: Window) -> str:
    """The same, of a window."""
    start, end = window.start, window.end
    if start.time() == end.time() == start.min.time():
        whole = f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}"
        parts = [(f"{start:%Y-%m}", f"{end:%d}"), (f"{start:%Y}", f"{end:%m-%d}")]
    else:
        form = "%Y-%m-%dT%H:%M" if start.second == end.second == 0 else "%Y-%m-%dT%H:%M:%S"
        whole = f"{start:{form}}Z", f"{end:{form}}Z"
        parts = [(f"{start:%Y-%m-%d}", f"{end:{form}}Z".partition("T")[2])]
    for shared, rest in parts:
        if whole[1].startswith(shared):
            return f"{whole[0]}/{rest}"
    return "/".join(whole)


def flow_named(word: str) -> Callable[[], str]:
    """For `flow_run_name` of a flow that works on a source or several: `ingest flights_api 2013-07-01/02`."""
    return lambda: named(word, flow_run.parameters)


def task_named(word: str) -> Callable[..., str]:
    """For `task_run_name` of a task that works on a stream: `ingest flights_api.flights 2013-07-01/02`."""

    def name(parameters: dict[str, Any]) -> str:
        return named(word, parameters)

    return name


def transform_name() -> str:
    """Of the flow `transform`: with what is selected."""
    in_full = " in full" if flow_run.parameters.get("full_refresh") else ""
    return f"transform {flow_run.parameters.get('select') or 'all'}{in_full}"


def named(word: str, parameters: Mapping[str, Any]) -> str:
    """A run's name: what it does, and what of its parameters says to whom."""
    streams = parameters.get("streams") or [each for each in [parameters.get("stream")] if each]
    name = parameters.get("source") or ", ".join(parameters.get("sources") or []) or "all sources"
    if len(streams) == 1:
        name = f"{name}.{streams[0]}"
    elif streams:
        more = f" and {len(streams) - _MOST_NAMED} more" if len(streams) > _MOST_NAMED else ""
        name = f"{name} ({', '.join(streams[:_MOST_NAMED])}{more})"
    batch = parameters.get("batch")
    window = span_of(batch.window) if batch else span(parameters.get("start"), parameters.get("end"))
    how = ", ".join(words for parameter, words in _WAYS.items() if parameters.get(parameter))
    return " ".join(part for part in (word, name, window, how) if part)
