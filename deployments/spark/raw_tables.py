"""Raw as tables of Spark, from the lake alone: the same rows as in PostgreSQL, their `_load_id`, `_loaded_at` and
`_deleted_at` included.

The lake (`connectors.lake`) lists a stream's loads in the order in which raw took them. What PostgreSQL did load by
load, Spark does key by key: all that the loads say of one key is put in order and folded into one row, by the same
rules as `connectors.destinations.warehouse.merge` and `key_comparison`. So no load waits for another, and a key costs
what its own history costs.

Nothing here is imported from the rest of Headwater: it runs where Spark is, on any store that Spark reads.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

_LOAD, _PLACE, _DELETED, _FILE = "__load", "__place", "__deleted", "__file"
"""Named so that no column of a source's is."""
OWN_COLUMNS = ("_load_id", "_loaded_at", "_deleted_at")
_SPARK_TYPES = {
    "boolean": "boolean",
    "smallint": "smallint",
    "integer": "int",
    "bigint": "bigint",
    "real": "float",
    "double precision": "double",
    "date": "date",
    "bytea": "binary",
    "timestamp without time zone": "timestamp_ntz",
    "timestamp with time zone": "timestamp",
}
"""All others are texts, as in the lake's files."""
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_INSTANT = re.compile(r"timestamp\(\d\) (with|without) time zone")
_UNBOUNDED = "decimal(38,18)"
_FITS_UNBOUNDED = r"^[-+]?\d{1,20}(\.\d{1,18}0*)?$"


class LakeError(Exception):
    """The lake cannot be read as raw; the message says of which stream and why."""


@dataclass(frozen=True, slots=True)
class Lake:
    """Where the lake is, and the landing that it refers to: URLs that Spark can read."""

    url: str
    landing_url: str

    def path(self, file: dict[str, Any]) -> str:
        return f"{(self.landing_url if file['in_landing'] else self.url).rstrip('/')}/{file['key']}"


def streams(spark: SparkSession, lake: Lake) -> list[dict[str, Any]]:
    """What the lake has: the contents of every `loads.json`."""
    found = spark.read.text(f"{lake.url.rstrip('/')}/*/*/loads.json", wholetext=True).collect()
    return sorted((json.loads(row.value) for row in found), key=lambda each: (each["source"], each["stream"]))


def raw_table(spark: SparkSession, lake: Lake, stream: dict[str, Any]) -> DataFrame:
    """A stream's raw table, with its columns in raw's order.

    Raises:
        LakeError: the stream's loads are of a kind that this does not repeat.
    """
    if stream["format_version"] != 1:
        raise LakeError(f"{_name(stream)} is listed in format {stream['format_version']}; this reads format 1.")
    return _Raw(spark, lake, stream).table()


def _name(stream: dict[str, Any]) -> str:
    return f"{stream['source']}.{stream['stream']}"


def spark_type(postgres_type: str) -> str:
    """The type that holds a column of PostgreSQL's type."""
    if (bounds := _NUMERIC.fullmatch(postgres_type)) is not None and int(bounds[1]) <= 38:
        return f"decimal({bounds[1]},{bounds[2]})"
    if (instant := _INSTANT.fullmatch(postgres_type)) is not None:
        return _SPARK_TYPES[f"timestamp {instant[1]} time zone"]
    return _UNBOUNDED if postgres_type == "numeric" else _SPARK_TYPES.get(postgres_type, "string")


