"""Contracts that discard: raw keeps its columns, and what it cannot hold is left out, counted, or in quarantine."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, SchemaContract, WriteDisposition
from connectors.rebuild import rebuild
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    counts,
    drop,
    erp,
    load,
    load_table,
    order,
    raw,
    shop_source,
    weather,
)

LATER = "2024-02-01T00:00:00Z"
DISCARDS = [SchemaContract.DISCARD_VALUE, SchemaContract.DISCARD_ROW]


def discarded(warehouse: Warehouse) -> list[tuple[object, ...]]:
    return warehouse.query(
        "select column_name, change, from_type, to_type, rows_discarded from ops.schema_changes order by id"
    )


def reasons(warehouse: Warehouse) -> list[tuple[object, ...]]:
    return warehouse.query("select row_in_load, reason from ops.quarantine order by id")


def test_values_that_raw_has_no_place_for_are_left_out_and_counted(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(contract=SchemaContract.DISCARD_VALUE)
    shop = Shop(api, [order(1, total=1, paid=True)])
    load(source, api, destination)
    shop.orders += [
        order(2, total=2, paid=False, coupon="X", changed=LATER),
        order(3, total="many", paid="yes", coupon="Y", changed=LATER),
        order(4, total=4.5, coupon=None, empty=None, changed=LATER),
    ]
    report = load(source, api, destination)
    assert counts(report) == (4, 3, 0, 1, 0, 0)
    assert raw(warehouse, "id, total, paid") == [(1, 1, True), (2, 2, False), (3, None, None), (4, None, None)]
    assert discarded(warehouse) == [
        ("coupon", "discarded", None, "text", 2),
        ("total", "discarded", "bigint", "text", 2),
        ("paid", "discarded", "boolean", "text", 1),
    ]
    assert set(warehouse.query("select load_id from ops.schema_changes")) == {(report.load_id,)}
    shop.orders = [order(5, total=5, changed="2024-03-01T00:00:00Z")]
    load(source, api, destination)
    assert len(discarded(warehouse)) == 3, "a load that loses nothing says nothing"


def test_rows_that_raw_has_no_place_for_go_to_quarantine(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(contract=SchemaContract.DISCARD_ROW, reject_limit=0.6)
    shop = Shop(api, [order(1, total=1)])
    load(source, api, destination)
    shop.orders = [
        order(2, total=2, coupon="X", changed=LATER),
        order(3, total=3, coupon=None, changed=LATER),
        order(4, total=4.5, changed=LATER),
        order(5, total=5, changed=LATER),
    ]
    assert counts(load(source, api, destination)) == (4, 2, 0, 0, 0, 2)
    assert raw(warehouse, "id, total") == [(1, 1), (3, 3), (5, 5)]
    assert reasons(warehouse) == [
        (1, "column coupon: raw does not have it (contract `discard_row`)"),
        (3, 'column total: invalid input syntax for type bigint: "4.5"'),
    ]
    assert discarded(warehouse) == []


def test_discarded_rows_count_against_the_reject_limit(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(contract=SchemaContract.DISCARD_ROW)
    shop = Shop(api, [order(1)])
    load(source, api, destination)
    shop.orders.append(order(2, coupon="X", changed=LATER))
    with pytest.raises(ContractViolationError, match="column coupon: raw does not have it"):
        load(source, api, destination)
    assert raw(warehouse, "id") == [(1,)]


def test_a_key_or_cursor_is_never_discarded(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    source = shop_source(contract=SchemaContract.DISCARD_VALUE, reject_limit=0.8)
    shop = Shop(api, [order(1)])
    load(source, api, destination)
    shop.orders = [order(2, changed=LATER), {**order(3, changed="noon")}, {**order(4, changed=LATER), "id": "four"}]
    shop.page = 10
    api.answer = lambda request: _answer_all(shop)
    assert counts(load(source, api, destination)) == (3, 1, 0, 0, 0, 2)
    assert raw(warehouse, "id") == [(1,), (2,)]
    assert reasons(warehouse) == [
        (2, 'column changed: invalid input syntax for type timestamp with time zone: "noon"'),
        (3, 'column id: invalid input syntax for type bigint: "four"'),
    ]
    assert discarded(warehouse) == []


def _answer_all(shop: Shop) -> Answer:
    return Answer({"result": {"orders": shop.orders}})


def test_a_cursor_that_raw_lacks_is_named(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    load(shop_source(), api, destination)
    Shop(api, [order(2, seen=LATER)])
    source = shop_source(contract=SchemaContract.DISCARD_VALUE, cursor=Cursor("seen"))
    with pytest.raises(ContractViolationError, match="Raw has no column seen, and the contract `discard_value` adds"):
        load(source, api, destination)


@pytest.mark.parametrize("contract", DISCARDS)
def test_files_are_judged_value_by_value(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, contract: SchemaContract
) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, contract=contract, reject_limit=0.7)
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1.5\n"})
    ingest(source, source.streams[0], where, destination)
    lines = ["EWR,2013-01-02T00:00Z,warm,", "JFK,2013-01-02T00:00Z,2,dry", "LGA,2013-01-02T00:00Z,3,NA"]
    drop(folder, {"weather-2013-01-02.csv": "\n".join(["station,hour,temp,note", *lines, ""])})
    report = ingest(source, source.streams[0], where, destination)[-1]
    found = raw(warehouse, "station, temp::float", "raw_met.weather where hour > '2013-01-01T12:00Z'")
    if contract is SchemaContract.DISCARD_VALUE:
        assert counts(report) == (3, 3, 0, 0, 0, 0)
        assert found == [("EWR", None), ("JFK", 2), ("LGA", 3)]
        assert discarded(warehouse) == [
            ("note", "discarded", None, "text", 1),
            ("temp", "discarded", "numeric", None, 1),
        ]
    else:
        assert counts(report) == (3, 1, 0, 0, 0, 2)
        assert found == [("LGA", 3)]
        assert [row for row, _ in reasons(warehouse)] == [1, 2]


@pytest.mark.parametrize("contract", DISCARDS)
def test_a_table_whose_types_changed_is_judged_value_by_value(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, contract: SchemaContract
) -> None:
    connection = source_database(
        "create table t (id int primary key, n int, d date, s varchar(3), gone text);"
        "insert into t values (1, 1, '2024-01-01', 'abc', 'x')"
    )
    source = erp(name="t", primary_key=("id",), contract=contract, reject_limit=0.9)
    load_table(source, connection, warehouse, destination)
    connection.execute(
        "alter table t alter id type bigint, alter n type text, alter d type timestamptz using d::timestamptz,"
        " alter s type text, drop gone, add extra int;"
        "insert into t values (2, '2', '2024-01-02Z', 'ab', null), (3, 'three', '2024-01-03 10:00Z', 'long', 7),"
        " (4000000000, '4', null, null, null)"
    )
    report = load_table(source, connection, warehouse, destination)
    found = raw(warehouse, "id, n, d::text, s, gone", "raw_erp.t")
    if contract is SchemaContract.DISCARD_VALUE:
        assert counts(report) == (4, 2, 1, 0, 0, 1), "the key that no longer fits is in quarantine"
        assert found == [
            (1, 1, "2024-01-01", "abc", None),
            (2, 2, "2024-01-02", "ab", None),
            (3, None, None, None, None),
        ]
        assert discarded(warehouse) == [
            ("gone", "removed", "text", None, None),
            ("extra", "discarded", None, "integer", 1),
            ("n", "discarded", "integer", "text", 1),
            ("d", "discarded", "date", "timestamp with time zone", 1),
            ("s", "discarded", "character varying(3)", "text", 1),
        ]
    else:
        assert counts(report) == (4, 1, 1, 0, 0, 2)
        assert [row[0] for row in found] == [1, 2]
        assert discarded(warehouse) == [("gone", "removed", "text", None, None)]
    assert warehouse.query("select row_in_load, reason from ops.quarantine where row_in_load = 4") == [
        (4, 'column id: value "4000000000" is out of range for type integer')
    ]
    types = warehouse.query(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'raw_erp.t'::regclass and attnum > 0 and not attisdropped and attname not like '\\_%'"
    )
    assert dict(types) == {
        "id": "integer",
        "n": "integer",
        "d": "date",
        "s": "character varying(3)",
        "gone": "text",
    }


@pytest.mark.parametrize("contract", DISCARDS)
@pytest.mark.parametrize("write", list(WriteDisposition))
def test_every_disposition_discards(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    contract: SchemaContract,
    write: WriteDisposition,
) -> None:
    connection = source_database("create table t (id int primary key, n int); insert into t values (1, 1)")
    source = erp(name="t", primary_key=("id",), write=write, contract=contract, reject_limit=0.5)
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t alter n type text, alter id type text; insert into t values (2, '2'), (3, 'x')")
    report = load_table(source, connection, warehouse, destination)
    assert report.extracted == 3
    expected = [(1, 1), (2, 2), (3, None)] if contract is SchemaContract.DISCARD_VALUE else [(1, 1), (2, 2)]
    assert raw(warehouse, "id, n", "raw_erp.t") == expected


@pytest.mark.parametrize("contract", DISCARDS)
def test_a_rebuild_comes_out_the_same_and_records_nothing(
    api: Api, warehouse: Warehouse, destination: Destination, contract: SchemaContract
) -> None:
    source = shop_source(contract=contract, reject_limit=0.6)
    shop = Shop(api, [order(1, total=1, paid=True)])
    load(source, api, destination)
    shop.orders += [
        order(2, total=2, coupon="X", changed=LATER),
        order(3, total="many", changed=LATER),
        order(4, total=4, changed=LATER),
    ]
    load(source, api, destination)
    ledger = "select * from ops.schema_changes", "select * from ops.quarantine", "select * from ops.loads"
    before = raw(warehouse), [warehouse.query(each) for each in ledger]
    rebuild(source, source.streams[0], destination)
    assert (raw(warehouse), [warehouse.query(each) for each in ledger]) == before
    warehouse.execute("drop table raw_shop.orders")
    rebuild(source, source.streams[0], destination)
    assert (raw(warehouse), [warehouse.query(each) for each in ledger]) == before
