"""What has to be read again when the definition of a stream changes."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from connectors.connections import Secret, Setting
from connectors.definitions import HOW_IT_IS_READ, Need, StreamChange, changes, described
from connectors.formats.file_streams import CsvStream, JsonLinesStream, JsonStream, ParquetStream
from connectors.model import Cursor, Deletes, Source, Stream, Windows, WindowSize
from connectors.postgres import TableStream
from connectors.privacy import Hashed
from connectors.registry import SOURCES
from connectors.rest import ApiKeyHeader, Keyset, RestSource, RestStream
from connectors.sql import SqlStream

ORDERS: dict[str, Any] = {
    "name": "orders",
    "path": "/orders",
    "primary_key": ("id",),
    "cursor": Cursor("changed", lag=timedelta(minutes=5)),
    "since_parameter": "since",
    "event_time": "at",
    "window_parameters": ("from", "to"),
    "columns": {"at": "timestamptz"},
    "pages": Keyset("id", "after"),
}


def shop(**changed: Any) -> Source:
    stream = RestStream(**{**ORDERS, **changed})
    auth = ApiKeyHeader("X-Key", Secret("shop_key"))
    return RestSource(name="shop", base_url=Setting("shop_url"), streams=(stream,), auth=auth)


def change_of(before: Source, after: Source) -> list[StreamChange]:
    """As across two commits: one of them comes as JSON."""
    return changes(json.loads(json.dumps(described([before]))), described([after]))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"path": "/v2/orders"}, "path"),
        ({"primary_key": ("id", "part")}, "primary_key"),
        ({"columns": {"at": "timestamptz", "price": "numeric"}}, "columns"),
        ({"cursor": Cursor("updated", lag=timedelta(minutes=5))}, "cursor.field"),
        ({"privacy": {"email": Hashed(Secret("people"))}}, "privacy"),
        ({"parameters": {"status": "all"}}, "parameters"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_changes_rows_that_were_read_before_needs_them_read_again(changed: dict[str, Any], field: str) -> None:
    assert change_of(shop(), shop(**changed)) == [StreamChange("shop.orders", Need.RELOAD, (field,), has_windows=True)]


def test_a_stream_that_is_read_whole_from_now_on_needs_it_too() -> None:
    whole = shop(cursor=None, since_parameter=None, event_time=None, window_parameters=None)
    [change] = change_of(shop(), whole)
    assert change.need is Need.RELOAD
    assert set(change.fields) == {"cursor", "since_parameter", "event_time", "window_parameters"}
    assert not change.has_windows


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"cursor": Cursor("changed", lag=timedelta(hours=1))}, "cursor.lag"),
        ({"windows": Windows(WindowSize.MONTH)}, "windows"),
        ({"pages": Keyset("id", "from")}, "pages"),
        ({"deletes": Deletes(0.2)}, "deletes"),
        ({"reject_limit": 0.2}, "reject_limit"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_changes_only_how_rows_are_fetched_needs_nothing(changed: dict[str, Any], field: str) -> None:
    assert change_of(shop(), shop(**changed)) == [StreamChange("shop.orders", Need.NOTHING, (field,), has_windows=True)]


def test_streams_that_come_and_go_are_named_and_one_that_is_the_same_is_not() -> None:
    other = shop(name="items")
    assert change_of(shop(), other) == [
        StreamChange("shop.items", Need.FIRST_LOAD, has_windows=True),
        StreamChange("shop.orders", Need.RETIRE),
    ]
    assert change_of(other, other) == []


def test_every_registered_source_can_be_told_without_a_secret_or_an_address_in_memory() -> None:
    told = json.dumps(described(SOURCES.values()))
    assert json.loads(told).keys() == {f"{s.name}.{stream.name}" for s in SOURCES.values() for stream in s.streams}
    assert " at 0x" not in told
    assert json.loads(told) == described(SOURCES.values())


def test_a_field_that_is_said_to_change_no_row_is_a_field_of_some_stream() -> None:
    kinds: list[type[Stream]] = [RestStream, TableStream, SqlStream, CsvStream, JsonLinesStream, JsonStream]
    known = {each.name for kind in [*kinds, ParquetStream] for each in dataclasses.fields(kind)}
    known |= {f"cursor.{each.name}" for each in dataclasses.fields(Cursor)}
    assert known >= HOW_IT_IS_READ
