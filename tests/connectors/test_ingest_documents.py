"""Documents of an API in raw: typed, merged, contracted, quarantined."""

from __future__ import annotations

import json

import pytest

from connectors.errors import (
    ContractViolationError,
    MalformedResponseError,
)
from connectors.ingest import Destination
from connectors.model import SchemaContract, Window
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import (
    Shop,
    counts,
    load,
    order,
    raw,
    shop_source,
)


def test_documents_arrive_typed_and_complete(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(
        api,
        [
            order(1, total=12.50, paid=True, customer={"name": "Ann"}, note="two\nlines\tand \\ more"),
            order(2, total=3, paid=False, customer={"name": "Bo", "tags": ["a\tb"]}, note="naïve 😀"),
            order(3, total=None, paid=None, customer=None),
            order(4, total=12345678901234567890.123456789, note=""),
        ],
    )
    report = load(shop_source(), api, destination)
    assert counts(report) == (4, 4, 0, 0, 0, 0)
    rows = raw(warehouse, "id, total, paid, customer, note, pg_typeof(total)::text, pg_typeof(customer)::text")
    assert [row[0] for row in rows] == [1, 2, 3, 4]
    assert rows[0][2:5] == (True, {"name": "Ann"}, "two\nlines\tand \\ more")
    assert rows[1][2:5] == (False, {"name": "Bo", "tags": ["a\tb"]}, "naïve 😀")
    assert rows[2][1:5] == (None, None, None, None)
    assert rows[3][4] == ""
    assert rows[0][5:] == ("numeric", "jsonb")


def test_of_two_versions_in_one_load_the_latest_counts(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1, total=1), order(1, total=2, changed="2024-02-01T00:00:00Z"), order(2, total=5)])
    assert counts(load(shop_source(), api, destination)) == (3, 2, 0, 0, 1, 0)
    assert raw(warehouse, "id, total") == [(1, 2), (2, 5)]


def test_an_older_version_never_overwrites_a_newer_one(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1, total=2, changed="2024-02-01T00:00:00Z")])
    load(shop_source(), api, destination)
    shop.orders = [order(1, total=1, changed="2024-01-01T00:00:00Z")]
    report = load(shop_source(), api, destination, window=Window.parse("2024-01-01", "2024-01-02"))
    assert counts(report) == (1, 0, 0, 1, 0, 0)
    assert raw(warehouse, "total") == [(2,)]


def test_a_bad_row_goes_to_quarantine_with_its_reason_and_the_rest_is_loaded(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(n) for n in range(200)] + [order(500, at="noon"), order(501, note="nul \0 here")])
    report = load(shop_source(), api, destination)
    assert counts(report) == (202, 200, 0, 0, 0, 2)
    rejected = warehouse.query("select reason, payload, load_id from ops.quarantine order by reason")
    assert [reason for reason, *_ in rejected] == [
        'column at: invalid input syntax for type timestamp with time zone: "noon"',
        "column note: a NUL character, which text cannot hold",
    ]
    assert json.loads(rejected[0][1])["id"] == "500"
    assert "nul \\u0000 here" in rejected[1][1]
    assert {load_id for *_, load_id in rejected} == {report.load_id}


def test_a_value_that_its_declared_type_would_round_is_quarantined(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(
        columns={"changed": "timestamptz", "at": "timestamptz", "total": "numeric(6,2)"}, reject_limit=0.5
    )
    fine = [order(1, total=1.25), order(2, total=1.1), order(3, total=None), order(4, at="2024-01-01T00:00:00.123456Z")]
    shop = [*fine, order(5, total=1.255), order(6, at="2024-01-01T00:00:00.1234567Z"), order(7, total=123456)]
    Shop(api, shop)
    assert counts(load(source, api, destination)) == (7, 4, 0, 0, 0, 3)
    assert raw(warehouse, "id, total::text") == [(1, "1.25"), (2, "1.10"), (3, None), (4, None)]
    [(_, first), (_, second), (_, third)] = warehouse.query("select row_in_load, reason from ops.quarantine order by 1")
    assert first == "column total: more digits than numeric(6,2) holds"
    assert second == "column at: more digits than timestamp with time zone holds"
    assert third.startswith("column total: numeric field overflow")


def test_too_many_bad_rows_fail_the_load_and_commit_nothing(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1)])
    load(shop_source(), api, destination)
    before = raw(warehouse), warehouse.query("select * from ops.watermarks")
    shop.orders += [order(2, at="noon"), order(3)]
    with pytest.raises(ContractViolationError, match=r"1 of 3 rows break the contract, more than the 1\.0%.*noon"):
        load(shop_source(), api, destination)
    assert (raw(warehouse), warehouse.query("select * from ops.watermarks")) == before
    assert warehouse.query("select count(*) from ops.quarantine") == [(0,)]


