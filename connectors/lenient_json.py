"""Taking a body apart that a strict parser refuses, by where its values begin and end; slow, and seldom needed.

Python's own parser takes NaN, Infinity and halves of surrogate pairs, which many servers send although JSON has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
"""For the ends of values alone: numbers stay text, whatever their length."""
_SPACE = re.compile(r"[ \t\n\r]*")


def take_apart_leniently(body: str, path: list[str]) -> tuple[dict[str, msgspec.Raw], list[msgspec.Raw]]:
    """A body as the values of its outermost object (empty when it is a bare list) and its records, each undecoded.

    Args:
        path: the names that lead to the list of records; empty when the body is the list.

    Raises:
        ValueError: it is no JSON even so, or does not have such a list.
        RecursionError: it is nested too deep.
    """
    start, end = _skip(body, 0), len(body)
    envelope: dict[str, msgspec.Raw] = {}
    for depth, name in enumerate(path):
        members = dict(_members(body, start, end))
        if depth == 0:
            envelope = {field: _raw(body, *place) for field, place in members.items()}
        if name not in members:
            raise ValueError(f"no {name}")
        start, end = members[name]
    return envelope, [_raw(body, *place) for place in _elements(body, start, end)]


def _members(text: str, start: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, beginning and end of each value of an object."""
    position = _expect(text, start, "{")
    while text[position : position + 1] != "}":
        name, position = _DECODER.raw_decode(text, position)
        if not isinstance(name, str):
            raise ValueError(f"no name before character {position}")
        value = _expect(text, _skip(text, position), ":")
        _, position = _DECODER.raw_decode(text, value)
        yield name, (value, position)
        position = _next(text, position, "}")
    _check_end(text, position + 1, end)


def _elements(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each value of a list."""
    position = _expect(text, start, "[")
    while text[position : position + 1] != "]":
        value = position
        _, position = _DECODER.raw_decode(text, value)
        yield value, position
        position = _next(text, position, "]")
    _check_end(text, position + 1, end)


def _next(text: str, position: int, closing: str) -> int:
    """Where the next value begins, or the closing bracket is."""
    position = _skip(text, position)
    if text[position : position + 1] == closing:
        return position
    position = _expect(text, position, ",")
    if text[position : position + 1] == closing:
        raise ValueError(f"a value is missing at character {position}")
    return position


def _expect(text: str, position: int, what: str) -> int:
    if text[position : position + 1] != what:
        raise ValueError(f"no {what} at character {position}")
    return _skip(text, position + 1)


def _check_end(text: str, position: int, end: int) -> None:
    if _skip(text, position) < end:
        raise ValueError(f"more than was to come at character {position}")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _raw(text: str, start: int, end: int) -> msgspec.Raw:
    return msgspec.Raw(text[start:end].encode())
