"""Digests of rows: equal rows have equal ones, whatever their order and place; different values have different ones."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from connectors.comparison.digests import Bucket, ComparedAs, Span
from connectors.comparison.row_digests import RowDigests
from tests.conftest import Server

TYPES = {
    "double precision": ["0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "0.1000000000000000055511151231257827",
                         "5e-324", "1e308", "0.30000000000000004"],
    "real": ["0", "-0", "NaN", "0.1", "0.10000001", "1e-45"],
    "numeric": ["0", "0.0", "1.1", "1.10", "NaN", "Infinity", "1e100", "-1"],
    "text": ["", " ", "NULL", "\\N", ",", '"', '""', "(,)", "é", "e\u0301", "\U0001f642", "a\nb", "a,b"],
    "timestamptz": ["infinity", "-infinity", "2024-01-01 00:00:00+00", "2024-01-01 01:00:00+01",
                    "2024-01-01 00:00:00.000001+00", "0044-03-15 12:00:00+00 BC"],
    "timestamp": ["infinity", "2024-01-01 00:00:00", "2024-01-01 00:00:00.5"],
    "date": ["infinity", "2024-01-01", "0044-03-15 BC"],
    "interval": ["1 mon", "30 days", "720:00:00", "-1 day", "1 day -24:00:00"],
    "jsonb": ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', '{"a": 1.0, "b": 2}', "null", '"null"', "[]", "{}", '[1, "1"]'],
    "json": ['{"a": 1}', '{"a":1}'],
    "text[]": ["{}", "{NULL}", '{"NULL"}', "{a,b}", '{"a,b"}', "{{a},{b}}", "[0:1]={a,b}"],
    "float8[]": ["{0}", "{-0}", "{NaN}", "{NULL}"],
    "bytea": ["", "\\x00", "\\x0000", "\\x3030"],
    "bit varying": ["", "0", "00"],
    "int4range": ["empty", "[1,3)", "[1,2]", "(,)"],
    "inet": ["10.0.0.1", "10.0.0.1/24"],
    "time with time zone": ["00:00+00", "01:00+01", "24:00+00"],
    "boolean": ["true", "false"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-00000000000A"],
}  # fmt: skip
"""Values that are easily taken for others, or for none."""
COLUMNS = list(TYPES)
EVERYTHING = Span()
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Each example fills two tables: looking for a smaller one would take longer than to understand this one."""
ROWS = st.dictionaries(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4),
    st.fixed_dictionaries({kind: st.none() | st.sampled_from(values) for kind, values in TYPES.items()}),
    max_size=6,
)


@pytest.fixture(scope="module")
def sides(postgres: Server) -> Any:
    """Two databases, the second in another encoding and collation, each with a table of all types."""
    names = ("digests_one", "digests_other")
    connections = []
    try:
        for name, options in zip(names, ("", "encoding 'UTF8' locale 'C' template template0"), strict=True):
            with postgres.connect() as admin:
                admin.execute(f"create database {name} {options}".encode())
            connections.append(postgres.connect(name))
            columns = ", ".join(f'"{kind}" {kind}' for kind in COLUMNS)
            connections[-1].execute(f"create table t (k text, {columns})".encode())
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for name in names:
            postgres.drop_database(name)


def fill(connection: psycopg.Connection, rows: dict[str, dict[str, Any]], *, backwards: bool) -> RowDigests:
    connection.execute("truncate t")
    insert = sql.SQL("insert into t values (%s, {})").format(
        sql.SQL(", ").join(sql.SQL("%s::text::{}").format(sql.SQL(kind)) for kind in COLUMNS)
    )
    for key in sorted(rows, reverse=backwards):
        connection.execute(insert, [key, *(rows[key][kind] for kind in COLUMNS)])
    compared = ComparedAs({"k": None}, dict.fromkeys(COLUMNS))
    return RowDigests(connection, sql.Identifier("t"), compared, ["text"], None, sql.SQL("true"), nullcontext)


def stored(connection: psycopg.Connection, key: str, kind: str) -> Any:
    """A value as it is stored, byte by byte."""
    return connection.execute(
        sql.SQL("select {0} is null, record_send(row({0})) from t where k = %s").format(sql.Identifier(kind)), [key]
    ).fetchone()


@given(ROWS)
@settings(max_examples=30, phases=UNSHRUNK)
def test_the_same_rows_in_another_order_and_database_have_the_same_digest(sides: Any, rows: Any) -> None:
    one, other = (fill(side, rows, backwards=place == 1) for place, side in enumerate(sides))
    for bits in (0, 8, 48):
        assert one.by_bucket(EVERYTHING, bits) == other.by_bucket(EVERYTHING, bits)
    buckets = list(one.by_bucket(EVERYTHING, 8))
    assert one.hashes(EVERYTHING, buckets, 8) == other.hashes(EVERYTHING, buckets, 8)
    assert one.hashes(EVERYTHING, buckets, 8).keys() == {(key,) for key in rows}
    assert one.rows([(key,) for key in rows]) == other.rows([(key,) for key in rows])


@given(ROWS.filter(bool), st.data())
@settings(max_examples=60, phases=UNSHRUNK)
def test_a_value_that_differs_makes_the_digest_differ_and_an_equal_one_does_not(
    sides: Any, rows: Any, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(rows)))
    kind = data.draw(st.sampled_from(COLUMNS))
    value = data.draw(st.none() | st.sampled_from(TYPES[kind]))
    one = fill(sides[0], rows, backwards=False)
    other = fill(sides[1], {**rows, key: {**rows[key], kind: value}}, backwards=True)
    is_same = stored(sides[0], key, kind) == stored(sides[1], key, kind)
    assert (one.by_bucket(EVERYTHING) == other.by_bucket(EVERYTHING)) is is_same


def test_every_pair_of_values_of_a_type_is_told_apart_as_it_is_stored(sides: Any) -> None:
    for kind, values in TYPES.items():
        rows = {str(n): dict.fromkeys(COLUMNS) | {kind: value} for n, value in enumerate([None, *values])}
        digests = fill(sides[0], rows, backwards=False)
        texts = {key: row.values for (key,), row in digests.rows([(key,) for key in rows]).items()}
        for one in rows:
            for other in rows:
                is_same = stored(sides[0], one, kind) == stored(sides[0], other, kind)
                assert (texts[one] == texts[other]) is is_same, (kind, rows[one][kind], rows[other][kind])


def test_a_null_and_its_neighbour_do_not_change_places(sides: Any) -> None:
    nothing = dict.fromkeys(COLUMNS)
    one = fill(sides[0], {"k": {**nothing, "text": "a"}}, backwards=False)
    other = fill(sides[1], {"k": {**nothing, "json": '"a"'}}, backwards=False)
    assert one.by_bucket(EVERYTHING) != other.by_bucket(EVERYTHING)


def test_two_rows_that_are_alike_do_not_cancel_out(sides: Any) -> None:
    digests = fill(sides[0], {"k": dict.fromkeys(COLUMNS)}, backwards=False)
    single = digests.by_bucket(EVERYTHING)[Bucket(0, 0)]
    sides[0].execute("insert into t select * from t")
    double = digests.by_bucket(EVERYTHING)[Bucket(0, 0)]
    assert (double.rows, double.checksum) == (2, 2 * single.checksum)
