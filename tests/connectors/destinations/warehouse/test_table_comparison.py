"""Two tables compared by the warehouse, against the same comparison in a few lines of Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.destinations.warehouse.table_comparison import Relation, TableDifference, compare
from connectors.errors import ConfigurationError, DataError
from tests.conftest import Server, Warehouse, create_warehouse

BEFORE, AFTER = Relation("marts", "the old"), Relation("pr_marts", 'the "new"')
Row = tuple[Any, ...]

_values = st.tuples(
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, "1", "1.0", "NaN", "2"]),
    st.sampled_from([None, '{"a":1}', '{"a": 1}', "[]"]),
)
_rows = st.lists(_values, max_size=6)
_told_apart = st.lists(_values, max_size=6, unique_by=lambda row: row[:2]).map(
    lambda rows: [row for row in rows if row[0] is not None]
)


@pytest.fixture(scope="module")
def filled(postgres: Server) -> Iterator[Warehouse]:
    warehouse = create_warehouse(postgres, "compared")
    with warehouse.connect("transformer") as connection:
        connection.execute("create schema marts")
        connection.execute("create schema pr_marts")
    yield warehouse
    postgres.drop_database("compared")


def fill(warehouse: Warehouse, relation: Relation, columns: str, rows: list[Row]) -> None:
    with warehouse.connect("transformer") as connection:
        name = relation.quoted.as_string(connection)
        connection.execute(f"drop table if exists {name}; create table {name} ({columns})".encode())
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"insert into {name} values ({', '.join(['%s'] * len(rows[0]))})".encode(), list(rows)
                )


def compared(warehouse: Warehouse, *key: str) -> TableDifference:
    return compare(warehouse.url("transformer"), BEFORE, AFTER, key=key)


def number(text: str | None) -> str | None:
    """1 and 1.0 are one number."""
    return {"1.0": "1"}.get(text or "", text)


@given(before=_rows | _told_apart, after=_rows | _told_apart)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_two_tables_differ_by_what_python_says(filled: Warehouse, before: list[Row], after: list[Row]) -> None:
    columns = "id int, part text, amount numeric, document json"
    for relation, rows in ((BEFORE, before), (AFTER, after)):
        fill(filled, relation, columns, rows)
    found = compared(filled, "id", "part")
    then, now = ([(a, b, number(c), d) for a, b, c, d in rows] for rows in (before, after))
    assert (found.before, found.after) == (len(then), len(now))
    is_told = all(len({row[:2] for row in rows}) == len(rows) and all(row[0] for row in rows) for rows in (then, now))
    assert found.key == (("id", "part") if is_told else ())
    if is_told:
        old, new = ({row[:2]: row[2:] for row in rows} for rows in (then, now))
        both = old.keys() & new.keys()
        assert (found.added, found.removed) == (len(new.keys() - old.keys()), len(old.keys() - new.keys()))
        assert found.changed == sum(old[key] != new[key] for key in both)
        assert [each.changed for each in found.columns] == [
            0,
            0,
            sum(old[key][0] != new[key][0] for key in both),
            sum(old[key][1] != new[key][1] for key in both),
        ]
    else:  # as text, in which 1 and 1.0 differ
        assert (found.added, found.removed) == (
            (Counter(after) - Counter(before)).total(),
            (Counter(before) - Counter(after)).total(),
        )
    assert found.is_same == (found.added == found.removed == found.changed == 0)


def test_columns_that_come_go_and_change_their_type_are_named_and_numbers_stay_numbers(filled: Warehouse) -> None:
    fill(filled, BEFORE, "id int, gone text, amount int, code text, at timestamptz", [(1, "x", 5, "7", "2024-01-01Z")])
    fill(filled, AFTER, "id bigint, amount numeric, code int, more text, at date", [(1, "5.0", 7, "y", "2024-01-01")])
    found = compared(filled, "id")
    assert (found.added, found.removed, found.changed) == (0, 0, 1)
    assert [(each.name, each.before, each.after, each.changed) for each in found.columns] == [
        ("id", "integer", "bigint", 0),
        ("amount", "integer", "numeric", 0),
        ("code", "text", "integer", 0),
        ("more", None, "text", 0),
        ("at", "timestamp with time zone", "date", 1),
        ("gone", "text", None, 0),
    ]
    assert not found.is_same


@pytest.mark.parametrize(
    "type_and_values",
    [
        ("xml", "<a/>", "<a />"),
        ("json[]", '{"{}"}', '{"[]"}'),
        ("box", "(0,0),(1,4)", "(0,0),(2,2)"),
        ("double precision", "NaN", "0.1"),
        ("int4range", "[1,3)", "[1,4)"),
        ("text[]", "{a,null}", "{a}"),
        ("jsonb", '{"a":1}', '{"a":2}'),
        ("uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
        ("tsvector", "a", "b"),
        ("interval", "1 day", "2 days"),
    ],
    ids=lambda given: given[0],
)
def test_values_of_any_type_are_told_apart(filled: Warehouse, type_and_values: tuple[str, str, str]) -> None:
    kind, one, other = type_and_values
    if kind == "xml":
        kind, one, other = "json", "[1]", "[1 ]"  # the tests' PostgreSQL is built without xml; json has no `=` either
    for value, changed in ((one, 0), (other, 1)):
        fill(filled, BEFORE, f"id int, value {kind}", [(1, one), (2, None)])
        fill(filled, AFTER, f"id int, value {kind}", [(1, value), (2, None)])
        assert compared(filled, "id").changed == changed
        assert compared(filled).added == changed


def test_what_cannot_be_compared_is_said_and_views_can(filled: Warehouse) -> None:
    fill(filled, BEFORE, "id int", [(1,)])
    fill(filled, AFTER, "id int", [(2,)])
    with pytest.raises(ConfigurationError, match=r"There is no table marts\.nothing\. Build it first"):
        compare(filled.url("transformer"), Relation("marts", "nothing"), AFTER)
    with pytest.raises(ConfigurationError, match="Compare as the role that dbt runs as"):
        compare(filled.url("loader"), BEFORE, AFTER)
    slow = 'create or replace view pr_marts.slow as select id, pg_sleep(5)::text from pr_marts."the ""new"""'
    with filled.connect("transformer") as connection:
        connection.execute(slow.encode())
    with pytest.raises(DataError, match=r"it took longer than 0\.2 s"):
        compare(filled.url("transformer"), BEFORE, Relation("pr_marts", "slow"), seconds=0.2)
