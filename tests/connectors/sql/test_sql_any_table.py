"""Any table of SQLite, whatever it holds: each row is in raw as it was, or in quarantine, and all are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.ingest import Destination
from connectors.model import LandingFormat
from connectors.rebuild import rebuild
from connectors.sql import SqlSource
from tests.conftest import Warehouse
from tests.connectors.sql.sql_databases import Sqlite, load_sql, sql_erp

_KINDS = ("integer", "text", "blob", "real", "numeric", "boolean", "date", "datetime", "time", "json", "string", "")
_TIMES = ("2024-02-29", "2024-02-30", "2024-01-01 10:00:00", "2024-01-01T10:00:00.123456Z", "10:00", "24:00:00", "now")
_NUMBERS = (
    "1",
    "007",
    "1e5",
    "0x10",
    "1_000",
    "NaN",
    "Infinity",
    " 1 ",
    "true",
    "null",
    '"',
    "{}",
    '{"text": "x"}',
    "\\x41",
)
_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(_TIMES + _NUMBERS),
    st.binary(max_size=8),
)

Table = tuple[list[str], list[tuple[Any, ...]]]
"""The columns' types, and rows."""


@st.composite
def tables(draw: st.DrawFn) -> Table:
    kinds = draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=6))
    rows = draw(st.lists(st.tuples(*[_VALUES] * len(kinds)), max_size=12))
    return kinds, rows


def _same(kind: str, there: Any, here: str | None) -> bool:
    """Whether what PostgreSQL prints is the value that SQLite has, in a column that may hold such a value."""
    if there is None or here is None:
        return there is here
    if isinstance(there, bytes):
        return kind == "blob" and here == f"\\x{there.hex()}"
    if isinstance(there, str):
        return here == there if kind not in ("date", "datetime", "time", "json") else _same_moment(there, here)
    if kind == "boolean":
        return there in (0, 1) and here == ("true" if there else "false")
    if isinstance(there, int):
        return kind in ("integer", "text", "numeric", "json", "string", "") and int(here) == there
    return kind not in ("blob", "boolean", "date", "datetime", "time") and float(here) == there


def _same_moment(there: str, here: str) -> bool:
    plain = there.replace("T", " ").removesuffix("Z")
    return here in (plain, plain + " 00:00:00", plain + ":00") or "".join(here.split()) == "".join(there.split())


def check(table: Table, warehouse: Warehouse, destination: Destination, path: Path) -> None:
    kinds, rows = table
    names = [f"c{number}" for number in range(len(kinds))]
    database = Sqlite(path)
    database.execute(
        "drop table if exists t",
        f"create table t (id integer primary key, {', '.join(map(' '.join, zip(names, kinds, strict=True)))})",
        f"insert into t values (?{', ?' * len(kinds)})",
        rows=[(number, *row) for number, row in enumerate(rows, 1)] or [(1, *[None] * len(kinds))],
    )
    there = {row[0]: row[1:] for row in database.execute("select * from t")}
    outcomes = []
    for landing in (None, LandingFormat.PARQUET):
        warehouse.execute("drop schema if exists raw_erp cascade; truncate ops.loads, ops.quarantine cascade")
        source = sql_erp(name="t", primary_key=("id",), reject_limit=1, landing=landing)
        outcomes.append(check_load(source, kinds, there, database, warehouse, destination))
    assert outcomes[0] == outcomes[1], "the same by way of Parquet"


def check_load(
    source: SqlSource,
    kinds: list[str],
    there: dict[int, tuple[Any, ...]],
    database: Sqlite,
    warehouse: Warehouse,
    destination: Destination,
) -> tuple[Any, ...]:
    """What is in raw, and in quarantine."""
    names = [f"c{number}" for number in range(len(kinds))]
    report = load_sql(source, database, destination)
    assert report.extracted == len(there) == report.inserted + report.quarantined
    query = f"select id, {', '.join(f'{name}::text' for name in names)} from raw_erp.t order by 1"
    here = {row[0]: row[1:] for row in warehouse.query(query)}
    assert len(here) == report.inserted
    for number, values in here.items():
        assert all(map(_same, kinds, there[number], values)), (kinds, there[number], values)
    rebuild(source, source.streams[0], destination)
    assert {row[0]: row[1:] for row in warehouse.query(query)} == here
    return here, warehouse.query("select row_in_load, reason from ops.quarantine order by 1")


_ANY = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(table=tables())
@_ANY
def test_any_table_arrives_as_it_is_or_in_quarantine(
    table: Table, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    check(table, warehouse, destination, tmp_path / "erp.db")


@pytest.mark.chaos
@given(table=tables())
@settings(_ANY, max_examples=500)
def test_hundreds_of_tables_arrive_as_they_are_or_in_quarantine(
    table: Table, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    check(table, warehouse, destination, tmp_path / "erp.db")
