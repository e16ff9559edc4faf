"""Parquet files as rows: each value as the text that PostgreSQL reads it from, with the type that the file gives it.

A Parquet file is read from its end, so it is put aside on disk until all of it has come. Rows are read in batches of a
few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import msgspec

from connectors.aside import new_aside, put_aside
from connectors.destinations.warehouse.columns import Kind, column_names, widens
from connectors.destinations.warehouse.records import Rejected, Row, escaped, readable
from connectors.destinations.warehouse.whole_chunks import NULL, WholeChunk
from connectors.errors import MalformedResponseError
from connectors.formats.file_streams import MEND, ParquetStream
from connectors.model import Chunk, FileVersion

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


class ParquetRecords:
    """Turns the bytes of Parquet files into rows."""

    kinds: dict[str, Kind] | None = None

    def __init__(self, stream: ParquetStream) -> None:
        self.columns: list[str] = []
        self._stream = stream
        self._types: dict[str, str | None] = {}
        self._file: FileVersion | None = None
        self._aside: IO[bytes] | None = None
        self._row = 0

    @property
    def types(self) -> dict[str, str | None]:
        return dict(self._types)

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        if chunk.file != self._file or self._aside is None:
            self._file, self._row = chunk.file, 0
            self._aside = new_aside()
        put_aside(self._aside, chunk.data)
        if chunk.ends_file:
            with self._aside as aside:
                self._aside = None
                yield from self._read(aside)

    def whole(self, _: Chunk) -> WholeChunk | None:
        return None

    def learned(self) -> dict[str, str | None]:
        return dict(self._types)

    def unlearn(self, learned: Any) -> None:
        self._types = learned
        self.columns = list(self._types)

    def _read(self, aside: IO[bytes]) -> Iterator[Row]:
        import pyarrow as pa

        from connectors.formats.arrow_texts import UnknownTypeError
        from connectors.formats.parquet_rows import expands_beyond, opened

        try:
            file = opened(aside, page_checksum_verification=True)
            if expands_beyond(self._stream.max_expansion, file, aside.tell()):
                raise self._malformed(f"becomes more than {self._stream.max_expansion} times as large as it is")
            columns = self._take_columns(file.schema_arrow)
            for values in _batches(file, aside):
                yield from self._rows_of(dict(zip(columns, values, strict=True)))
        except UnknownTypeError as error:
            raise self._malformed(f"cannot be read: {error}") from error
        except (pa.ArrowException, OSError) as error:
            raise self._malformed(f"is no Parquet file, or a damaged one: {' '.join(str(error).split())}") from error

    def _take_columns(self, schema: pa.Schema) -> list[str]:
        """The columns of a file, in its order; where another file typed one differently, the type that holds both."""
        from connectors.formats.arrow_texts import type_of

        names = column_names(schema.names)
        for field in schema:
            column, kind = names[field.name], type_of(field.type)
            before = self._types.get(column)
            self._types[column] = _common(before, kind) if before is not None and kind is not None else kind or before
        self.columns = list(self._types)
        return [names[name] for name in schema.names]

    def _rows_of(self, values: dict[str, list[str | None]]) -> Iterator[Row]:
        nothing = [None] * len(next(iter(values.values()), []))
        for texts in zip(*(values.get(column, nothing) for column in self.columns), strict=True):
            self._row += 1
            try:
                yield [
                    NULL if text is None else _fit(text, column)
                    for column, text in zip(self.columns, texts, strict=True)
                ]
            except ValueError as error:
                place = self._file.path if self._file else "file"
                known = [None if text is None else str(text) for text in texts]
                payload = msgspec.json.encode(dict(zip(self.columns, known, strict=True)))
                yield Rejected(f"{place}, row {self._row}: {error}", readable(payload))

    def _malformed(self, what: str) -> MalformedResponseError:
        return MalformedResponseError(f"{self._file.path if self._file else 'file'} {what}.", remedy=MEND)


def _batches(file: pq.ParquetFile, aside: IO[bytes]) -> Iterator[list[list[str | None]]]:
    """Some rows at a time: the texts of each column."""
    from connectors.formats.arrow_texts import UnknownTypeError, int96_texts, texts
    from connectors.formats.parquet_rows import batches, opened

    described = (file.metadata.schema.column(number) for number in range(file.metadata.num_columns))
    old_times = [column.path for column in described if column.physical_type == "INT96"]
    if not set(old_times) <= set(file.schema_arrow.names):
        raise UnknownTypeError("INT96 inside of lists and structs is not read")
    coarse = opened(aside, coerce_int96_timestamp_unit="us") if old_times else None
    again = batches(coarse, old_times) if coarse is not None else None
    for batch in batches(file):
        whole = next(again) if again is not None else None
        yield [
            int96_texts(values, whole.column(name)) if whole is not None and name in old_times else texts(values)
            for name, values in zip(batch.schema.names, batch.columns, strict=True)
        ]


def _common(one: str, other: str) -> str:
    if one == other or widens(other, one):
        return one
    if widens(one, other):
        return other
    return "numeric" if all(each.startswith(_NUMBERS) for each in (one, other)) else "text"


def _fit(text: str, column: str) -> bytes:
    from connectors.formats.arrow_texts import Unfit

    if isinstance(text, Unfit):
        raise ValueError(f"column {column}: {text}")
    return escaped(text, column)
