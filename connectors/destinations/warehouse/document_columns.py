"""Documents read column by column: for the chunks that hold nothing but known fields, if they are not regular.

What costs time in a loop over values costs little in one pass over all values of a column. A chunk that is unusual in
any way (an unknown field, one that comes twice, a value that text cannot hold, no JSON) is left to the reading row by
row, which knows what to say about it; both give the same rows, and a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter, mul
from typing import Any, NamedTuple

import msgspec

from connectors.destinations.warehouse.columns import Kind
from connectors.destinations.warehouse.whole_chunks import NULL

LONGEST_BIGINT = 18
"""Digits that any bigint has room for; integers of more digits are taken as numeric."""

_BOOLEAN, _INTEGER, _BIG_INTEGER, _FRACTION, _TEXT, _JSON = map(
    int, (Kind.BOOLEAN, Kind.INTEGER, Kind.BIG_INTEGER, Kind.FRACTION, Kind.TEXT, Kind.JSON)
)
_first = itemgetter(slice(0, 1))
NUMERIC = frozenset(bytes([byte]) for byte in b"-0123456789")
"""How numbers begin."""
_NO_VALUE = frozenset([b"", b"n"])

Unescape = Callable[[bytes], bytes]
"""A JSON string with escapes in it as COPY text; ValueError if text cannot hold it."""


class UnusualError(ValueError):
    """The chunk is to be read row by row."""


class DocumentColumns:
    """Reads chunks whose records have known fields only.

    Args:
        fields: their names in the order of the columns.
        stays_json: by column, whether its values keep their JSON form, also those that are single strings.
    """

    def __init__(self, fields: Sequence[str], stays_json: Iterable[bool]) -> None:
        self._stays_json = list(stays_json)
        self._beside = [len(field.encode()) + 4 for field in fields]
        """Bytes of a field beside its value in a compact line: quotes, colon, comma."""
        self._spaces = [field.count(" ") for field in fields]
        attributes = {f"f{number}": field for number, field in enumerate(fields)}
        members: list[tuple[str, Any, Any]] = [(name, msgspec.Raw, msgspec.Raw(b"")) for name in attributes]
        self._decoder: msgspec.json.Decoder[Any] | None = None
        with suppress(ValueError):  # a name with a quote or a backslash cannot be a member's
            record = msgspec.defstruct("Record", members, rename=attributes, gc=False)
            self._decoder = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]  # it is made here

    def read(self, data: bytes, unescape: Unescape) -> tuple[list[list[bytes]], list[int]]:
        """The COPY text values of each column, and the kinds of values that were in it.

        Raises:
            UnusualError: the chunk has something that the reading row by row has to look at.
        """
        if self._decoder is None:
            raise UnusualError
        # As a list, a line break where none may be is a comma where none may be.
        rows = _count(data, b"\n")
        try:
            data.decode()  # the decoder does not look inside values
            records = self._decoder.decode(b"[" + data[:-1].replace(b"\n", b",") + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnusualError from None
        if not records or len(records) != rows or data[-1:] != b"\n" or b"\r" in data:
            raise UnusualError
        joined = [b"\n".join(values) for values in zip(*map(msgspec.structs.astuple, records), strict=True)]
        try:
            read = [
                _column(values, rows, unescape, stays_json=stays)
                for values, stays in zip(joined, self._stays_json, strict=True)
            ]
        except (ValueError, RecursionError):
            raise UnusualError from None
        self._check_complete(data, joined, [rows - column.missing for column in read])
        return [column.values for column in read], [column.kinds for column in read]

    def _check_complete(self, data: bytes, joined: list[bytes], present: list[int]) -> None:
        """With quotes, colons, commas and braces, the values make up all of the lines but spaces between them.

        A field that is unknown, comes twice or has its name escaped adds bytes that are none.

        Raises:
            UnusualError: there is more than that.
        """
        rows = _count(data, b"\n")
        # Braces and line break, less the comma that the last field has not. A record without fields has two bytes.
        beside = len(data) - 2 * rows - sum(map(len, joined)) + len(joined) * (rows - 1)
        beside -= sum(map(mul, self._beside, present))
        if beside == 0:
            return
        spaces = _count(data, b" ") - sum(_count(values, b" ") for values in joined)
        if beside != spaces - sum(map(mul, self._spaces, present)):
            raise UnusualError


def _count(data: bytes, byte: bytes) -> int:
    """How often a byte occurs; several times as fast as `count` where that is often."""
    return len(data) - len(data.replace(byte, b""))


class _Column(NamedTuple):
    values: list[bytes]
    """As COPY text."""
    kinds: int
    missing: int = 0
    """How many records do not have the field."""


def _column(joined: bytes, rows: int, unescape: Unescape, *, stays_json: bool) -> _Column:
    """A column's values, which come with line breaks between them."""
    if joined[:1] == b'"' and joined[-1:] == b'"' and joined.count(b'"\n"') == rows - 1:
        return _Column(_strings(joined, unescape, stays_json=stays_json), _TEXT)
    values = joined.split(b"\n")
    missing = values.count(b"")
    if not missing and not joined.translate(None, b"0123456789\n"):
        return _Column(values, _integers(values))
    firsts = set(map(_first, values))
    has_nulls = not _NO_VALUE.isdisjoint(firsts)
    firsts -= _NO_VALUE
    if not firsts:
        return _Column([NULL] * rows, 0, missing)
    if firsts == {b'"'}:
        read = partial(_string, unescape=unescape, stays_json=stays_json)
        return _Column([read(value) if value[:1] == b'"' else NULL for value in values], _TEXT, missing)
    if firsts <= {b"{", b"["}:
        if b"\\" in joined or b"\t" in joined:
            values = joined.replace(b"\\", b"\\\\").replace(b"\t", b" ").split(b"\n")
        kinds = _JSON
    elif firsts <= {b"t", b"f"}:
        kinds = _BOOLEAN
    elif firsts <= NUMERIC:
        kinds = number_kinds([value for value in values if value[:1] not in _NO_VALUE] if has_nulls else values, joined)
    else:
        raise UnusualError  # of several kinds
    if has_nulls:
        values = [NULL if value[:1] in _NO_VALUE else value for value in values]
    return _Column(values, kinds, missing)


def _strings(joined: bytes, unescape: Unescape, *, stays_json: bool) -> list[bytes]:
    if stays_json:
        return joined.replace(b"\\", b"\\\\").split(b"\n")
    if b"\\" not in joined:
        return joined[1:-1].split(b'"\n"')
    return [_string(value, unescape, stays_json=False) for value in joined.split(b"\n")]


def _string(value: bytes, unescape: Unescape, *, stays_json: bool) -> bytes:
    if stays_json:
        return value.replace(b"\\", b"\\\\")
    return unescape(value) if b"\\" in value else value[1:-1]


def number_kinds(values: list[bytes], joined: bytes) -> int:
    """The kinds of a column's numbers.

    Args:
        joined: the values in one, with anything between them but digits, a point or an exponent.
    """
    if b"e" in joined or b"E" in joined:
        whole = [value for value in values if b"." not in value and b"e" not in value and b"E" not in value]
    elif b"." in joined:
        whole = [value for value in values if b"." not in value] if joined.count(b".") < len(values) else []
    else:
        return _integers(values)
    return _FRACTION | _integers(whole)


def _integers(values: list[bytes]) -> int:
    if not values:
        return 0
    lengths = set(map(len, values))
    kinds = _INTEGER if min(lengths) <= LONGEST_BIGINT else 0
    return kinds | (_BIG_INTEGER if max(lengths) > LONGEST_BIGINT else 0)
