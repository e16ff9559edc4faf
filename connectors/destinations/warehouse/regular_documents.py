"""Chunks of documents that are all alike, which most are: every document has every known field, written without spaces,
each value of the kind that the field's values have always been.

Such a chunk is taken apart, checked and put together as lines of CSV by a few passes in C: no value of it is looked at
one by one. Whatever is not so is left to the readings by column and row by row. All give the same rows: a test holds
them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from connectors.destinations.warehouse.columns import Kind
from connectors.destinations.warehouse.document_columns import LONGEST_BIGINT, NUMERIC, UnusualError, number_kinds
from connectors.destinations.warehouse.whole_chunks import CSV, WholeChunk

_ANY_NUMBER = Kind.INTEGER | Kind.BIG_INTEGER | Kind.FRACTION
_VALUE_TYPES: dict[Kind, Any] = {
    Kind.NONE: None,
    Kind.BOOLEAN: bool | None,
    # As `document_columns` counts digits: a minus sign is one.
    Kind.INTEGER: Annotated[int, msgspec.Meta(ge=1 - 10 ** (LONGEST_BIGINT - 1), le=10**LONGEST_BIGINT - 1)] | None,
    Kind.TEXT: str | None,
}
"""What the decoder itself makes sure of, by kind."""
_OPENING = frozenset("{[")


class RegularDocuments:
    """Reads regular chunks.

    Args:
        fields: their names in the order of the columns.
        columns: what they are called in the warehouse.
        kinds: what the values of each have been.
        stays_json: by column, whether its values keep their JSON form, also those that are single strings.

    Raises:
        UnusualError: no chunk of such fields is regular: one has had values of several kinds, or none has had any.
    """

    def __init__(
        self, fields: Sequence[str], columns: Sequence[str], kinds: Sequence[int], stays_json: Sequence[bool]
    ) -> None:
        members: list[tuple[str, Any]] = []
        self._kinds: dict[str, Kind] = {}
        """Of the columns that have had a value; the others are left out of the lines."""
        self._names: dict[str, str] = {}
        for number, (column, kind, stays) in enumerate(zip(columns, map(Kind, kinds), stays_json, strict=True)):
            is_number = kind == kind & _ANY_NUMBER
            if (kind not in _VALUE_TYPES and kind != Kind.JSON and not is_number) or (stays and kind & ~Kind.JSON):
                raise UnusualError
            members.append((f"f{number}", _VALUE_TYPES.get(kind, msgspec.Raw)))
            if kind:
                self._kinds[column] = kind
                self._names[column] = f"f{number}"
        if len(self._kinds) < 2:  # one alone would be no list of values
            raise UnusualError
        names = {f"f{number}": field for number, field in enumerate(fields)}
        try:
            record = msgspec.defstruct("Record", members, rename=names, forbid_unknown_fields=True, gc=False)
        except ValueError:  # a name with a quote or a backslash cannot be a member's
            raise UnusualError from None
        self._decoder = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]  # it is made here
        self._encoder = msgspec.json.Encoder()
        self._row = attrgetter(*self._names.values()) if len(self._kinds) < len(fields) else msgspec.structs.astuple
        # Quotes and a colon; the comma and the null of a field that is left out because it has never had a value.
        self._beside = sum(len(field.encode()) + 3 for field in fields) + 5 * (len(fields) - len(self._kinds))

    def read(self, data: bytes) -> tuple[WholeChunk, dict[str, int]]:
        """The chunk as lines of CSV, and the kinds of values that were in each column that has had any before.

        Raises:
            UnusualError: the chunk is not regular.
        """
        records = self._records(data)
        kinds: dict[str, int] = dict(self._kinds)  # the decoder sees to most of them
        texts: dict[str, bytes] = {}
        longer = 0
        for column, kind in self._kinds.items():
            if kind == Kind.JSON:
                texts[column] = self._quote(records, self._names[column])
                longer += _bytes_added(texts[column])
            elif kind not in _VALUE_TYPES:
                kinds[column] = _number_kinds(list(map(attrgetter(self._names[column]), records)))
        lines = self._encoder.encode_lines(list(map(self._row, records)))
        # What decoder and encoder agree about is as long as it was: a field that comes twice, a space, a minus before a
        # zero or a letter that is escaped though it need not be would be missing now.
        if len(data) - len(lines) + longer != len(records) * self._beside:
            raise UnusualError
        if b"\\" in data:
            _check_escapes(lines)

        def values(column: str) -> bytes:
            if column in texts:
                return texts[column]
            found = map(attrgetter(self._names[column]), records)
            if self._kinds[column] == Kind.TEXT:
                return "\n".join([value for value in found if value is not None]).encode()
            return b"\n".join([self._encoder.encode(value) for value in found if value is not None])

        without_brackets = b"\n".join([line[1:-1] for line in lines.split(b"\n")])
        return WholeChunk(len(records), list(self._kinds), CSV, without_brackets, values), kinds

    def _records(self, data: bytes) -> list[Any]:
        lines = data.count(b"\n")
        if data[-1:] != b"\n" or b"\t" in data or b"\r" in data:  # a tab can only be layout
            raise UnusualError
        try:
            if not data.isascii():
                data.decode()  # the decoder does not look inside values that stay as they are
            # As a list, a line break where none may be is a comma where none may be.
            listed = b"".join([b"[", data.replace(b"\n", b",", lines - 1), b"]"])
            records: list[Any] = self._decoder.decode(listed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnusualError from None
        if len(records) != lines:
            raise UnusualError
        return records

    @staticmethod
    def _quote(records: list[Any], name: str) -> bytes:
        """Have objects and lists be texts, for the encoder to quote.

        Returns:
            Those that are not null as they were, one a line.
        """
        together = b"\n".join(map(attrgetter(name), records))
        texts: list[str | None] = list(together.decode().split("\n"))
        if b"null" in together:
            texts = [None if text == "null" else text for text in texts]
            together = b"\n".join([text.encode() for text in texts if text is not None])
        if not {text[0] for text in texts if text is not None} <= _OPENING:
            raise UnusualError
        for record, text in zip(records, texts, strict=True):
            setattr(record, name, text)
        return together


def _bytes_added(texts: bytes) -> int:
    """How many bytes longer these values are, one a line, when each is a JSON string."""
    return 2 * (texts.count(b"\n") + 1) + texts.count(b'"') + texts.count(b"\\") if texts else 0


def _number_kinds(values: list[msgspec.Raw]) -> int:
    together = b"\n".join(values)
    numbers = together.split(b"\n")
    if together.translate(None, b"0123456789.-\n"):
        numbers = [number for number in numbers if number != b"null"]
        if not {number[:1] for number in numbers} <= NUMERIC:
            raise UnusualError
    return number_kinds(numbers, together)


def _check_escapes(lines: bytes) -> None:
    """Refuse escapes that mean something else in CSV, where only a quote and a backslash are escaped.

    Raises:
        UnusualError: there are such.
    """
    others = lines.replace(b"\\\\", b"")
    if others.count(b"\\") != others.count(b'\\"'):
        raise UnusualError
