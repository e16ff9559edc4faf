"""Which field of its source a column of raw holds, by the stream's definition."""

from __future__ import annotations

import pytest

from connectors.connections import Secret
from connectors.fields import SourceField, field_of, place_of
from connectors.files import CsvStream, JsonStream
from connectors.model import Stream
from connectors.postgres import TableStream
from connectors.privacy import Hashed, Masked
from connectors.rest import RestStream
from connectors.rest.streams import JsonBody, Parent

KEY = Secret("key")
ORDERS = RestStream(
    name="orders",
    path="/orders",
    records="data.edges[].node",
    primary_key=("orderId",),
    columns={"Total Amount": "numeric"},
    privacy={"contact.email": Hashed(KEY), "Phone": Masked()},
)
LINES = RestStream(
    name="lines",
    path="/orders/{id}/lines",
    body=JsonBody(),
    primary_key=("order_id", "n"),
    parent=Parent(ORDERS, fields={"order_id": "orderId", "id": "orderId"}),
)


@pytest.mark.parametrize(
    ("stream", "column", "expected"),
    [
        (ORDERS, "order_id", SourceField("data.edges[].node.orderId")),
        (ORDERS, "total_amount", SourceField("data.edges[].node.Total Amount")),
        (ORDERS, "never_named", SourceField("data.edges[].node.never_named")),
        (ORDERS, "phone", SourceField("data.edges[].node.Phone", "masked")),
        (ORDERS, "_load_id", SourceField(None)),
        (LINES, "order_id", SourceField("data.edges[].node.orderId")),
        (LINES, "n", SourceField("[].n")),
        (RestStream(name="s", path="/s", single=True, records="me", primary_key=("id",)), "id", SourceField("me.id")),
        (TableStream(name="t", primary_key=("id",)), "id", SourceField("id")),
        (CsvStream(name="c", pattern="*.csv", primary_key=("id",), file_column="file"), "file", SourceField(None)),
        (JsonStream(name="j", pattern="*.json", primary_key=("id",), records="r"), "id", SourceField("r[].id")),
    ],
)
def test_a_column_leads_to_its_field(stream: Stream, column: str, expected: SourceField) -> None:
    assert field_of(stream, column) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (ORDERS, "GET /orders"),
        (LINES, "POST /orders/{id}/lines"),
        (TableStream(name="t", table="Orders", schema="shop", primary_key=("id",)), "shop.Orders"),
        (CsvStream(name="c", pattern="in/*.csv", primary_key=("id",)), "in/*.csv"),
    ],
)
def test_a_stream_has_a_place(stream: Stream, expected: str) -> None:
    assert place_of(stream) == expected
