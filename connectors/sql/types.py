"""Columns of a database behind SQLAlchemy: the PostgreSQL type that each gets, and how its values travel, exactly.

What a driver would round, cut or refuse is asked for as text: MySQL's floats lose digits in its text protocol, and its
times beyond a day and its dates like 0000-00-00 have no twin in Python. A value that is not of its column's type
(SQLite allows that) travels as an object that says what it is, `{"text": …}` or `{"bytes": "\\x…"}`, and goes to
quarantine.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SAWarning

Convert = Callable[[Any], Any]
"""From what the driver gives to what `msgspec` writes."""

MYSQL = ("mysql", "mariadb")
TIMESTAMP, TIMESTAMPTZ = "timestamp without time zone", "timestamp with time zone"
_ALIASES = {
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMPTZ,
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "decimal": "numeric",
    "bool": "boolean",
}
_SIZE = re.compile(r"\s*\([^)]*\)")
INTEGERS = ("smallint", "integer", "bigint")
_NUMBERS = (*INTEGERS, "numeric", "real", "double precision")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_SPATIAL = {
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
    *("geometrycollection", "geomcollection"),
}


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """A column as it is read."""

    name: str
    type: str
    """PostgreSQL's, as `format_type` prints it, for what the source says the column is."""
    kind: str
    """The type that its values are meant to have in raw, without a size: the definition's, or else the source's."""
    selected: sa.ColumnElement[Any]
    convert: Convert | None = None
    """None where the driver's values can be written as they are."""
    is_single: bool = False
    """Whether it holds floating-point numbers of four bytes."""
    has_zone: bool = False
    """Whether instants that it is compared with need a time zone; others are in UTC."""
    times_are_texts: bool = False
    """Whether the database has no type of its own for times (SQLite)."""

    @property
    def column(self) -> sa.ColumnClause[Any]:
        """The column itself, for conditions."""
        return sa.column(self.name)


def base_type(name: str) -> str:
    """A type's one name, without its size: `timestamptz(3)` is `timestamp with time zone`."""
    plain = " ".join(_SIZE.sub("", name.lower()).split())
    return _ALIASES.get(plain, plain)


def read_columns(
    connection: Connection, table: str, schema: str | None, declared: Mapping[str, str]
) -> list[SqlColumn]:
    """The columns of a table or view, in order.

    Args:
        declared: the types that the stream's definition gives, by column.

    Raises:
        sqlalchemy.exc.NoSuchTableError: there is no such table.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # types unknown to SQLAlchemy: they are dealt with here
        reflected = sa.inspect(connection).get_columns(table, schema)
    types = {column["name"]: column["type"] for column in reflected}
    match connection.dialect.name:
        case "mysql" | "mariadb":
            native = _native_types(connection, _MYSQL_NATIVE, table, schema)
            return [_mysql(name, kind, native[name], declared.get(name)) for name, kind in types.items()]
        case "sqlite":
            native = _native_types(connection, _SQLITE_NATIVE, table, schema)
            return [_sqlite(name, native[name], declared.get(name)) for name in types]
        case "postgresql":
            return [_postgresql(name, kind, declared.get(name)) for name, kind in types.items()]
    return [_other(name, kind, declared.get(name)) for name, kind in types.items()]


_SQLITE_NATIVE = "select name, type from pragma_table_xinfo(:table, :schema)"
_MYSQL_NATIVE = """
select column_name, data_type from information_schema.columns
where table_name = :table and table_schema = coalesce(:schema, database())
"""


def _native_types(connection: Connection, statement: str, table: str, schema: str | None) -> dict[str, str]:
    """The database's own words for the types: SQLAlchemy does not know all of MySQL's, and in SQLite guesses."""
    rows = connection.execute(sa.text(statement), {"table": table, "schema": schema})
    return {name: str(kind).lower() for name, kind in rows}


def _column(
    name: str,
    kind: str,
    declared: str | None,
    *,
    selected: sa.ColumnElement[Any] | None = None,
    convert: Convert | None = None,
    is_single: bool = False,
    has_zone: bool = False,
) -> SqlColumn:
    chosen = sa.column(name) if selected is None else selected.label(name)
    return SqlColumn(name, kind, base_type(declared or kind), chosen, convert, is_single=is_single, has_zone=has_zone)


def _by_value(
    name: str, kind: str, declared: str | None, *, selected: sa.ColumnElement[Any] | None = None, has_zone: bool = False
) -> SqlColumn:
    """A column whose values are looked at one by one: the driver gives them as Python has them."""
    wanted = base_type(declared or kind)
    convert = partial(travelling, is_bytes=wanted == "bytea", is_boolean=wanted == "boolean")
    return _column(name, kind, declared, selected=selected, convert=convert, has_zone=has_zone)


def _other(name: str, reflected: Any, declared: str | None) -> SqlColumn:
    """A column of a database that is none of those below."""
    kind = _generic(reflected)
    return _by_value(name, kind, declared, has_zone=kind == TIMESTAMPTZ)


def _generic(reflected: Any) -> str:
    """By SQLAlchemy's generic types; what is none of them is text."""
    match reflected:
        case sa.Boolean():
            return "boolean"
        case sa.SmallInteger():
            return "smallint"
        case sa.BigInteger():
            return "bigint"
        case sa.Integer():
            return "integer"
        case sa.Float():
            return "double precision"
        case sa.Numeric():
            return _numeric(reflected)
        case sa.LargeBinary() | sa.BINARY() | sa.VARBINARY():
            return "bytea"
        case sa.DateTime():
            return TIMESTAMPTZ if reflected.timezone else TIMESTAMP
        case sa.Date():
            return "date"
        case sa.Time():
            return "time with time zone" if reflected.timezone else "time without time zone"
        case sa.Interval():
            return "interval"
        case sa.JSON():
            return "jsonb"
        case sa.Uuid():
            return "uuid"
    return "text"


