"""Landed records as rows for COPY, and what is learned of the columns on the way: here of documents, one a line.

A record that cannot become a row (malformed, ragged, with a NUL that text cannot hold) is given on as a rejected
one, with the reason: it is counted, and goes to quarantine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from connectors.destinations.warehouse.columns import Kind, column_names, document_kinds, inferred_type
from connectors.destinations.warehouse.document_columns import LONGEST_BIGINT, DocumentColumns, UnusualError
from connectors.destinations.warehouse.regular_documents import RegularDocuments
from connectors.destinations.warehouse.whole_chunks import NULL, WholeChunk, of_columns
from connectors.model import Chunk


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that no row could be made of."""

    reason: str
    payload: str


Row = list[bytes] | Rejected
"""COPY text values in the order of the parser's columns, or why there are none."""


class RecordParser(Protocol):
    """Turns chunks into rows. `columns` grows when a record brings a new field; rows before it are shorter."""

    @property
    def columns(self) -> list[str]: ...

    @property
    def kinds(self) -> dict[str, Kind] | None:
        """By column; None where the format does not type its values one by one (CSV, Parquet)."""
        ...

    @property
    def types(self) -> dict[str, str | None]:
        """The type that each column asks for; None if it has had no value."""
        ...

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        """The rows of a chunk.

        Raises:
            MalformedResponseError: the chunk's file is not of the format.
        """
        ...

    def learned(self) -> Any:
        """What is known of the columns by now; for `unlearn`."""
        ...

    def unlearn(self, learned: Any) -> None:
        """Forget what was learned of the columns since then: it came of a file that does not count."""
        ...

    def whole(self, chunk: Chunk) -> WholeChunk | None:
        """The same rows at once, where none of them is rejected or brings a new field; None where they are to be read
        one by one."""
        ...


# Plain integers: this is the innermost loop of every document load, where an enum's `|` costs more than all the rest.
_BOOLEAN, _INTEGER, _BIG_INTEGER, _FRACTION, _TEXT, _JSON = map(
    int, (Kind.BOOLEAN, Kind.INTEGER, Kind.BIG_INTEGER, Kind.FRACTION, Kind.TEXT, Kind.JSON)
)
_QUOTE, _NULL = ord('"'), ord("n")
_KIND_BY_FIRST_BYTE = {_QUOTE: _TEXT, ord("{"): _JSON, ord("["): _JSON, ord("t"): _BOOLEAN, ord("f"): _BOOLEAN}
"""How a JSON value that is neither null nor a number begins."""


_TOO_DEEP = "objects and lists within each other, too deep to be read"


