"""What sources are defined to be, as plain values, and what has to be read again when a definition changes.

Values that JSON can hold, so that the definitions of another commit can be compared with these. They hold names of
secrets, never secrets: a definition has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

from connectors.model import Source

Described = Mapping[str, Any]
"""A stream's fields by name, as `described` gives them."""


def described(sources: Iterable[Source]) -> dict[str, Described]:
    """Each stream as plain values, by `source.stream`."""
    return {f"{source.name}.{stream.name}": _plain(stream) for source in sources for stream in source.streams}


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.value if isinstance(value.value, str) else value.name
        case None | bool() | int() | float() | str():
            return value
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.repr}
        return {"is": type(value).__name__, **own}
    return getattr(value, "__qualname__", type(value).__qualname__)


class Need(StrEnum):
    """What a changed stream needs of whoever merges the change."""

    FIRST_LOAD = "first load"
    """It is new: its first run reads all of it."""
    RELOAD = "reload"
    """What raw has was read by the old definition."""
    NOTHING = "nothing"
    """From its next run on it is read as it is defined now, and what raw has stays right."""
    RETIRE = "retire"
    """It is gone: its raw table stays until somebody drops it."""


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One stream whose definition is another one."""

    stream: str
    """As `source.stream`."""
    need: Need
    fields: tuple[str, ...] = ()
    """Those that differ; `cursor.field` for a part of one."""
    has_windows: bool = False
    """Whether it can be read by windows, one after the other."""


HOW_IT_IS_READ = frozenset(
    {
        "landing",
        "reject_limit",
        "deletes",
        "contract",
        "windows",
        "pages",
        "concurrency",
        "since_parameter",
        "window_parameters",
        "window_end_included",
        "errors",
        "on_bad_file",
        "max_expansion",
        "final_newline",
        "commits_in_order",
        "days",
        "cursor.lag",
        "cursor.initial",
    }
)
"""Fields that change how rows are fetched, kept or judged, and no value of a row that was read before. With any other
(one that nobody thought of here among them) raw is taken to be wrong."""


def changes(before: Mapping[str, Described], after: Mapping[str, Described]) -> list[StreamChange]:
    """The streams whose definitions differ, with what each of them needs."""
    found = [StreamChange(name, Need.RETIRE) for name in before if name not in after]
    for name, now in after.items():
        has_windows = now.get("event_time") is not None
        if name not in before:
            found.append(StreamChange(name, Need.FIRST_LOAD, has_windows=has_windows))
        elif differing := _differing(before[name], now):
            need = Need.NOTHING if HOW_IT_IS_READ.issuperset(differing) else Need.RELOAD
            found.append(StreamChange(name, need, differing, has_windows))
    return sorted(found, key=lambda each: each.stream)


def _differing(before: Described, after: Described) -> tuple[str, ...]:
    names: list[str] = []
    for name in {**before, **after}:
        then, now = before.get(name), after.get(name)
        if then == now:
            continue
        if name == "cursor" and isinstance(then, Mapping) and isinstance(now, Mapping):
            names += [f"cursor.{part}" for part in _differing(then, now)]
        else:
            names.append(name)
    return tuple(names)
