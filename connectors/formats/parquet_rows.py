"""Rows of typed columns as Parquet: from PostgreSQL's CSV, and back to it, without a value changing.

Columns have Parquet's own types where every value of them is the same there. What has no twin (a `numeric` without
bounds, an interval, a range, an array …) is a text as PostgreSQL prints it, and so is a column in which a single value
has none (infinity, NaN among decimals, a year before the first). Each field's metadata has the `postgres_type`.

Importing this takes a fifth of a second and 60 MB, so only what reads or writes Parquet does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import RawIOBase
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from connectors.errors import DataError
from connectors.formats.arrow_texts import strings
from connectors.model import Chunk, Column

_GROUP_BYTES = 8 << 20
"""Of a row group, as Arrow holds it in memory."""
_BATCH_BYTES = 1 << 20
_BATCH_ROWS = 10_000
_FREE_BYTES = 64 << 20
"""Bytes that any file may become, however small it is."""
_TWINS = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "date": pa.date32(),
    "bytea": pa.binary(),
}
_DECIMAL = re.compile(r"numeric\((\d+),(\d+)\)")
_TIME = re.compile(r"(timestamp|time)(?:\(\d\))? (with|without) time zone")


def csv_table(chunk: Chunk, columns: Sequence[Column]) -> pa.Table:
    """Rows of CSV as PostgreSQL's COPY writes it, without a header, as a table of texts.

    Raises:
        DataError: they are not as many as they should be.
    """
    names = [column.name for column in columns]
    found = pacsv.read_csv(
        pa.BufferReader(chunk.data),
        read_options=pacsv.ReadOptions(column_names=names, block_size=len(chunk.data) + 1, use_threads=False),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            # COPY's null is nothing at all, an empty text a pair of quotes.
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if found.num_rows != chunk.rows:
        raise DataError(
            f"{chunk.rows:,} rows were read and {found.num_rows:,} are to be written as Parquet.",
            remedy="Set the stream's landing to its default, and report it: this must not happen.",
        )
    return found


class ParquetTables:
    """Gives texts Parquet's types, as far as their values have twins, table by table.

    Once a value of a column has none, the column is text from then on; the schema of the tables changes there.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._types = [twin(column.type) for column in columns]

    def table(self, texts_by_column: pa.Table) -> pa.Table:
        """Rows that are texts as rows of these types."""
        arrays = []
        for number, texts in enumerate(texts_by_column.columns):
            try:
                arrays.append(as_twin(texts, self._types[number]))
            except (pa.ArrowInvalid, ValueError):
                self._types[number] = pa.string()
                arrays.append(texts)
        return pa.Table.from_arrays(arrays, schema=self.schema)

    @property
    def schema(self) -> pa.Schema:
        """That of the latest table."""
        return pa.schema(
            [
                pa.field(column.name, kind, metadata={"postgres_type": column.type})
                for column, kind in zip(self._columns, self._types, strict=True)
            ]
        )


def twin(kind: str) -> pa.DataType:
    """The type of Parquet that most values of a type have a twin in."""
    if (decimal := _DECIMAL.fullmatch(kind)) is not None:
        precision, scale = int(decimal[1]), int(decimal[2])
        if scale <= precision <= 76:
            return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if (instant := _TIME.fullmatch(kind)) is not None:
        zone = instant[2] == "with"
        if instant[1] == "timestamp":
            return pa.timestamp("us", tz="UTC" if zone else None)
        return pa.string() if zone else pa.time64("us")
    return _TWINS.get(kind, pa.string())


def as_twin(texts: Any, kind: pa.DataType) -> Any:
    """Texts (an array, also a chunked one) as values of a type.

    Raises:
        pa.ArrowInvalid, ValueError: one of them has no twin there.
    """
    if pa.types.is_boolean(kind):
        # COPY writes t and f, JSON the words.
        return pc.cast(pc.replace_substring_regex(pc.replace_substring_regex(texts, "^t$", "1"), "^f$", "0"), kind)
    if pa.types.is_time(kind):
        return pc.cast(pc.cast(pc.binary_join_element_wise("1970-01-01", texts, " "), pa.timestamp("us")), kind)
    if pa.types.is_binary(kind):
        # As in \xc0ffee.
        values = [None if text is None else bytes.fromhex(text[2:]) for text in texts.to_pylist()]
        return pa.chunked_array([values], kind) if isinstance(texts, pa.ChunkedArray) else pa.array(values, kind)
    return pc.cast(texts, kind)


class ParquetFile:
    """Writes tables of one schema as a Parquet file, in row groups of some megabytes.

    To be closed in any case, before its sink: PyArrow would else write the end of the file whenever it comes to it.

    Args:
        sink: where the bytes go, in their order.
    """

    def __init__(self, schema: pa.Schema, sink: IO[bytes] | RawIOBase) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1)
        self._group: list[pa.Table] = []
        self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._group.append(table)
        self._bytes += table.nbytes
        if self._bytes >= _GROUP_BYTES:
            self._end_group()

    def close(self) -> None:
        """Write what is left, and the file's end. The sink stays open."""
        self._end_group()
        self._writer.close()

    def _end_group(self) -> None:
        if self._group:
            self._writer.write_table(pa.concat_tables(self._group), row_group_size=1 << 30)
        self._group, self._bytes = [], 0


def opened(file: IO[bytes], **options: Any) -> pq.ParquetFile:
    """A Parquet file to be read by `batches`: no more of it is in memory than a batch, and the pages that it is of."""
    return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, **options)


def expands_beyond(times: int, file: pq.ParquetFile, size: int) -> bool:
    """Whether a file becomes more than so many times its size when it is read, beyond the first 64 MiB."""
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    return bool(sum(group.total_byte_size for group in groups) > max(_FREE_BYTES, times * size))


def batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, about a megabyte at a time, by the widest of them."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    widest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(widest, 1)))
    yield from file.iter_batches(rows, columns=columns, use_threads=False)


def text_batches(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """The rows of a file that `ParquetFile` wrote, as texts, some thousands at a time.

    Raises:
        pa.ArrowException, OSError: it is none, or damaged.
    """
    for batch in batches(opened(file)):
        texts = [column if pa.types.is_string(column.type) else strings(column) for column in batch.columns]
        yield pa.RecordBatch.from_arrays(texts, names=batch.schema.names)


def csv_of(batch: pa.RecordBatch) -> bytes:
    """Texts as CSV that PostgreSQL's COPY reads."""
    sink = pa.BufferOutputStream()
    pacsv.write_csv(batch, sink, pacsv.WriteOptions(include_header=False, quoting_style="all_valid"))
    return bytes(sink.getvalue())