class JsonLines:
    """Documents, one a line. Top-level fields become columns; objects and lists stay JSON.

    A document that has a field twice is rejected: which of the two counts, JSON does not say. So is one with a value
    that its source cannot mean by the type that it gave the field (see `Extraction.columns`).

    Args:
        json_columns: those whose values stay JSON, also single strings or numbers.
        typed: PostgreSQL's type of the fields that the source typed.
        open_columns: those of them whose type is the definition's to say: what it takes is judged value by value.
    """

    def __init__(
        self, json_columns: Collection[str], typed: Mapping[str, str] = {}, *, open_columns: Collection[str] = ()
    ) -> None:
        self.columns: list[str] = []
        self._fields: dict[str, str] = {}
        self._kinds: list[int] = []
        self._beside_values = 0
        """Bytes of a compact line with every field, without the values."""
        self._lengths: dict[str, int] = {}
        self._spaces: dict[str, int] = {}
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._text = msgspec.json.Decoder(str)
        self._by_column: DocumentColumns | None = None
        self._regular: RegularDocuments | None = None
        self._regular_kinds: list[int] = []
        """The kinds that regular chunks are told by."""
        self._refused: list[int] = []
        self._add_fields(typed)
        self._json_columns = frozenset(json_columns) - frozenset(self.columns)
        for index, (column, kind) in enumerate(zip(self.columns, typed.values(), strict=True)):
            self._refused[index] = _JSON if column in open_columns else ~int(document_kinds(kind))

    @property
    def kinds(self) -> dict[str, Kind]:
        return {column: Kind(kind) for column, kind in zip(self.columns, self._kinds, strict=True)}

    @property
    def types(self) -> dict[str, str | None]:
        return {column: inferred_type(kind) for column, kind in self.kinds.items()}

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        decode = self._decoder.decode
        is_ascii = chunk.data.isascii()
        for line in chunk.data.splitlines():
            try:
                document = decode(line)
                if not is_ascii:
                    line.decode()  # the decoder does not look inside values
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield Rejected(_diagnosed(line, error), readable(line))
                continue
            except RecursionError:
                yield Rejected(_TOO_DEEP, readable(line))
                continue
            try:
                row = self._row(document)
                values = b"".join(document.values())
                if len(line) - len(values) != self._beside_values or len(document) != len(self._fields):
                    self._refuse_repeated_fields(line, document, values)
                yield row
            except ValueError as error:
                yield Rejected(str(error), readable(line))
            except RecursionError:
                yield Rejected(_TOO_DEEP, readable(line))

    def whole(self, chunk: Chunk) -> WholeChunk | None:
        if (regular := self._regular_reader()) is not None:
            with suppress(UnusualError):
                found, kinds = regular.read(chunk.data)
                if self._accepts([kinds.get(column, 0) for column in self.columns]):
                    return found
        columns = self.values_by_column(chunk)
        if columns is None:
            return None
        valued = {
            column: values for column, values, kind in zip(self.columns, columns, self._kinds, strict=True) if kind
        }
        return of_columns(valued) if valued else None

    def _regular_reader(self) -> RegularDocuments | None:
        """For what is known of the fields by now."""
        if self._regular_kinds != self._kinds:
            self._regular_kinds = list(self._kinds)
            self._regular = None
            with suppress(UnusualError):
                stays_json = [column in self._json_columns for column in self.columns]
                self._regular = RegularDocuments(list(self._fields), self.columns, self._kinds, stays_json)
        return self._regular

    def values_by_column(self, chunk: Chunk) -> list[list[bytes]] | None:
        """COPY's texts of each column; None as from `whole`."""
        if self._by_column is None:
            if not self._fields:
                return None
            self._by_column = DocumentColumns(
                list(self._fields), (column in self._json_columns for column in self.columns)
            )
        try:
            values, kinds = self._by_column.read(chunk.data, partial(self._unescaped, column=""))
        except UnusualError:
            return None
        return values if self._accepts(kinds) else None

    def _accepts(self, kinds: list[int]) -> bool:
        """Take note of the kinds of values in a chunk, unless it is to be read row by row for one of them."""
        if any(kind & refused for kind, refused in zip(kinds, self._refused, strict=True)):
            return False
        self._kinds = [known | kind for known, kind in zip(self._kinds, kinds, strict=True)]
        return True

    def _row(self, document: dict[str, msgspec.Raw]) -> Row:
        fields = self._fields
        if not document.keys() <= fields.keys():
            self._add_fields(document)
            fields = self._fields
        row = []
        kinds = self._kinds
        for index, raw in enumerate(map(document.get, fields)):
            if raw is None:
                row.append(NULL)
                continue
            value = bytes(raw)
            first = value[0]
            if value.isdigit():
                kind = _INTEGER if len(value) <= LONGEST_BIGINT else _BIG_INTEGER
            elif first == _NULL:
                row.append(NULL)
                continue
            elif first in _KIND_BY_FIRST_BYTE:
                kind = _KIND_BY_FIRST_BYTE[first]
                if first == _QUOTE:
                    value = self._string(value, raw, self.columns[index])
                elif kind == _JSON:
                    value = value.replace(b"\\", b"\\\\").replace(b"\t", b" ")
            elif b"." in value or b"e" in value or b"E" in value:
                kind = _FRACTION
            else:
                kind = _INTEGER if len(value) <= LONGEST_BIGINT else _BIG_INTEGER
            if not kinds[index] & kind:
                if kind & self._refused[index]:
                    raise ValueError(f"column {self.columns[index]}: a value that is not of its type at the source")
                kinds[index] |= kind
            row.append(value)
        return row

    def learned(self) -> dict[str, int]:
        return dict(zip(self._fields, self._kinds, strict=True))

    def unlearn(self, learned: Any) -> None:
        self._kinds = list(learned.values())
        self._refused = self._refused[: len(learned)]
        self._set_fields(list(learned))

    def _add_fields(self, document: Iterable[str]) -> None:
        self._set_fields([*self._fields, *(field for field in document if field not in self._fields)])

    def _set_fields(self, fields: list[str]) -> None:
        self._fields = column_names(fields)
        self.columns = list(self._fields.values())
        self._kinds += [0] * (len(self.columns) - len(self._kinds))
        self._refused += [0] * (len(self.columns) - len(self._refused))
        self._lengths = {field: len(field.encode()) for field in self._fields}
        self._spaces = {field: field.count(" ") for field in self._fields if " " in field}
        self._beside_values = _beside_values(self._lengths.values())
        self._by_column = None
        self._regular_kinds = []

    def _refuse_repeated_fields(self, line: bytes, document: dict[str, msgspec.Raw], values: bytes) -> None:
        """The decoder keeps one value of a field that comes twice. The line is then longer than its parts.

        With quotes, colons, commas and braces, the parts make up the whole line, or all of it but as many bytes as
        there are spaces between them; a field more would add bytes that are none. Only where the parts fall short,
        because a name is escaped or the layout has tabs, the line is read again, field by field.

        Raises:
            ValueError: a field comes twice.
        """
        if len(document) == len(self._fields):
            beside = len(line) - len(values) - self._beside_values
        else:
            beside = len(line) - len(values) - _beside_values(map(self._lengths.__getitem__, document))
        if beside == 0:
            return
        spaces = line.count(b" ") - values.count(b" ")
        if self._spaces:
            spaces -= sum(self._spaces.get(field, 0) for field in document)
        if beside == spaces:
            return
        seen = set()
        for field, _ in _PAIRS.decode(line.decode()):
            if field in seen:
                raise ValueError(f"field {field}: it is there twice")
            seen.add(field)

    def _string(self, value: bytes, raw: msgspec.Raw, column: str) -> bytes:
        """A JSON string as COPY text: its content, or (in a column of JSON) the string with its quotes."""
        if column in self._json_columns:
            return value.replace(b"\\", b"\\\\")
        return self._unescaped(raw, column) if b"\\" in value else value[1:-1]

    def _unescaped(self, raw: bytes | msgspec.Raw, column: str) -> bytes:
        try:
            text = self._text.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"column {column}: {error}") from None
        return escaped(text, column)


