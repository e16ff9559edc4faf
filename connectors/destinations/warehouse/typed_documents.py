"""The first load of documents straight into typed columns, on the assumption that all of it fits.

A first load has no raw table to obey: its columns take the types of what comes, and where every value is one of its
column's type, the table that was filled is raw. So the types are taken from the first chunk, and widened as values ask
for it; what PostgreSQL's input functions would not refuse but change (a leap second, a field twice in an object) is
looked for here. The first thing that does not fit ends the attempt to do it so: the load is in the landing, and is
loaded from there, with each value judged by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from connectors.destinations.warehouse.columns import Kind, inferred_type
from connectors.destinations.warehouse.whole_chunks import WholeChunk

_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_DAY = rb"0000-00-00"
_TIME = rb"[T ]00:00:00(\.0{1,6})?"
_SHAPES = {
    "date": re.compile(_DAY),
    "timestamp without time zone": re.compile(_DAY + _TIME),
    "timestamp with time zone": re.compile(_DAY + _TIME + rb"(Z|[-+]00(:?00)?)?"),
}
_NO_CHARACTER = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
"""Escapes that jsonb cannot hold, or only in pairs."""


class UnfitError(Exception):
    """Something does not fit the types that were taken: the load has to be judged value by value."""


class TypedDocuments:
    """The types of a first load's columns.

    Args:
        declared: those of the stream's definition, as `format_type` prints them.
    """

    def __init__(self, declared: Mapping[str, str]) -> None:
        self._declared = dict(declared)
        self.types: dict[str, str] = {}
        """By column, in the order in which columns had a first value."""

    @staticmethod
    def knows(declared: Mapping[str, str]) -> bool:
        """Whether all these types are ones that it can look after."""
        return all(kind in _GUARDS for kind in declared.values())

    def wanted(self, kinds: Mapping[str, Kind]) -> dict[str, str]:
        """The type by column that values of these kinds ask for; columns without a value ask for nothing.

        Raises:
            UnfitError: a column that has a type would need one that does not print its values as they came.
        """
        wanted: dict[str, str] = {}
        for column, kind in kinds.items():
            target = self._declared.get(column) or inferred_type(kind)
            if target is None or kind is Kind.NONE:
                continue
            had = self.types.get(column, target)
            if had != target and (had, target) != ("bigint", "numeric"):
                raise UnfitError
            if target == "boolean" and kind != Kind.BOOLEAN:
                raise UnfitError
            wanted[column] = target
        return wanted

    def rest(self) -> dict[str, str]:
        """The declared columns that had no value."""
        return {column: kind for column, kind in self._declared.items() if column not in self.types}

    def check(self, chunk: WholeChunk) -> None:
        """Refuse values that their column's type would take and change.

        Raises:
            UnfitError: there are such.
        """
        for column in chunk.columns:
            if (guard := _GUARDS[self.types[column]]) is not None and not guard(chunk.values(column)):
                raise UnfitError


def _has_shape(shape: re.Pattern[bytes], values: bytes) -> bool:
    if not values:
        return True
    if b":60" in values:
        return False  # a leap second
    return all(map(shape.fullmatch, set(values.translate(_DIGITS_ALIKE).split(b"\n"))))


def _is_exact_json(values: bytes) -> bool:
    """Whether jsonb keeps all of them: no field twice in an object, nothing escaped that it cannot hold.

    A name is followed by a quote and a colon. There are as many of these as the objects have fields, then: more, if a
    field comes twice, or a string begins with a colon.
    """
    if b" :" in values or b"\t" in values or (b"\\" in values and _NO_CHARACTER.search(values)):
        return False
    try:
        found = msgspec.json.decode(b"[" + values.replace(b"\n", b",") + b"]")
        # As many braces as there are values: if they are objects, there are none within them.
        is_flat = values.count(b"{") == len(found) and set(map(type, found)) == {dict}
        return (sum(map(len, found)) if is_flat else _fields(found)) == values.count(b'":')
    except (msgspec.DecodeError, RecursionError):
        return False


def _fields(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_fields, value.values()))
    if isinstance(value, list):
        return sum(map(_fields, value))
    return 0


_GUARDS: Mapping[str, Callable[[bytes], bool] | None] = {
    "text": None,
    "boolean": None,
    "smallint": None,
    "integer": None,
    "bigint": None,
    "numeric": None,
    "jsonb": _is_exact_json,
    "date": lambda values: _has_shape(_SHAPES["date"], values),
    "timestamp without time zone": lambda values: _has_shape(_SHAPES["timestamp without time zone"], values),
    "timestamp with time zone": lambda values: _has_shape(_SHAPES["timestamp with time zone"], values),
}
"""What else must hold of values (one a line) that PostgreSQL takes as ones of the type, for them to be kept exactly."""
