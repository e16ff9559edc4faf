"""How far streams are, by the ledger: with windows, with a cursor alone, with neither."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.destinations.warehouse.positions import Position, positions
from connectors.model import Cursor, Windows
from connectors.postgres import PostgresSource
from tests.conftest import Warehouse
from tests.connectors.examples import erp


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def load(
    warehouse: Warehouse,
    started: str,
    *window: str,
    cursor_from: str | None = None,
    status: str = "loaded",
    kind: str = "rows",
) -> None:
    """A load of the ledger that began at an instant."""
    start, end = window or (None, None)
    counts = "0" if status == "loaded" else "null"
    warehouse.query(
        "insert into ops.loads (load_id, source, stream, status, kind, attempt, started_at, window_start, window_end,"
        " cursor_from, rows_extracted, rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined)"
        f" values (gen_random_uuid(), 'erp', 't', %s, %s, 1, %s, %s, %s, %s, {', '.join([counts] * 6)}) returning 1",
        [status, kind, at(started), start and at(start), end and at(end), cursor_from],
    )


def rows_of(warehouse: Warehouse, day: str, rows: int) -> None:
    warehouse.query(
        "insert into ops.windows (source, stream, window_start, window_end, rows)"
        " values ('erp', 't', %s, %s::timestamptz + interval '1 day', %s) returning 1",
        [at(day), at(day), rows],
    )


def position(warehouse: Warehouse, source: PostgresSource) -> tuple[datetime | None, datetime | None]:
    [found] = positions(warehouse.url("transformer"), [source])
    assert found == Position("erp", "t", found.as_of, found.seen_at)
    return found.as_of, found.seen_at


CHANGES = erp(name="t", primary_key=("id",), cursor=Cursor("changed"))
WINDOWS = erp(
    name="t", primary_key=("id",), cursor=Cursor("changed"), event_time="at", windows=Windows(first="2024-01-01")
)
CLOSED = erp(
    name="t", primary_key=("id",), cursor=Cursor("changed"), event_time="at",
    windows=Windows(first="2024-01-01", until="2024-01-03"),
)  # fmt: skip
FILES = erp(name="t", primary_key=("id",), event_time="at", windows=Windows(first="2024-01-01"))


@pytest.mark.parametrize("source", [CHANGES, WINDOWS, CLOSED, FILES])
def test_of_a_stream_that_was_never_loaded_nothing_is_known(warehouse: Warehouse, source: PostgresSource) -> None:
    load(warehouse, "2024-01-05", status="failed")
    load(warehouse, "2024-01-05", kind="keys")
    assert position(warehouse, source) == (None, None)


def test_without_windows_a_stream_was_read_when_its_last_load_began(warehouse: Warehouse) -> None:
    load(warehouse, "2024-01-05")
    load(warehouse, "2024-01-06T12:30", cursor_from="x")
    load(warehouse, "2024-01-07", status="landed")
    assert position(warehouse, CHANGES) == (at("2024-01-06T12:30"), at("2024-01-06T12:30"))


def test_windows_that_loads_of_what_is_new_reach_count_when_they_are_over(warehouse: Warehouse) -> None:
    load(warehouse, "2024-01-05T18:00")
    assert position(warehouse, WINDOWS) == (at("2024-01-05"), at("2024-01-05"))


def test_loads_that_began_in_the_middle_reach_no_windows(warehouse: Warehouse) -> None:
    load(warehouse, "2024-01-05", cursor_from="x")
    assert position(warehouse, WINDOWS) == (None, None)


def test_a_window_that_was_not_read_ends_what_is_complete(warehouse: Warehouse) -> None:
    load(warehouse, "2024-02-01", "2024-01-01", "2024-01-03")
    load(warehouse, "2024-02-01", "2024-01-02", "2024-01-05")
    load(warehouse, "2024-02-01", "2024-01-06", "2024-01-09")
    assert position(warehouse, WINDOWS) == (at("2024-01-05"), at("2024-01-05"))
    load(warehouse, "2024-02-02", "2024-01-05", "2024-01-06")
    assert position(warehouse, WINDOWS) == (at("2024-01-09"), at("2024-01-09"))


def test_a_stream_to_which_nothing_is_added_any_more_ages_from_when_it_was_read(warehouse: Warehouse) -> None:
    load(warehouse, "2024-05-05")
    load(warehouse, "2024-05-06", cursor_from="x")
    assert position(warehouse, CLOSED) == (at("2024-01-03"), at("2024-05-06"))


def test_files_are_complete_to_the_last_window_that_has_rows(warehouse: Warehouse) -> None:
    load(warehouse, "2024-01-09")
    assert position(warehouse, FILES) == (None, None)
    rows_of(warehouse, "2024-01-01", 24)
    rows_of(warehouse, "2024-01-03", 24)
    rows_of(warehouse, "2024-01-04", 0)
    assert position(warehouse, FILES) == (at("2024-01-04"), at("2024-01-04"))
