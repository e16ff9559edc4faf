"""Every type that PostgreSQL has, with its extremes, in binary and by way of Parquet: the same to the last bit."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from itertools import zip_longest
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from connectors.ingest import Destination
from connectors.model import LandingFormat
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, erp, load_table, raw

AWKWARD = (
    "tab\t newline\n return\r quote\" 'single' back\\slash \\N \\. ,;| \x01\x1f\x7f é ß 漢字 🦆 e\u0301 \u202e \ufeff"
)
LONGEST = "9" * 131_072  # digits before the point that numeric holds; after it, 16,383
FINEST = "0." + "0" * 16_382 + "1"

BINARY: dict[str, list[str]] = {
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["NaN", "Infinity", "-Infinity", LONGEST, "-" + LONGEST, FINEST, "0.000", "1.10", "-0", "1e-1000"],
    "numeric(38,9)": ["99999999999999999999999999999.999999999", "-0.000000001", "NaN"],
    "real": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "double precision": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1"],
    "boolean": ["true", "false"],
    "text": ["", " ", AWKWARD, "null", "NULL", "x" * 3_000_000],
    "varchar(3)": ["", "abc", "漢字🦆"],
    "character(5)": ["", "a", "  b"],
    '"char"': ["", "a"],
    "name": ["", "a name"],
    "bytea": ["\\x", "\\x00ff5c0a", "\\x" + "00" * 100_000],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "0001-01-01", "2024-02-29"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999"],
    "time(0)": ["12:00:00"],
    "time with time zone": ["00:00:00+15:59", "24:00:00-15:59"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "0001-01-01"],
    "timestamp with time zone": ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999Z"],
    "timestamptz(3)": ["2013-11-03 01:30:00.123-04", "2013-11-03 01:30:00.123-05"],
    "interval": ["-178000000 years", "178000000 years", "1 mon -1 day 00:00:00.000001", "0", "infinity"],
    "interval year to month": ["3 years 2 mons"],
    "json": ['{"a": 1,  "a": 2, "b": 1e400}', "null", "[]", '"\\u0000"'],
    "jsonb": ['{"a": [1, 2.50, {"b": null}]}', "null", "1" * 1000, '"' + "ß" * 1000 + '"'],
    "integer[]": ["{}", "{NULL}", "{{1,2},{3,4}}", "[0:1]={7,8}", "[-1:0][2:3]={{1,2},{3,4}}"],
    "text[]": ["{}", '{"",NULL,"NULL","a,b","q\\"","back\\\\"}', '{"{}"}'],
    "numeric[]": ["{NaN,1.50,NULL}"],
    "timestamptz[]": ["{infinity,2024-01-01 00:00:00+00}"],
    "int4range": ["empty", "[1,5)", "(,)", "[,7)"],
    "numrange": ["[1.10,NaN)", "(,2]"],
    "tstzrange": ["[-infinity,infinity]", "(2024-01-01,]"],
    "daterange[]": ['{empty,"[2024-01-01,2024-02-01)"}'],
    "int8multirange": ["{}", "{[1,3),[5,9)}"],
    "inet": ["10.0.0.1/8", "::1", "::ffff:1.2.3.4/96"],
    "cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "bit varying": ["", "1" * 1000],
    "point": ["(1.5,-0)", "(NaN,Infinity)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1)]"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1.5>"],
    "tsvector": ["", "'a':1A,2 'fat cat':3"],
    "jsonpath": ['$."a"[*]?(@ > 1)'],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"],
    "pg_snapshot": ["10:20:10,14,15"],
    "xid8": ["18446744073709551615"],
    "oid": ["4294967295"],
}
"""Values by type, as its input reads them; the binary form of these means the same in every database."""

AS_TEXT: dict[str, list[str]] = {
    "mood": ["fine", 'Not So "Fine"'],
    "mood[]": ['{fine,NULL,"Not So \\"Fine\\""}'],
    "positive": ["7"],
    "words": ["é", ""],
    "pair": ['(1,"a ""b"", c")', "(,)"],
    "money": ["-92233720368547758.08", "1.50"],
    "regclass": ["pg_class"],
    "tsquery": ["", "'a' & !'b' <-> 'c':*A"],
    "pricerange": ["[1.5,2.5)"],
}
"""Types whose binary form means something in their database alone, or is not read back: they arrive as their text."""

TYPES_OF_ITS_OWN = """
create type mood as enum ('fine', 'Not So "Fine"');
create domain positive as integer check (value > 0);
create domain words as text;
create type pair as (n int, t text);
create type pricerange as range (subtype = float8);
"""


def columns() -> list[tuple[str, str, list[str]]]:
    """Name, type and values of each column."""
    return [(f"c{number}", kind, values) for number, (kind, values) in enumerate({**BINARY, **AS_TEXT}.items())]


@pytest.fixture
def everything(source_database: Prepare) -> psycopg.Connection:
    """A table `t` with a column of each type; the first row is null but for its key."""
    connection = source_database(TYPES_OF_ITS_OWN)
    definitions = ", ".join(f"{name} {kind}" for name, kind, _ in columns())
    connection.execute(f"create table t (id int primary key, {definitions})".encode())
    connection.execute("insert into t (id) values (0)")
    insert = sql.SQL("insert into t values (%s, {})").format(
        sql.SQL(", ").join(sql.SQL("%s::" + kind) for _, kind, _ in columns())
    )
    for number, values in enumerate(zip_longest(*[values for _, _, values in columns()]), start=1):
        connection.execute(insert, [number, *values])
    return connection


def content(connection: psycopg.Connection, table: str, names: list[str], *, as_text: bool) -> bytes:
    """Columns of a table by its key, as the server writes them in binary."""
    selected = ", ".join(f"{name}::text" if as_text else name for name in names)
    with connection.cursor() as cursor:
        query = f"copy (select id, {selected} from {table} order by id) to stdout (format binary)"
        with cursor.copy(query.encode()) as copy:
            return b"".join(bytes(data) for data in copy)


def check_identical(source: psycopg.Connection, warehouse: Warehouse) -> None:
    with warehouse.server.connect(warehouse.database) as raw:
        binary = [name for name, kind, _ in columns() if kind in BINARY]
        assert content(raw, "raw_erp.t", binary, as_text=False) == content(source, "t", binary, as_text=False)
        texts = [name for name, kind, _ in columns() if kind in AS_TEXT]
        assert content(raw, "raw_erp.t", texts, as_text=True) == content(source, "t", texts, as_text=True)


LANDINGS = pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])


@LANDINGS
def test_every_type_arrives_bit_for_bit_and_comes_back_from_the_landing(
    everything: psycopg.Connection, warehouse: Warehouse, destination: Destination, landing: LandingFormat | None
) -> None:
    source = erp(name="t", primary_key=("id",), landing=landing)
    assert load_table(source, everything, warehouse, destination).quarantined == 0
    check_identical(everything, warehouse)
    rebuild(source, source.streams[0], destination)
    check_identical(everything, warehouse)


@LANDINGS
def test_every_type_is_merged_into_rows_that_are_there(
    everything: psycopg.Connection, warehouse: Warehouse, destination: Destination, landing: LandingFormat | None
) -> None:
    source = erp(name="t", primary_key=("id",), landing=landing)
    everything.execute("create table kept as select * from t; delete from t where id > 0")
    load_table(source, everything, warehouse, destination)
    everything.execute("delete from t; insert into t select * from kept")
    load_table(source, everything, warehouse, destination)
    check_identical(everything, warehouse)
    assert load_table(source, everything, warehouse, destination).updated == 0, "what is equal is not written again"


def test_a_value_that_changes_its_form_alone_is_written(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    """To PostgreSQL's `=` each of these is what it was before."""
    connection = source_database("create table t (id int primary key, n numeric, i interval, d float8, j jsonb)")
    connection.execute("insert into t values (1, 1.1, '1 mon', 0, '{\"a\": 1.0}')")
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    for change in ("n = 1.10", "i = '30 days'", "d = '-0'", "j = '{\"a\": 1.00}'"):
        connection.execute(f"update t set {change}".encode())
        assert load_table(source, connection, warehouse, destination).updated == 1, change
    text = "n::text, i::text, d::text, j::text"
    assert raw(warehouse, text, "raw_erp.t") == [("1.10", "30 days", "-0", '{"a": 1.00}')]