def test_a_row_without_its_key_is_quarantined(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Shop(api, [order(n) for n in range(3)])
    shop.orders.append({**order(0), "id": None, "changed": "2024-03-01T00:00:00Z"})
    source = shop_source(reject_limit=0.5)
    shop.orders.sort(key=lambda o: o["changed"])
    api.answer = lambda _: Answer({"result": {"orders": shop.orders}})
    assert counts(load(source, api, destination)) == (4, 3, 0, 0, 0, 1)
    assert warehouse.query("select reason from ops.quarantine") == [("column id: the key is null",)]


def test_a_new_column_is_added_and_recorded(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Shop(api, [order(1)])
    load(shop_source(), api, destination)
    shop.orders.append(order(2, Coupon="X1", changed="2024-02-01T00:00:00Z"))
    report = load(shop_source(), api, destination)
    assert raw(warehouse, "id, coupon") == [(1, None), (2, "X1")]
    changes = warehouse.query("select column_name, change, to_type, load_id from ops.schema_changes")
    assert changes == [("coupon", "added", "text", report.load_id)]


def test_a_frozen_stream_refuses_a_new_column(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Shop(api, [order(1)])
    source = shop_source(contract=SchemaContract.FREEZE)
    load(source, api, destination)
    shop.orders.append(order(2, coupon="X1", changed="2024-02-01T00:00:00Z"))
    with pytest.raises(ContractViolationError, match="`coupon` is new. The stream's contract is `freeze`"):
        load(source, api, destination)
    assert raw(warehouse, "id") == [(1,)]


def test_integers_widen_to_numbers_and_never_lose_a_digit(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1, total=1)])
    load(shop_source(), api, destination)
    shop.orders.append(order(2, total=12345678901234567890123456789, changed="2024-02-01T00:00:00Z"))
    load(shop_source(), api, destination)
    assert raw(warehouse, "total::text") == [("1",), ("12345678901234567890123456789",)]
    assert warehouse.query("select change, from_type, to_type from ops.schema_changes") == [
        ("widened", "bigint", "numeric")
    ]


def test_a_column_that_views_read_widens_too_and_their_next_build_finds_it(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1, total=1)])
    load(shop_source(), api, destination)
    with warehouse.connect("transformer") as connection:
        connection.execute(
            "create schema staging; create view staging.orders as select id, total from raw_shop.orders;"
            "create table staging.sums as select sum(total) from staging.orders"
        )
    shop.orders.append(order(2, total=1.5, changed="2024-02-01T00:00:00Z"))
    shop.orders.append(order(12345678901234567890, total=2, changed="2024-02-01T00:00:00Z"))
    assert load(shop_source(), api, destination).inserted == 2
    assert raw(warehouse, "id::text, total::text") == [("1", "1"), ("12345678901234567890", "2"), ("2", "1.5")]
    with warehouse.connect("transformer") as connection:
        assert connection.execute("select to_regclass('staging.orders')").fetchone() == (None,)
        assert connection.execute("select count(*) from staging.sums").fetchone() == (1,), "a table stays"
        connection.execute("create view staging.orders as select id, total from raw_shop.orders")
    assert load(shop_source(), api, destination).inserted == 0, "the key still tells rows apart"


def test_an_html_page_is_not_data(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    api.answer = lambda _: Answer(b"<html><body>Log in</body></html>", headers={"Content-Type": "text/html"})
    with pytest.raises(MalformedResponseError, match="cannot be read.*it begins: <html>"):
        load(shop_source(), api, destination)
    assert warehouse.query("select manifest_key from ops.loads") == [(None,)]