def _numeric(reflected: Any) -> str:
    return f"numeric({reflected.precision},{reflected.scale or 0})" if reflected.precision else "numeric"


# PostgreSQL, as a database among others


def _postgresql(name: str, reflected: Any, declared: str | None) -> SqlColumn:
    """All but texts, integers and booleans comes as PostgreSQL prints it: Python has no infinite date, no NaN of
    numeric, and no interval of months; and the padding of `character` is no part of the value."""
    kind = _generic(reflected)
    if isinstance(reflected, sa.String | sa.Integer | sa.Boolean) and not isinstance(reflected, sa.CHAR):
        return _by_value(name, kind, declared)
    is_single = isinstance(reflected, sa.REAL)
    if is_single:
        kind = "real"
    elif isinstance(reflected, postgresql.INTERVAL):
        kind = "interval"
    return _column(
        name,
        kind,
        declared,
        selected=sa.cast(sa.column(name), sa.Text),
        convert=_number_of_text if base_type(kind) in _NUMBERS else None,
        is_single=is_single,
        has_zone=kind == TIMESTAMPTZ,
    )


# SQLite: a column's type is only a preference (https://www.sqlite.org/datatype3.html)

_SQLITE_TYPES = {
    "boolean": "boolean",
    "bool": "boolean",
    "date": "date",
    "datetime": TIMESTAMP,
    "timestamp": TIMESTAMP,
    "time": "time without time zone",
    "json": "jsonb",
    **dict.fromkeys(("numeric", "decimal", "dec", "number"), "numeric"),
}
_SQLITE_AFFINITIES = {
    "int": "bigint",
    "char": "text",
    "clob": "text",
    "text": "text",
    "blob": "bytea",
    **dict.fromkeys(("real", "floa", "doub"), "double precision"),
}
"""By a part of the declared type, in the order in which SQLite looks for them."""
_DAY, _CLOCK = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d(\.\d+)?)?"
_SQLITE_TIMES = {
    "date": re.compile(_DAY),
    TIMESTAMP: re.compile(f"{_DAY}([ T]{_CLOCK}Z?)?"),
    "time without time zone": re.compile(_CLOCK),
}
"""How SQLite's own functions write times. PostgreSQL would make a time of much else, such as 01/02/2024 or `epoch`."""


def _sqlite(name: str, native: str, declared: str | None) -> SqlColumn:
    """By the declared type; a size is no promise there, so it is left out. A column without a type is text."""
    kind = _SQLITE_TYPES.get(base_type(native)) or _SQLITE_TYPES.get(_SIZE.sub("", native).strip())
    if kind is None:
        kind = next((kind for part, kind in _SQLITE_AFFINITIES.items() if part in native), "text")
    column = replace(_by_value(name, kind, declared), times_are_texts=True)
    if declared is None and (pattern := _SQLITE_TIMES.get(kind)) is not None:
        return replace(column, convert=partial(_time_as_written, pattern=pattern))
    return column


# MySQL and MariaDB

_MYSQL_INTEGERS = {
    "tinyint": ("smallint", "smallint"),
    "smallint": ("smallint", "integer"),
    "mediumint": ("integer", "integer"),
    "int": ("integer", "bigint"),
    "integer": ("integer", "bigint"),
    "bigint": ("bigint", "numeric(20,0)"),
}
"""Signed, unsigned."""


