"""Private columns out of Parquet files: each is written anew, with the types, the values and none of the notes it had.

Importing this takes a fifth of a second and 60 MB, so only what reads or writes Parquet does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import pyarrow as pa

from connectors.aside import new_aside, put_aside
from connectors.formats.arrow_texts import UnknownTypeError, texts
from connectors.formats.parquet_rows import ParquetFile, batches, expands_beyond, opened
from connectors.treatments.plan import Leaf, Plan

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK_BYTES = 4 << 20


class ParquetTreatment:
    """Treats the bytes of Parquet files."""

    def __init__(self, plan: Plan, max_expansion: int) -> None:
        self._plan = plan
        self._max_expansion = max_expansion

    def file(self, aside: IO[bytes]) -> Iterator[bytes]:
        """A file's bytes, of one that was put aside.

        Raises:
            ValueError: it cannot be treated, to be said behind its name.
        """
        try:
            file = opened(aside, page_checksum_verification=True)
            if expands_beyond(self._max_expansion, file, aside.tell()):
                raise ValueError(f"becomes more than {self._max_expansion} times as large as it is")
            described = (file.metadata.schema.column(number) for number in range(file.metadata.num_columns))
            if any(column.physical_type == "INT96" for column in described):
                raise ValueError("has INT96 timestamps, which cannot be written anew without loss")
            leaves = [self._plan.column(name) for name in file.schema_arrow.names]
            if lacking := [leaf.name for leaf in self._plan.leaves if leaf not in leaves]:
                raise ValueError(f"has no column `{lacking[0]}`, which is private: perhaps it has another name")
            with new_aside() as written:
                output = ParquetFile(_schema(file.schema_arrow, leaves), _Sink(written))
                try:
                    for batch in batches(file):
                        output.write(_treated(batch, leaves, output.schema))
                finally:
                    output.close()
                written.seek(0)
                while block := written.read(_BLOCK_BYTES):
                    yield block
        except UnknownTypeError as error:
            raise ValueError(f"cannot be read: {error}") from None
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"is no Parquet file, or a damaged one ({type(error).__name__})") from None


class _Sink(io.RawIOBase):
    """A file put aside, as what PyArrow writes to: a disk that is full is not the file's fault."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Buffer, /) -> int:
        put_aside(self._file, bytes(data))
        return len(memoryview(data))


def _schema(schema: pa.Schema, leaves: list[Leaf | None]) -> pa.Schema:
    """What is noted beside the columns, by whoever wrote the file, is left out."""
    return pa.schema(
        [
            each if leaf is None else pa.field(each.name, pa.string())
            for each, leaf in zip(schema, leaves, strict=True)
            if leaf is None or leaf.key is not None
        ]
    )


def _treated(batch: pa.RecordBatch, leaves: list[Leaf | None], schema: pa.Schema) -> pa.Table:
    columns = []
    for values, leaf in zip(batch.columns, leaves, strict=True):
        if leaf is None:
            columns.append(values)
        elif leaf.key is not None:
            hashes = [None if text is None else leaf.hashed(text.encode()) for text in texts(values)]
            columns.append(pa.array(hashes, pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)