def test_the_types_of_raw_are_the_source_s(
    everything: psycopg.Connection, warehouse: Warehouse, destination: Destination
) -> None:
    load_table(erp(name="t", primary_key=("id",)), everything, warehouse, destination)
    types = "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass"
    there = dict(everything.execute(types, ["t"]).fetchall())
    here = dict(warehouse.query(types, ["raw_erp.t"]))
    assert {name: here[name] for name, kind, _ in columns() if kind in BINARY} == {
        name: there[name] for name, kind, _ in columns() if kind in BINARY
    }
    assert {here[name] for name, kind, _ in columns() if kind in AS_TEXT} == {"text"}


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "n": st.none() | st.decimals(-(10**40), 10**40, places=12),
            "d": st.none() | st.floats(),
            "t": st.none() | TEXTS,
            "b": st.none() | st.binary(max_size=20),
            "at": st.none() | st.datetimes(timezones=st.just(UTC)),
            "day": st.none() | st.dates(date(1, 1, 1)),
            "clock": st.none() | st.times(),
            "span": st.none() | st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
            "flag": st.none() | st.booleans(),
            "a": st.none() | st.lists(st.none() | TEXTS, max_size=4),
        }
    ),
    max_size=20,
)
TYPED = {
    "i": "bigint", "n": "numeric", "d": "double precision", "t": "text", "b": "bytea", "at": "timestamptz",
    "day": "date", "clock": "time", "span": "interval", "flag": "boolean", "a": "text[]",
}  # fmt: skip


