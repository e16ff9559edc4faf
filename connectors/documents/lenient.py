"""Taking a body apart that a strict parser refuses, by where its values begin and end; slow, and seldom needed.

Python's own parser takes NaN, Infinity and halves of surrogate pairs, which many servers send although JSON has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import msgspec

_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
"""For the ends of values alone: numbers stay text, whatever their length."""
_SPACE = re.compile(r"[ \t\n\r]*")


def select_leniently(body: str, path: Sequence[str | None]) -> list[msgspec.Raw]:
    """The values at a path, each undecoded.

    Args:
        path: the names that lead there from the outside; None stands for each element of a list.

    Raises:
        KeyError: an object on the way lacks a name.
        ValueError: it is no JSON even so, or does not have such a list or object.
        RecursionError: it is nested too deep.
    """
    start, end = _skip(body, 0), len(body)
    if not path:
        _, end = _DECODER.raw_decode(body, start)
        _check_end(body, end, len(body))
    return [_raw(body, *place) for place in _places(body, start, end, path)]


def members_leniently(body: str) -> dict[str, msgspec.Raw]:
    """The values of an object, each undecoded.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep.
    """
    return {name: _raw(body, *place) for name, place in _members(body, _skip(body, 0), len(body))}


def _places(text: str, start: int, end: int, path: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Beginning and end of each value at a path."""
    if not path:
        yield start, end
    elif path[0] is None:
        for place in _elements(text, start, end):
            yield from _places(text, *place, path[1:])
    else:
        yield from _places(text, *dict(_members(text, start, end))[path[0]], path[1:])


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