class _Raw:
    """One stream. Loads are numbered from 1, in their order; a row of a load by its place in it."""

    def __init__(self, spark: SparkSession, lake: Lake, stream: dict[str, Any]) -> None:
        self._spark = spark
        self._lake = lake
        self._stream = stream
        self._types = {column["name"]: column["type"] for column in stream["columns"]}
        self._key: list[str] = stream["key"]
        self._data = [name for name in self._types if name not in self._key]
        self._loads = dict(enumerate(stream["loads"], 1))
        self._rows = [number for number, load in self._loads.items() if load["kind"] == "rows"]
        self._keys = [number for number, load in self._loads.items() if load["kind"] == "keys"]

    def table(self) -> DataFrame:
        kept = self._events() if not self._key else self._folded()
        loads = self._spark.createDataFrame(
            [(number, load["load_id"], load["loaded_at"]) for number, load in self._loads.items()],
            f"{_LOAD} int, _load_id string, _loaded_at string",
        ).withColumn("_loaded_at", f.col("_loaded_at").cast("timestamp"))
        deleted = loads.select(f.col(_LOAD).alias(_DELETED), f.col("_loaded_at").alias("_deleted_at"))
        return (
            kept.join(f.broadcast(loads), _LOAD)
            .join(f.broadcast(deleted), _DELETED, "left")
            .select(*(self._as_raw(name) for name in self._types), *OWN_COLUMNS)
        )

    # The rows of the loads

    def _versions(self, numbers: Iterable[int], names: Sequence[str]) -> DataFrame:
        """All accepted rows of some loads, with the load's number and the row's place, and columns as compared."""
        groups = defaultdict(list)
        for number in numbers:
            load = self._loads[number]
            schema = tuple((column["name"], column["type"]) for column in load["schema"])
            for file in load["files"]:
                # Files of one schema are read together: there may be thousands of loads. A file in the landing may have
                # texts where others have numbers, and is read by itself.
                without = frozenset(load["left_out_columns"])
                groups[schema, without, file["key"] if file["in_landing"] else None].append((number, file))
        if not groups:
            kinds = ", ".join(f"`{name}` {self._compared_type(name)}" for name in names)
            return self._spark.createDataFrame([], f"{_LOAD} int, {_PLACE} bigint, {kinds}")
        return reduce(DataFrame.unionByName, (self._read(files, names) for files in groups.values()))

    def _read(self, files: list[tuple[int, dict[str, Any]]], names: Sequence[str]) -> DataFrame:
        firsts: dict[str, tuple[int, int]] = {}
        for number, file in files:
            before = [each["rows"] for each in self._loads[number]["files"] if each["key"] < file["key"]]
            firsts[_end_of(file["key"])] = (number, sum(before))
        places = self._spark.createDataFrame(
            [(end, number, first) for end, (number, first) in firsts.items()],
            f"{_FILE} string, {_LOAD} int, __first bigint",
        )
        read = self._spark.read.option("recursiveFileLookup", "true").parquet(
            *(self._lake.path(file) for _, file in files)
        )
        has = set(read.columns)
        found = (
            read.withColumn(_FILE, f.regexp_extract("_metadata.file_path", r"([^/]+/[^/]+)$", 1))
            .withColumn(_FILE, f.regexp_replace(_FILE, "%3D", "="))
            .withColumn(_PLACE, f.col("_metadata.row_index") + 1)
            .join(f.broadcast(places), _FILE)
            .withColumn(_PLACE, f.col("__first") + f.col(_PLACE))
        )
        left_out = [
            (number, place)
            for number in {number for number, _ in files}
            for place in self._loads[number]["left_out_rows"]
        ]
        if left_out:
            rejected = self._spark.createDataFrame(left_out, f"{_LOAD} int, {_PLACE} bigint")
            found = found.join(f.broadcast(rejected), [_LOAD, _PLACE], "left_anti")
        has -= {name for number, _ in files for name in self._loads[number]["left_out_columns"]}
        return found.select(
            _LOAD,
            _PLACE,
            *(self._compared(name) if name in has else self._nothing(name) for name in names),
        )

    def _compared_type(self, name: str) -> str:
        kind = spark_type(self._types[name])
        # 1.1 and 1.10 are two texts, as they are two values of a numeric without bounds.
        is_ordered = name in self._key or name == self._stream["cursor"]
        return "string" if kind == _UNBOUNDED and not is_ordered else kind

    def _compared(self, name: str) -> Column:
        return f.col(f"`{name}`").cast(self._compared_type(name)).alias(name)

    def _nothing(self, name: str) -> Column:
        return f.lit(None).cast(self._compared_type(name)).alias(name)

    def _as_raw(self, name: str) -> Column:
        kind = spark_type(self._types[name])
        column = f.col(f"`{name}`")
        if kind == self._compared_type(name):
            return column
        message = f"{_name(self._stream)}: a value of {name} does not fit into {_UNBOUNDED}; give the column a type."
        return (
            f.when(column.isNull() | column.rlike(_FITS_UNBOUNDED), column.cast(kind))
            .otherwise(f.raise_error(f.lit(message)).cast(kind))
            .alias(name)
        )

    # Events without a key: a read of a window takes the place of all rows of the window

    def _events(self) -> DataFrame:
        if self._stream["write"] == "replace":
            raise LakeError(f"{_name(self._stream)} is `replace` without a key, which this does not repeat.")
        rows = self._versions(self._rows, [*self._types])
        at = self._stream["event_time"]
        for number in self._rows:
            load = self._loads[number]
            if load["window_start"] is not None:
                happened = f.col(f"`{at}`")
                within = (happened >= _instant(load["window_start"])) & (happened < _instant(load["window_end"]))
                rows = rows.where((f.col(_LOAD) >= number) | f.coalesce(~within, f.lit(True)))
        return rows.withColumn(_DELETED, f.lit(None).cast("int"))

    # Rows with a key

    def _folded(self) -> DataFrame:
        cursor = self._stream["cursor"]
        newest = f.struct(*([f"`{cursor}`"] if cursor else []), _PLACE)
        # Of a stream that is nothing but keys, rows have something in them too.
        row = f.struct(*(f.col(f"`{name}`") for name in self._data), f.lit(True).alias("_is_there"))
        keys = [f.col(f"`{name}`") for name in self._key]
        said = (
            self._versions(self._rows, [*self._types])
            .groupBy(*keys, f.col(_LOAD).alias("__of"))
            .agg(f.max_by(row, newest).alias("__row"))  # of versions in one load the newest counts, of equals the last
        )
        if self._keys:
            present = self._versions(self._keys, self._key).select(*keys, f.col(_LOAD).alias("__of")).distinct()
            said = said.unionByName(present.withColumn("__row", f.lit(None).cast(said.schema["__row"].dataType)))
        fields = said.schema["__row"].dataType.fields
        row_type = ", ".join(f"`{field.name}`: {field.dataType.simpleString()}" for field in fields)
        event = f.struct(f.col("__of").alias("load"), f.col("__row").alias("row"))
        kept = (
            said.groupBy(*keys)
            .agg(f.array_sort(f.collect_list(event)).alias("__events"))
            .withColumn("__events", f.expr(self._with_absences()))
            .withColumn("__state", f.expr(self._fold(f"struct<{row_type}>")))
            .where("__state is not null")
        )
        if self._stream["write"] == "replace":
            kept = kept.where(f.col("__state.seen") == max(self._rows, default=0))
        return kept.select(
            *keys,
            *(f.col(f"__state.row.`{name}`") for name in self._data),
            f.col("__state.load").alias(_LOAD),
            f.col("__state.deleted").alias(_DELETED),
        )

    def _with_absences(self) -> str:
        """Events of one key, and for each read of all keys that it was not among, one that says so."""
        if not self._keys:
            return "transform(__events, e -> named_struct('load', e.load, 'row', e.row, 'present', true))"
        numbers = ", ".join(map(str, self._keys))
        # Typed like the others: `nullif` of a value with itself is a null of its type.
        return (
            "array_sort(concat("
            "transform(__events, e -> named_struct('load', e.load, 'row', e.row, 'present', true)),"
            f" transform(filter(array({numbers}), n -> not exists(__events, e -> e.load = n)),"
            " n -> named_struct('load', n, 'row', nullif(__events[0].row, __events[0].row), 'present', false))))"
        )

    def _fold(self, row_type: str) -> str:
        """What raw has of a key after one event, from what it had before: the rules of a merge and of a comparison."""
        state = f"struct<row: {row_type}, load: int, deleted: int, seen: int>"
        new = "named_struct('row', e.row, 'load', e.load, 'deleted', cast(null as int), 'seen', e.load)"
        seen = "named_struct('row', s.row, 'load', s.load, 'deleted', s.deleted, 'seen', e.load)"
        back = "named_struct('row', s.row, 'load', e.load, 'deleted', cast(null as int), 'seen', s.seen)"
        gone = "named_struct('row', s.row, 'load', e.load, 'deleted', e.load, 'seen', s.seen)"
        cases = []
        if self._keys:
            of_keys = f"when {_among('e.load', self._keys)}"
            is_gone = f"s.deleted is null and not e.present and s.load <= {self._judged_until()}"
            cases += [
                f"{of_keys} and s is null then s",
                f"{of_keys} and s.deleted is not null and e.present then {back}",
                f"{of_keys} and {is_gone} then {gone}",
                f"{of_keys} then s",
            ]
        cases.append(f"when s is null then {new}")
        if self._stream["write"] == "replace":
            # A load that did not have the key has deleted the row.
            cases.append(f"when s.seen < e.load - 1 then {new}")
        cases.append(f"when (not (s.row <=> e.row) or s.deleted is not null) and {self._may_replace()} then {new}")
        return f"aggregate(__events, cast(null as {state}), (s, e) -> case {' '.join(cases)} else {seen} end)"

    def _may_replace(self) -> str:
        refreshing = _among("e.load", [number for number in self._rows if self._loads[number]["full_refresh"]])
        if self._stream["write"] == "append":
            return refreshing
        cursor = self._stream["cursor"]
        if not cursor or cursor in self._key:
            return "true"
        mine, other = f"s.row.`{cursor}`", f"e.row.`{cursor}`"
        return f"({refreshing} or coalesce({other} >= {mine}, {mine} is null))"

    def _judged_until(self) -> str:
        """The last load whose rows a read of all keys can judge: those of later ones it may have missed."""
        cases = []
        for number in self._keys:
            began = datetime.fromisoformat(self._loads[number]["started_at"])
            before = [each for each, load in self._loads.items() if datetime.fromisoformat(load["loaded_at"]) <= began]
            cases.append(f"when {number} then {max(before, default=0)}")
        return f"case e.load {' '.join(cases)} end"


def _among(expression: str, numbers: Sequence[int]) -> str:
    return f"{expression} in ({', '.join(map(str, numbers))})" if numbers else "false"


def _instant(text: str) -> Column:
    return f.lit(text).cast("timestamp")


def _end_of(key: str) -> str:
    """The last two parts of a file's key, which no other file of the stream has."""
    return "/".join(key.split("/")[-2:])