@LANDINGS
@given(before=ROWS, after=ROWS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_arrive_bit_for_bit(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing: LandingFormat | None,
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
) -> None:
    definitions = ", ".join(f"{name} {kind}" for name, kind in TYPED.items())
    connection = source_database(f"drop table if exists t; create table t (id int primary key, {definitions})")
    warehouse.execute("drop schema if exists raw_erp cascade; truncate ops.loads, ops.watermarks cascade")
    source = erp(name="t", primary_key=("id",), landing=landing)
    rows: dict[int, dict[str, Any]] = {}
    for version in (before, after):
        rows.update(enumerate(version))
        connection.execute("truncate t")
        insert = f"insert into t values (%s, {', '.join(['%s'] * len(TYPED))})"
        for number, row in rows.items():
            connection.execute(insert.encode(), [number, *(row[name] for name in TYPED)])
        report = load_table(source, connection, warehouse, destination)
        assert (report.extracted, report.quarantined) == (len(rows), 0)
        check_same(connection, warehouse, landing)
    if landing is LandingFormat.PARQUET and rows:
        rebuild(source, source.streams[0], destination)
        check_same(connection, warehouse, landing)


def check_same(source: psycopg.Connection, warehouse: Warehouse, landing: LandingFormat | None) -> None:
    """By way of Parquet, which is by way of texts, a NaN has no sign."""
    as_text = ["d"] if landing is LandingFormat.PARQUET else []
    as_is = [name for name in TYPED if name not in as_text]
    with warehouse.server.connect(warehouse.database) as raw:
        assert content(raw, "raw_erp.t", as_is, as_text=False) == content(source, "t", as_is, as_text=False)
        if as_text:
            assert content(raw, "raw_erp.t", as_text, as_text=True) == content(source, "t", as_text, as_text=True)
