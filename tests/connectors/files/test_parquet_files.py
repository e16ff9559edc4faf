"""Parquet files in raw: every type exactly; what PostgreSQL has no value for in quarantine, never something else."""

from __future__ import annotations

import io
import json
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import MalformedResponseError
from connectors.files import ParquetStream
from connectors.formats.arrow_texts import UnknownTypeError, texts, type_of
from connectors.ingest import Destination, ingest
from tests.conftest import Warehouse
from tests.connectors.examples import met

TABLE = "raw_met.t"


def written(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def load(folder: Path, content: bytes, destination: Destination, **definition: Any) -> tuple[int, int]:
    """Rows inserted, and quarantined."""
    folder.mkdir(exist_ok=True)
    (folder / "f.parquet").write_bytes(content)
    stream = ParquetStream(name="t", primary_key=("id",), pattern="*.parquet", reject_limit=1, **definition)
    source, where = met(stream, folder.as_uri())
    report = ingest(source, stream, where, destination)[-1]
    return report.inserted, report.quarantined


US = pa.timestamp("us")
FITTING: list[tuple[pa.DataType, str, list[Any], list[str]]] = [
    (pa.bool_(), "boolean", [True, False], ["true", "false"]),
    (pa.int8(), "smallint", [-128, 127], ["-128", "127"]),
    (pa.uint8(), "smallint", [255], ["255"]),
    (pa.uint16(), "integer", [65535], ["65535"]),
    (pa.uint32(), "bigint", [2**32 - 1], ["4294967295"]),
    (pa.int64(), "bigint", [-(2**63), 2**63 - 1], ["-9223372036854775808", "9223372036854775807"]),
    (pa.uint64(), "numeric(20,0)", [2**64 - 1], ["18446744073709551615"]),
    (
        pa.float64(),
        "double precision",
        [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, float("nan"), float("-inf")],
        ["0.30000000000000004", "5e-324", "1.7976931348623157e+308", "-0", "NaN", "-Infinity"],
    ),
    (pa.float32(), "real", [0.10000000149011612, float("nan")], ["0.1", "NaN"]),
    (pa.float16(), "real", [1.5], ["1.5"]),
    (pa.decimal128(38, 10), "numeric(38,10)", [Decimal("1.1"), Decimal("-1e-10")], ["1.1000000000", "-0.0000000001"]),
    (pa.decimal256(76, 2), "numeric(76,2)", [Decimal("9" * 74 + ".99")], ["9" * 74 + ".99"]),
    (pa.date32(), "date", [date(1, 1, 1), date(9999, 12, 31)], ["0001-01-01", "9999-12-31"]),
    (pa.time32("ms"), "time without time zone", [time(23, 59, 59, 999000)], ["23:59:59.999"]),
    (pa.time64("us"), "time without time zone", [time(0), time(1, 2, 3, 4)], ["00:00:00", "01:02:03.000004"]),
    (
        US,
        "timestamp without time zone",
        [datetime(1, 1, 1), datetime(2024, 2, 29, 12, 0, 0, 120000)],  # noqa: DTZ001 - none is meant
        ["0001-01-01 00:00:00", "2024-02-29 12:00:00.12"],
    ),
    (
        pa.timestamp("ms", tz="America/New_York"),
        "timestamp with time zone",
        [datetime(2013, 11, 3, 5, 30, tzinfo=UTC)],
        ["2013-11-03 05:30:00+00"],
    ),
    (pa.timestamp("ns", tz="+05:30"), "timestamp with time zone", [1_000], ["1970-01-01 00:00:00.000001+00"]),
    (
        pa.duration("us"),
        "interval",
        [timedelta(days=2, microseconds=1), timedelta(-1)],
        ["48:00:00.000001", "-24:00:00"],
    ),
    (
        pa.string(),
        "text",
        ["", "\\N", "a\tb\r\nc\\", "\N{GRINNING FACE}"],
        ["", "\\N", "a\tb\r\nc\\", "\N{GRINNING FACE}"],
    ),
    (pa.large_string(), "text", ["x"], ["x"]),
    (pa.string_view(), "text", ["x"], ["x"]),
    (pa.binary(), "bytea", [b"", b"\x00\xff\\"], ["\\x", "\\x00ff5c"]),
    (pa.binary(2), "bytea", [b"ab"], ["\\x6162"]),
    (pa.uuid(), "uuid", [uuid.UUID(int=7).bytes], ["00000000-0000-0000-0000-000000000007"]),
    (pa.json_(), "jsonb", ['{"b": 1.50, "a": [null]}'], ['{"a": [null], "b": 1.50}']),
    (pa.dictionary(pa.int32(), pa.string()), "text", ["x", "y", "x"], ["x", "y", "x"]),
    (pa.list_(pa.int64()), "jsonb", [[1, None], []], ["[1, null]", "[]"]),
    (
        pa.struct({"d": pa.decimal128(20, 3), "b": pa.binary(), "t": pa.timestamp("us", tz="UTC")}),
        "jsonb",
        [{"d": Decimal("12345678901234567.100"), "b": b"\x01", "t": datetime(2024, 1, 1, tzinfo=UTC)}],
        ['{"b": "\\\\x01", "d": 12345678901234567.100, "t": "2024-01-01T00:00:00Z"}'],
    ),
    (pa.map_(pa.string(), pa.float64()), "jsonb", [[("x", 0.1)], []], ['{"x": 0.1}', "{}"]),
]


def test_every_type_is_loaded_exactly(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    rows = max(len(values) for _, _, values, _ in FITTING) + 1
    columns = {"id": pa.array(range(rows))}
    for number, (kind, _, values, _) in enumerate(FITTING):
        padded = values + [None] * (rows - len(values))
        storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        array = pa.array(padded, pa.int64()).view(kind) if isinstance(values[0], int) and "ns" in str(kind) else None
        array = pa.array(padded, storage) if array is None else array
        columns[f"c{number}"] = (
            pa.ExtensionArray.from_storage(kind, array) if isinstance(kind, pa.BaseExtensionType) else array
        )
    loaded = load(tmp_path / "files", written(pa.table(columns)), destination)
    assert loaded == (rows, 0), warehouse.query("select reason from ops.quarantine")
    types = dict(
        warehouse.query(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass", [TABLE]
        )
    )
    for number, (kind, postgres, _, expected) in enumerate(FITTING):
        found = [text for (text,) in warehouse.query(f"select c{number}::text from {TABLE} order by id")]
        assert types[f"c{number}"] == postgres, kind
        assert found == expected + [None] * (rows - len(expected)), kind


UNFIT: list[tuple[pa.Array, str]] = [
    (pa.array([1_001], pa.timestamp("ns")), "more digits than timestamp without time zone holds"),
    (pa.array([1_001], pa.timestamp("ns", tz="UTC")), "more digits than timestamp with time zone holds"),
    (pa.array([1], pa.time64("ns")), "more digits than time without time zone holds"),
    (pa.array([1], pa.duration("ns")), "more digits than interval holds"),
    (pa.array([-(10**17)], US), "-1199-02-15 14:13:20, a year before the first"),
    (pa.array([-800_000], pa.date32()), "-0221-09-04, a year before the first"),
    (pa.array([2**62 // 1000], pa.timestamp("ms")), ""),
    (pa.array(["a\0b"]), "a NUL character"),
    (pa.array([b"\xff"]).view(pa.string()), "no UTF-8 at byte 0"),
    (pa.array([[float("nan")]]), "nan, which JSON does not have"),
    (pa.array([["a\0b"]]), "unsupported Unicode escape sequence"),
    (pa.array([[("x", 1), ("x", 2)]], pa.map_(pa.string(), pa.int64())), ""),
    (pa.array([[1_001]], pa.list_(pa.timestamp("ns"))), ""),
]


@pytest.mark.parametrize("number", range(len(UNFIT)))
def test_what_postgresql_has_no_value_for_is_quarantined(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, number: int
) -> None:
    values, why = UNFIT[number]
    table = pa.table({"id": [1, 2], "v": pa.concat_arrays([values, pa.nulls(1, values.type)])})
    found = load(tmp_path / "files", written(table), destination)
    assert found == (1, 1), warehouse.query("select reason from ops.quarantine")
    [(reason, payload)] = warehouse.query("select reason, payload from ops.quarantine")
    assert why in reason
    assert "column v" in reason
    assert json.loads(payload)["id"] in ("1", 1)


def int96(*values: tuple[int, int]) -> bytes:
    """A file with old timestamps, each as a Julian day and nanoseconds of the day. PyArrow writes those of 64 bits
    alone, so that others are put in place of them."""
    marks = [datetime(2000, 1, 1 + number, tzinfo=UTC) for number in range(len(values))]
    table = pa.table({"id": range(len(values)), "v": pa.array(marks, pa.timestamp("ns"))})
    content = written(
        table, use_deprecated_int96_timestamps=True, compression="none", use_dictionary=False, write_statistics=False
    )
    for number, (day, nanoseconds) in enumerate(values):
        mark = struct.pack("<qi", 0, 2_451_545 + number)
        assert content.count(mark) == 1
        content = content.replace(mark, struct.pack("<qi", nanoseconds, day))
    return content


def test_old_timestamps_are_not_cut_to_64_bits(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    noon = 12 * 3600 * 10**9
    content = int96((2_451_545, 0), (1_721_426, noon + 5000), (5_373_484, 0), (2_451_545, 1), (5_373_484, noon + 7))
    assert load(tmp_path / "files", content, destination) == (3, 2)
    assert [text for (text,) in warehouse.query(f"select v::text from {TABLE} order by id")] == [
        "2000-01-01 00:00:00",
        "0001-01-01 12:00:00.000005",
        "9999-12-31 00:00:00",
    ]
    reasons = [reason for (reason,) in warehouse.query("select reason from ops.quarantine order by row_in_load")]
    assert all("more digits than timestamp without time zone holds" in reason for reason in reasons)


def test_declared_types_count(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    table = pa.table({"id": [1, 2], "v": ["2024-01-01T00:00Z", "soon"]})
    assert load(tmp_path / "files", written(table), destination, columns={"v": "timestamptz"}) == (1, 1)
    assert warehouse.query(f"select v::text from {TABLE}") == [("2024-01-01 00:00:00+00",)]


def test_what_is_no_parquet_is_refused(tmp_path: Path, destination: Destination) -> None:
    good = written(pa.table({"id": [1]}))
    for content in (b"", b"id\n1\n", good[:-1], good[:40] + good, b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(MalformedResponseError, match="f.parquet is no Parquet file, or a damaged one"):
            load(tmp_path / "files", content, destination)
    packed = written(pa.table({"id": [1] * 10}), compression="none", write_page_checksum=True, use_dictionary=False)
    place = packed.index(b"\x01" + bytes(7) + b"\x01" + bytes(7))
    with pytest.raises(MalformedResponseError, match="could not verify page integrity|CRC"):
        load(tmp_path / "files", packed[:place] + b"\x02" + packed[place + 1 :], destination)


def test_a_parquet_file_that_becomes_too_large_is_refused(tmp_path: Path, destination: Destination) -> None:
    table = pa.table({"id": range(80_000), "v": ["x" * 1000] * 80_000})
    content = written(table, use_dictionary=False, compression="zstd")
    with pytest.raises(MalformedResponseError, match="becomes more than 2 times as large as it is"):
        load(tmp_path / "files", content, destination, max_expansion=2)


def test_a_type_that_no_text_can_be_made_of_is_named() -> None:
    with pytest.raises(UnknownTypeError, match="month_day_nano_interval is no type that is read"):
        type_of(pa.month_day_nano_interval())
    assert type_of(pa.null()) is None
    assert texts(pa.nulls(2)) == [None, None]


@given(st.lists(st.floats() | st.none(), max_size=5), st.sampled_from(["float64", "float32"]))
def test_floats_are_printed_so_that_they_come_back(values: list[float | None], kind: str) -> None:
    array = pa.array(values, pa.float64()).cast(getattr(pa, kind)(), safe=False)
    again = pa.array([None if text is None else float(text) for text in texts(array)], pa.float64())
    assert again.cast(array.type, safe=False).to_pylist().__repr__() == array.to_pylist().__repr__()


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=4), st.sampled_from(["s", "ms", "us", "ns"]))
def test_spans_are_printed_exactly(values: list[int | None], unit: str) -> None:
    found = texts(pa.array(values, pa.int64()).view(pa.duration(unit)))
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    assert [None if text is None else Decimal(text.removesuffix(" seconds")) * scale for text in found] == values