def _beside_values(names: Iterable[int]) -> int:
    """Bytes of a compact object whose names have these lengths, without its values: quotes, colons, commas, braces."""
    lengths = list(names)
    return sum(lengths) + 4 * len(lengths) + 1 if lengths else 2


def _diagnosed(line: bytes, error: Exception) -> str:
    """Why a line is no document, in better words where what is wrong with it is common."""
    try:
        text = json.dumps(json.loads(line, parse_constant=_refuse, parse_int=str, parse_float=str), ensure_ascii=False)
        text.encode()
    except json.JSONDecodeError:
        pass
    except UnicodeEncodeError:
        return "half of a surrogate pair, which is no character"
    except (ValueError, RecursionError) as better:
        return str(better)
    return f"not a JSON object: {error}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not have")


_PAIRS = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str)
"""Reads an object as a list of pairs; numbers stay text, whatever their length."""


def transposed(rows: Iterable[Row], columns: Sequence[str]) -> dict[str, list[bytes]]:
    """The values of each column that has any; rows from before a column was there have none."""
    full = ([*row, *[NULL] * (len(columns) - len(row))] for row in rows if not isinstance(row, Rejected))
    values = dict(zip(columns, zip(*full, strict=True), strict=True))
    return {column: list(found) for column, found in values.items() if found.count(NULL) < len(found)}


def escaped(text: str, column: str) -> bytes:
    """A text as COPY text writes it.

    Raises:
        ValueError: PostgreSQL's text cannot hold it.
    """
    if "\0" in text:
        raise ValueError(f"column {column}: a NUL character, which text cannot hold")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"column {column}: half of a surrogate pair, which is no character") from None
    # Many times faster than one translation of the text, above all for long ones.
    return data.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")


def unescaped(value: bytes) -> str | None:
    """A value of COPY text as it was; None for null."""
    if b"\\" not in value:
        return value.decode()
    return None if value == NULL else _ESCAPE.sub(lambda match: _ESCAPED[match[0]], value).decode()


_ESCAPED = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t"}
_ESCAPE = re.compile(rb"\\[\\nrt]")


def readable(data: bytes) -> str:
    """Bytes as a text that PostgreSQL can hold, whatever they are."""
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
