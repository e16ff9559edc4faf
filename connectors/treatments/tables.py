"""Private columns hashed in rows that a database typed: in binary COPY, and in the CSV of COPY.

The other columns keep every bit. A column that is hashed comes as text, and columns that are left out are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from connectors.model import Chunk, Column
from connectors.treatments.plan import Leaf, Plan

_FIELDS, _SIZE = Struct("!h"), Struct("!i")
_HASH_SIZE = _SIZE.pack(64)


class CopyTreatment:
    """Treats chunks of whole rows of binary COPY (PostgreSQL manual, COPY, Binary Format)."""

    def __init__(self, plan: Plan, columns: Sequence[Column]) -> None:
        self._leaves = leaves_of(plan, columns)

    def chunk(self, chunk: Chunk) -> bytes:
        """The rows of a chunk."""
        data, leaves = chunk.data, self._leaves
        treated = bytearray()
        at = written = 0
        while at < len(data):
            (fields,) = _FIELDS.unpack_from(data, at)
            at += _FIELDS.size
            for number in range(fields):
                (size,) = _SIZE.unpack_from(data, at)
                value = at + _SIZE.size
                after = value + max(size, 0)  # null has the size -1
                if size >= 0 and (leaf := leaves.get(number)) is not None:
                    treated += data[written:at] + _HASH_SIZE + leaf.hashed(data[value:after]).encode()
                    written = after
                at = after
        return bytes(treated + data[written:])


class CopyCsvTreatment:
    """Treats chunks of rows of CSV as COPY writes it, which tells a text that is empty from none."""

    def __init__(self, plan: Plan, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._leaves = leaves_of(plan, columns)

    def chunk(self, chunk: Chunk) -> bytes:
        """The rows of a chunk."""
        import pyarrow as pa

        from connectors.formats.parquet_rows import csv_of, csv_table

        table = csv_table(chunk, self._columns)
        for number, leaf in self._leaves.items():
            values = [None if text is None else leaf.hashed(text.encode()) for text in table.column(number).to_pylist()]
            table = table.set_column(number, table.schema.names[number], pa.array(values, pa.string()))
        return b"".join(csv_of(batch) for batch in table.combine_chunks().to_batches())


def leaves_of(plan: Plan, columns: Sequence[Column]) -> dict[int, Leaf]:
    """What becomes of the columns, by their places.

    Raises:
        TypeError: the source gives one otherwise than as text, or one that is to be left out.
    """
    found = {number: leaf for number, column in enumerate(columns) if (leaf := plan.column(column.name)) is not None}
    for number, leaf in found.items():
        if leaf.key is None or columns[number].type != "text":
            raise TypeError(f"{leaf.name} is read as {columns[number].type}, and only texts can be hashed here")
    return found
