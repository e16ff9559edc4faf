"""Arrow's values as PostgreSQL writes them, and its types by PostgreSQL's names: exact, or said to be unfit.

Importing this takes a fifth of a second and 60 MB, so only what reads or writes Parquet does.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

_NUMBERS = {
    "int8": "smallint",
    "uint8": "smallint",
    "int16": "smallint",
    "uint16": "integer",
    "int32": "integer",
    "uint32": "bigint",
    "int64": "bigint",
    "uint64": "numeric(20,0)",
    "halffloat": "real",
    "float": "real",
    "double": "double precision",
}
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_JSON = msgspec.json.Encoder(decimal_format="number")


class Unfit(str):
    """Instead of a value's text: why PostgreSQL has none for it."""

    __slots__ = ()


class UnknownTypeError(ValueError):
    """Values of a type that no text can be made of."""


def type_of(kind: pa.DataType) -> str | None:
    """The PostgreSQL type that holds all values of an Arrow type; None where there are none (`null`).

    Raises:
        UnknownTypeError: there is no such type.
    """
    kind = _undressed(kind)
    if kinds.is_null(kind):
        return None
    if str(kind) in _NUMBERS:
        return _NUMBERS[str(kind)]
    if kinds.is_decimal(kind):
        # A negative scale counts zeros before the point.
        return f"numeric({kind.precision - min(kind.scale, 0)},{max(kind.scale, 0)})"
    if kinds.is_timestamp(kind):
        return "timestamp without time zone" if kind.tz is None else "timestamp with time zone"
    for is_it, name in (
        (kinds.is_boolean, "boolean"),
        (_is_text, "text"),
        (_is_binary, "bytea"),
        (kinds.is_date, "date"),
        (kinds.is_time, "time without time zone"),
        (kinds.is_duration, "interval"),
        (kinds.is_nested, "jsonb"),
    ):
        if is_it(kind):
            return name
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if isinstance(kind, pa.JsonType):
        return "jsonb"
    raise UnknownTypeError(f"{kind} is no type that is read")


def texts(values: pa.Array) -> list[str | None]:
    """Each value as a text that is valid input of `type_of`, or an `Unfit`; None for null."""
    values = _plain(values)
    kind = values.type
    if _is_text(kind):
        return _characters(values)
    if kinds.is_nested(kind):
        return [_json(value) for value in values]
    if kinds.is_duration(kind):
        return [
            None if number is None else _seconds(number, kind.unit) for number in values.view(pa.int64()).to_pylist()
        ]
    if isinstance(kind, pa.UuidType):
        return [None if value is None else str(UUID(bytes=value)) for value in values.storage.to_pylist()]
    if isinstance(kind, pa.JsonType):
        return _characters(values.storage)
    found: list[str | None] = strings(values).to_pylist()
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        return [Unfit(f"{text}, a year before the first") if text and text[0] == "-" else text for text in found]
    return found


def strings(values: pa.Array) -> pa.Array:
    """The texts of numbers, booleans, times and bytes, as an array. Years before the first begin with a minus."""
    kind = values.type
    if _is_binary(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in values.to_pylist()], pa.string())
    if kinds.is_timestamp(kind):
        # Without its zone the number is printed as it is, in UTC, and no table of zones is needed.
        printed = _without_zeros(pc.cast(values.view(pa.timestamp(kind.unit)), pa.string()))
        return printed if kind.tz is None else pc.binary_join_element_wise(printed, "+00", "")
    if kinds.is_time(kind):
        return _without_zeros(pc.cast(values, pa.string()))
    if kinds.is_floating(kind):
        printed = pc.cast(pc.cast(values, pa.float32()) if kinds.is_float16(kind) else values, pa.string())
        return pc.replace_substring(pc.replace_substring(printed, "nan", "NaN"), "inf", "Infinity")
    return pc.cast(values, pa.string())


def _without_zeros(times: pa.Array) -> pa.Array:
    """Without the end of a fraction that says nothing."""
    return pc.replace_substring_regex(pc.replace_substring_regex(times, r"(\.[0-9]*[1-9])0+$", r"\1"), r"\.0+$", "")


def int96_texts(nanoseconds: pa.Array, microseconds: pa.Array) -> list[str | None]:
    """The texts of INT96 timestamps, which span more years than 64 bits have nanoseconds for.

    Args:
        nanoseconds: as read by default: cut to 64 bits, without a word, outside of 1677 to 2262.
        microseconds: the same, read as such: cut to whole ones.
    """
    # What the cut took away above is the same in both, so the difference is what was cut below.
    below = pc.subtract(nanoseconds.view(pa.int64()), pc.multiply(microseconds.view(pa.int64()), 1000)).to_pylist()
    printed = texts(microseconds)
    return [
        text if not finer or text is None or isinstance(text, Unfit) else _with_nanoseconds(text, finer)
        for text, finer in zip(printed, below, strict=True)
    ]


def _with_nanoseconds(text: str, finer: int) -> str:
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction or '000000'}{finer:03}"


def _plain(values: pa.Array) -> pa.Array:
    """Without dictionary, and without an extension that only names another type."""
    if kinds.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values.type, pa.BaseExtensionType) and not isinstance(values.type, pa.UuidType | pa.JsonType):
        values = values.storage
    return values


def _undressed(kind: pa.DataType) -> pa.DataType:
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType | pa.JsonType):
        kind = kind.storage_type
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_binary_view(kind)
        or kinds.is_fixed_size_binary(kind)
    )


def _characters(values: pa.Array) -> list[str | None]:
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        return [None if data is None else _decoded(data) for data in values.cast(pa.large_binary()).to_pylist()]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Unfit(f"no UTF-8 at byte {error.start}")


def _seconds(number: int, unit: str) -> str:
    whole, fraction = divmod(abs(number), _UNITS[unit])
    return f"{'-' if number < 0 else ''}{whole}.{fraction:0{len(str(_UNITS[unit])) - 1 or 1}} seconds"


def _json(value: pa.Scalar) -> str | None:
    """A list, struct or map as JSON: a map as an object by its keys, bytes as PostgreSQL prints them."""
    try:
        found = value.as_py(maps_as_pydicts="strict")
        return None if found is None else _JSON.encode(_jsonable(found)).decode()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return Unfit(" ".join(str(error).split()))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value}, which JSON does not have")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return value
