"""Tables of PostgreSQL held against tables of Spark: row by row by their key, column by column, value by value.

A number is equal to the same number with more zeros, an instant to the same instant; texts, nulls, dates and booleans
are equal if they are the same. Spark's tables are read as the Parquet files they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from psycopg import sql

_MOST_EXAMPLES = 5
_TYPES = ("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "date", "timestamp", "timestamptz", "bytea")
_SPARK_HAS = {psycopg.adapters.types[name].oid for name in _TYPES}
Row = tuple[Any, ...]


@dataclass(slots=True)
class Comparison:
    """What two tables are to each other."""

    table: str
    rows: int = 0
    """Of PostgreSQL."""
    values: int = 0
    """That were compared."""
    columns: list[str] = field(default_factory=list)
    only_here: list[Row] = field(default_factory=list)
    """Keys that only PostgreSQL has."""
    only_there: list[Row] = field(default_factory=list)
    differing: Counter[str] = field(default_factory=Counter)
    """Rows by column in which they differ."""
    examples: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        return not (self.only_here or self.only_there or self.differing)

    def __str__(self) -> str:
        if self.is_equal:
            return f"{self.table}: {self.rows:,} rows, {self.values:,} values, all equal"
        what = [f"{len(self.only_here):,} only in PostgreSQL"] if self.only_here else []
        what += [f"{len(self.only_there):,} only in Spark"] if self.only_there else []
        what += [f"{count:,} differ in {name}" for name, count in self.differing.most_common()]
        return f"{self.table}: of {self.rows:,} rows {', '.join(what)}; {'; '.join(self.examples)}"


def compare(connection: psycopg.Connection, schema: str, table: str, key: Sequence[str], files: Path) -> Comparison:
    """Compare a table of PostgreSQL with the folder of a table of Spark's.

    Raises:
        ValueError: they have not the same columns, or a key is there twice.
    """
    found = Comparison(f"{schema}.{table}")
    found.columns, rows = postgres_rows(connection, schema, table)
    here = _by_key(found, key, rows)
    there = _by_key(found, key, parquet_rows(files, found.columns))
    found.rows = len(here)
    found.values = len(here) * len(found.columns)
    found.only_here = [each for each in here if each not in there]
    found.only_there = [each for each in there if each not in here]
    for side, keys in (("PostgreSQL", found.only_here), ("Spark", found.only_there)):
        found.examples += [f"{each} only in {side}" for each in keys[:_MOST_EXAMPLES]]
    for each, row in here.items():
        other = there.get(each)
        if other is None or other == row:
            continue
        for name, mine, theirs in zip(found.columns, row, other, strict=True):
            if mine != theirs:
                found.differing[name] += 1
                if found.differing[name] <= _MOST_EXAMPLES:
                    found.examples.append(f"{name} of {each} is {mine!r} in PostgreSQL, {theirs!r} in Spark")
    return found


def postgres_rows(connection: psycopg.Connection, schema: str, table: str) -> tuple[list[str], Iterator[Row]]:
    """The names of a table's columns, and its rows, with texts for what Spark has no type for."""
    name = sql.Identifier(schema, table)
    columns = connection.execute(sql.SQL("select * from {} limit 0").format(name)).description or ()
    values = sql.SQL(", ").join(
        sql.SQL("{}" if column.type_code in _SPARK_HAS else "{}::text").format(sql.Identifier(column.name))
        for column in columns
    )
    cursor = connection.execute(sql.SQL("select {} from {}").format(values, name))
    return [column.name for column in columns], (tuple(map(_comparable, row)) for row in cursor)


def _by_key(found: Comparison, key: Sequence[str], rows: Iterator[Row]) -> Mapping[Row, Row]:
    places = [found.columns.index(name) for name in key]
    by_key: dict[Row, Row] = {}
    for row in rows:
        of_row = tuple(row[place] for place in places)
        if of_row in by_key:
            raise ValueError(f"{found.table} has the key {of_row} twice.")
        by_key[of_row] = row
    return by_key


def parquet_rows(files: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a folder of Parquet files, with the columns in this order.

    Raises:
        ValueError: they have other columns.
    """
    for file in sorted(files.glob("*.parquet")):
        parquet = pq.ParquetFile(file)
        if sorted(names := parquet.schema_arrow.names) != sorted(columns):
            raise ValueError(f"{files} has the columns {', '.join(names)}, PostgreSQL {', '.join(columns)}.")
        for batch in parquet.iter_batches():
            values = [batch.column(name).to_pylist() for name in columns]
            yield from (tuple(map(_comparable, row)) for row in zip(*values, strict=True))


def _comparable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return value
