"""Documents of a source that types its columns as Parquet, and back, so that the same rows come of them.

A column has the type of Parquet that its own is the twin of, as long as all that comes would be printed again as it
came. From the first value on that would not be, it is text; from the first on that is not of the column's type at all
(some databases allow that), it is JSON, which the field's metadata says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import IO

import msgspec
import pyarrow as pa

from connectors.formats.arrow_texts import strings
from connectors.formats.parquet_rows import as_twin, batches, opened, twin
from connectors.model import Chunk, Column

_AS_JSON = {b"form": b"json"}
_NUMERIC = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_DOCUMENT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_ZEROS = re.compile(r"(\.\d*[1-9])0+(?=\+|$)|\.0+(?=\+|$)")


class _NotPlainError(ValueError):
    """A value is not of its column's type."""


class DocumentTables:
    """Makes tables of chunks of documents. Their schema changes where a column has to be of another form."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._columns = [_DocumentColumn(column) for column in columns]

    def table(self, chunk: Chunk) -> pa.Table:
        """A chunk as a table."""
        documents = [_DOCUMENT.decode(line) for line in chunk.data.splitlines()]
        arrays = [
            column.array([bytes(document.get(name, b"null")) for document in documents])
            for name, column in zip(self._names, self._columns, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=pa.schema([column.field for column in self._columns]))


class _DocumentColumn:
    def __init__(self, column: Column) -> None:
        self._kind = column.type
        self.field = pa.field(column.name, twin(column.type), metadata={"postgres_type": column.type})

    def array(self, values: list[bytes]) -> pa.Array:
        """JSON values as an array of the field's type, which may have become another for it."""
        if not _is_json(self.field):
            try:
                texts = [_text(value, self._kind) for value in values]
            except _NotPlainError:
                self.field = self.field.with_type(pa.string()).with_metadata({**self.field.metadata, **_AS_JSON})
            else:
                return self._typed(texts)
        return pa.array([None if value == b"null" else value.decode() for value in values], pa.string())

    def _typed(self, texts: list[str | None]) -> pa.Array:
        plain = pa.array(texts, pa.string())
        if not pa.types.is_string(self.field.type):
            try:
                found = as_twin(plain, self.field.type)
                if all(map(_alike, strings(found).to_pylist(), texts)):
                    return found
            except (pa.ArrowInvalid, ValueError):
                pass
            self.field = self.field.with_type(pa.string())
        return plain


def documents(file: IO[bytes]) -> Iterator[Chunk]:
    """The documents of a file of such tables, some at a time.

    Raises:
        pa.ArrowException, OSError: it is none, or damaged.
    """
    for batch in batches(opened(file)):
        columns = [_values(field, batch.column(number)) for number, field in enumerate(batch.schema)]
        names = [msgspec.json.encode(name).decode() for name in batch.schema.names]
        lines = (
            "{" + ",".join(f"{name}:{value}" for name, value in zip(names, row, strict=True)) + "}\n"
            for row in zip(*columns, strict=True)
        )
        yield Chunk("".join(lines).encode(), batch.num_rows)


def _values(field: pa.Field, values: pa.Array) -> list[str]:
    """A column's values as JSON."""
    texts = (values if pa.types.is_string(field.type) else strings(values)).to_pylist()
    if _is_json(field) or _prints_as_json(field.metadata[b"postgres_type"].decode()):
        return ["null" if text is None else text for text in texts]
    return ["null" if text is None else msgspec.json.encode(text).decode() for text in texts]


def _is_json(field: pa.Field) -> bool:
    return bool(_AS_JSON.items() <= field.metadata.items())


def _prints_as_json(kind: str) -> bool:
    return kind == "boolean" or kind.startswith(_NUMERIC)


def _text(value: bytes, kind: str) -> str | None:
    """What PostgreSQL reads a JSON value from that is of a type: a string's content, or the value as it is.

    Raises:
        _NotPlainError: it is not of the type.
    """
    if value == b"null":
        return None
    is_string = value[:1] == b'"'
    if kind == "boolean":
        is_plain = value in (b"true", b"false")
    elif kind.startswith(_NUMERIC):
        is_plain = value[:1].isdigit() or value[:1] == b"-"
    else:
        is_plain = is_string
    if not is_plain:
        raise _NotPlainError
    try:
        return _STRING.decode(value) if is_string else value.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _NotPlainError from None


def _alike(printed: str | None, text: str | None) -> bool:
    """Whether a value that was printed again is what it was: 1.50 for 1.5, and a time without its last zeros."""
    if printed == text:
        return True
    if printed is None or text is None:
        return False
    try:
        return Decimal(printed) == Decimal(text)
    except ArithmeticError:
        return printed == _ZEROS.sub(r"\1", text.replace("+00:00", "+00").replace("Z", "+00"))
