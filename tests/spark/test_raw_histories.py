"""Tables with a random history, of every write disposition: raw on Spark is raw on PostgreSQL, whatever happened."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.connections import Database, StoreLocation
from connectors.deletions import find_deleted
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from connectors.lake import refresh
from connectors.model import Cursor, Deletes, LandingFormat, Window, WriteDisposition
from connectors.postgres import PostgresSource, TableStream
from deployments.spark.compare import compare, parquet_rows, postgres_rows
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, database
from tests.spark.conftest import RunSpark, tables

pytestmark = pytest.mark.spark

_COLUMNS = (
    "id int, part text, amount numeric, price numeric(12,3), load int, state text, place text, day date,"
    ' at timestamptz, local timestamp, yes boolean, "end" float8, code uuid, body bytea, tags text[],'
    " changed timestamptz"
)
_STREAMS: dict[str, dict[str, Any]] = {
    "merged": {"primary_key": ("id",), "cursor": Cursor("changed"), "deletes": Deletes(limit=0.99)},
    "landed": {
        "primary_key": ("id",),
        "cursor": Cursor("changed"),
        "deletes": Deletes(limit=0.99),
        "landing": LandingFormat.PARQUET,
    },
    "plain": {"primary_key": ("id", "part"), "event_time": "at"},
    "kept": {"primary_key": ("id",), "write": WriteDisposition.APPEND},
    "whole": {"primary_key": ("id",), "write": WriteDisposition.REPLACE},
    "events": {"write": WriteDisposition.APPEND, "event_time": "at"},
}
SOURCE = PostgresSource(
    name="erp",
    database=Database("erp"),
    streams=tuple(TableStream(name=name, **definition) for name, definition in _STREAMS.items()),
)
_WINDOW = Window.parse("2024-01-02", "2024-01-04")


def test_random_histories_come_out_as_in_postgresql(
    run_spark: RunSpark, source_database: Prepare, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    there = source_database("".join(f"create table {name} ({_COLUMNS});" for name in _STREAMS))
    there.autocommit = True
    chance = random.Random(8)
    for step in range(10):
        for stream in SOURCE.streams:
            _change(there, stream.name, chance)
            if step == 4:
                there.execute(f"alter table {stream.name} add column extra int default 7".encode())
        for stream in SOURCE.streams:
            _load(stream, chance, database(there, warehouse), destination, is_first=step == 0)
    lake = tmp_path / "lake"
    for stream in SOURCE.streams:
        assert refresh(SOURCE, stream, destination, Landing(StoreLocation(lake.as_uri()))) is not None
    home = tmp_path / "spark"
    run_spark(lake, tmp_path / "landing", home)
    with warehouse.connect("transformer") as connection:
        for stream in SOURCE.streams:
            files = tables(home, "raw_erp", stream.name)
            if stream.primary_key:
                found = compare(connection, "raw_erp", stream.name, stream.primary_key, files)
                assert found.is_equal, str(found)
                assert found.rows > 20
                continue
            names, rows = postgres_rows(connection, "raw_erp", stream.name)
            here, there_now = Counter(rows), Counter(parquet_rows(files, names))
            assert (here - there_now, there_now - here) == (Counter(), Counter())
    happened = warehouse.query(
        "select stream, sum(rows_updated) > 0, sum(rows_unchanged) > 0, sum(rows_deleted) > 0 from ops.loads group by 1"
    )
    assert {row[0]: row[1:] for row in happened}["merged"] == (True, True, True)
    assert warehouse.query("select count(*) > 0 from raw_erp.merged where _deleted_at is not null") == [(True,)]


def _load(
    stream: TableStream, chance: random.Random, connections: Any, destination: Destination, *, is_first: bool
) -> None:
    what = chance.random()
    if stream.event_time and what < 0.4 and not is_first:
        ingest(SOURCE, stream, connections, destination, window=_WINDOW)
    elif stream.deletes and what < 0.4 and not is_first:
        find_deleted(SOURCE, stream, connections, destination, limit=1.0)
    else:
        is_refresh = what > 0.85 and not is_first and stream.cursor is not None
        ingest(SOURCE, stream, connections, destination, full_refresh=is_refresh)


def _change(there: psycopg.Connection, table: str, chance: random.Random) -> None:
    """Rows that come, change with and without their cursor, go, and come back."""
    day = chance.randint(1, 9)
    for _ in range(20):
        there.execute(
            f"""
            insert into {table} (id, part, amount, price, place, day, at, local, yes, "end", code, body, tags, changed)
            select %(id)s, %(part)s, (%(number)s || repeat('0', %(zeros)s))::numeric, %(number)s::numeric, %(note)s,
                '2024-01-01'::date + %(day)s, '2024-01-01Z'::timestamptz + %(day)s * interval '7 hours',
                '2024-03-31 02:30'::timestamp, %(day)s > 4, %(number)s::float8 / 3, md5(%(part)s)::uuid,
                decode(md5(%(part)s), 'hex'), array[%(part)s, null], %(changed)s
            where not exists (select from {table} where id = %(id)s)
            """.encode(),
            {
                "id": chance.randint(1, 60),
                "part": chance.choice(["a", "ä", "Z"]),
                "number": f"{chance.randint(-999, 999)}.5",
                "zeros": chance.randint(0, 2),
                "note": chance.choice([None, "", "x\ny", '"quoted", so', "\N{GRINNING FACE}"]),
                "day": day,
                "changed": chance.choice([None, f"2024-01-0{day}Z"]),
            },
        )
    some = "mod(id, 7) = %s"
    there.execute(f"update {table} set amount = amount + 1, changed = now() where {some}".encode(), [day % 7])
    there.execute(f"update {table} set place = 'unseen' where {some}".encode(), [(day + 1) % 7])
    there.execute(f"update {table} set place = 'older', changed = '2020-01-01Z' where {some}".encode(), [(day + 2) % 7])
    there.execute(f"delete from {table} where {some}".encode(), [(day + 3) % 7])