def _mysql(name: str, reflected: Any, native: str, declared: str | None) -> SqlColumn:
    column: sa.ColumnClause[Any] = sa.column(name)
    as_text = sa.cast(column, sa.CHAR)
    wanted = base_type(declared) if declared else ""
    if native in _MYSQL_INTEGERS:
        kind = _MYSQL_INTEGERS[native][bool(getattr(reflected, "unsigned", False))]
        return (_by_value if wanted == "boolean" else _column)(name, kind, declared)
    match native:
        case "year":
            return _column(name, "smallint", declared)
        case "decimal":
            return _column(name, _numeric(reflected), declared)
        case "float" | "double":
            # As a column, a float has six digits, whatever it holds; as the result of a calculation, all that it has.
            exact = column * sa.literal_column("1e0")
            if native == "double":
                return _column(name, "double precision", declared, selected=exact)
            return _column(name, "real", declared, selected=exact, convert=_digits_of_single, is_single=True)
        case "bit":
            width = reflected.length or 1
            return _column(name, f"bit({width})", declared, convert=partial(_bits, width=width, wanted=wanted))
        case "date":
            return _column(name, "date", declared, selected=as_text)
        case "datetime":
            return _column(name, TIMESTAMP, declared, selected=as_text)
        case "timestamp":  # an instant, printed in the session's time zone, which is UTC
            return _column(name, TIMESTAMPTZ, declared, selected=as_text, convert=_in_utc)
        case "time":  # up to 838 hours, of either sign
            return _column(name, "interval", declared, selected=as_text)
        case "json":
            return _column(name, "jsonb", declared)
        case "uuid":
            return _column(name, "uuid", declared)
        case "enum" | "set":
            return _column(name, "text", declared)
    if native.endswith(("char", "text")):
        return _column(name, "text", declared)
    if native.endswith(("blob", "binary")) or native in _SPATIAL:
        return _by_value(name, "bytea", declared)
    return _by_value(name, "text", declared, selected=as_text)


# Values


def travelling(value: Any, *, is_bytes: bool = False, is_boolean: bool = False) -> Any:
    """A driver's value as JSON can say it: a string for what JSON has no word for, an object for what does not belong.

    Args:
        is_bytes: whether the column holds bytes. Texts do not belong there, and bytes nowhere else.
        is_boolean: whether 0 and 1 are meant as false and true.
    """
    match value:
        case None | bool():
            return value
        case int():
            return bool(value) if is_boolean and value in (0, 1) else value
        case str():
            return {"text": value} if is_bytes else value
        case float():
            return value if math.isfinite(value) else {"number": str(value)}
        case bytes() | bytearray() | memoryview():
            hexadecimal = f"\\x{value.hex()}"
            return hexadecimal if is_bytes else {"bytes": hexadecimal}
        case Decimal():
            return value if value.is_finite() else {"number": str(value)}
        case datetime():
            return value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            microseconds = value // timedelta(microseconds=1)
            seconds, fraction = divmod(abs(microseconds), 1_000_000)
            sign = "-" if microseconds < 0 else ""
            return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"
        case dict() | list():
            return msgspec.json.encode(value).decode()
    return str(value)


def _time_as_written(value: Any, *, pattern: re.Pattern[str]) -> Any:
    return {"text": value} if isinstance(value, str) and not pattern.fullmatch(value) else travelling(value)


def _in_utc(value: str | None) -> str | None:
    return None if value is None else f"{value}+00"


def _number_of_text(value: str | None) -> Any:
    if value is None:
        return None
    return msgspec.Raw(value.encode()) if _NUMBER.fullmatch(value) else {"number": value}


def _digits_of_single(value: float | None) -> Any:
    """With the nine digits that tell a number of four bytes from its neighbours."""
    return None if value is None else msgspec.Raw(f"{value:.9g}".encode())


def _bits(value: bytes | None, *, width: int, wanted: str) -> Any:
    if value is None:
        return None
    number = int.from_bytes(value)
    if wanted == "boolean" and number in (0, 1):
        return bool(number)
    return number if wanted in _NUMBERS else f"{number:0{width}b}"


def as_single(value: float) -> float:
    """The number of four bytes next to a value, as one of eight."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def text_of(column: SqlColumn, value: Any) -> str:
    """A driver's value, which is not null, as PostgreSQL reads it."""
    converted = column.convert(value) if column.convert else value
    return bytes(converted).decode() if isinstance(converted, msgspec.Raw) else str(converted)
