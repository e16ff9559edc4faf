"""A stream's whole walk, source → landing → raw, with everything real: what is loaded, what is not, what is kept."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse import commit as commit_module
from connectors.destinations.warehouse.ledger import Lease, LoadReport
from connectors.errors import (
    ConfigurationError,
    ContractViolationError,
    DestinationUnavailableError,
    FencedError,
    HeadwaterError,
    MalformedResponseError,
    SourceUnavailableError,
    StreamBusyError,
    WindowError,
)
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, SchemaContract, Window, WriteDisposition
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    connections,
    counts,
    drop,
    erp,
    load,
    load_table,
    loads,
    order,
    raw,
    shop_source,
    weather,
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


def test_the_second_load_asks_only_for_changes_and_writes_only_differences(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1, total=1), order(2, total=2, changed="2024-01-02T00:00:00Z")])
    first = load(shop_source(), api, destination)
    assert first.watermark == "2024-01-02 00:00:00+00"
    before = raw(warehouse, "id, _load_id, _loaded_at")
    shop.orders += [order(3, total=3, changed="2024-01-03T00:00:00Z")]
    shop.orders[0] = order(1, total=10, changed="2024-01-04T00:00:00Z")
    second = load(shop_source(), api, destination)
    assert api.requests[-1].parameters["since"] == "2024-01-02T00:00:00Z"
    assert counts(second) == (3, 1, 1, 1, 0, 0)
    after = raw(warehouse, "id, _load_id, _loaded_at")
    assert after[1] == before[1], "a row that did not change keeps its load"
    assert [row[1] == second.load_id for row in after] == [True, False, True]
    assert raw(warehouse, "id, total") == [(1, 10), (2, 2), (3, 3)]


def test_nothing_new_moves_nothing(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    load(shop_source(), api, destination)
    before = raw(warehouse)
    assert load(shop_source(), api, destination).moved == 0
    assert raw(warehouse) == before


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


def test_a_window_is_read_again_and_leaves_the_watermark_alone(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1), order(2, changed="2024-05-01T00:00:00Z")])
    load(shop_source(), api, destination)
    before = warehouse.query("select * from ops.watermarks")
    shop.orders += [order(3, changed="2024-09-01T00:00:00Z"), order(4, at="2024-03-01T00:00:00Z")]
    report = load(shop_source(), api, destination, window=Window.parse("2024-01-01", "2024-01-02"))
    assert counts(report) == (3, 1, 0, 2, 0, 0)
    assert warehouse.query("select * from ops.watermarks") == before
    assert api.requests[-1].parameters["from"] == "2024-01-01T00:00:00Z"
    windows = "select window_start::date::text, window_end::date::text from ops.loads where window_start is not null"
    assert warehouse.query(windows) == [("2024-01-01", "2024-01-02")]


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


def test_a_load_that_was_refused_is_read_anew_once_the_source_is_put_right(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1), order(2, at="noon")])
    for _ in range(2):
        with pytest.raises(ContractViolationError, match="1 of 2 rows break the contract"):
            load(shop_source(), api, destination)
    shop.orders[1] = order(2)
    assert counts(load(shop_source(), api, destination)) == (2, 2, 0, 0, 0, 0)
    assert [status for status, _ in loads(warehouse)] == ["failed", "failed", "loaded"]


def test_a_load_that_was_refused_is_taken_from_the_landing_once_the_definition_is_put_right(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1), order(2, at="noon")])
    with pytest.raises(ContractViolationError):
        load(shop_source(), api, destination)
    asked = len(api.requests)
    corrected = shop_source(columns={"changed": "timestamptz"})
    ingest(corrected, corrected.streams[0], connections(api), destination)
    assert raw(warehouse, "id, at") == [(1, "2024-01-01T00:00:00Z"), (2, "noon")]
    assert len(api.requests) == asked + 1, "only for what came after"


def test_a_row_without_its_key_is_quarantined(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    shop = Shop(api, [order(n) for n in range(3)])
    shop.orders.append({**order(0), "id": None, "changed": "2024-03-01T00:00:00Z"})
    source = shop_source(reject_limit=0.5)
    shop.orders.sort(key=lambda o: o["changed"])
    api.answer = lambda _: Answer({"result": {"orders": shop.orders}})
    assert counts(load(source, api, destination)) == (4, 3, 0, 0, 0, 1)
    assert warehouse.query("select reason from ops.quarantine") == [("column id: the key is null",)]


def test_a_key_that_no_row_has_is_refused(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    with pytest.raises(ContractViolationError, match="No row has a value in number"):
        load(shop_source(primary_key=("number",)), api, destination)
    assert warehouse.query("select to_regclass('raw_shop.orders')") == [(None,)]


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


def test_a_load_that_landed_is_finished_from_the_landing_without_asking_the_source(
    api: Api, warehouse: Warehouse, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(api, [order(1), order(2)])

    def die(*_: object) -> None:
        raise RuntimeError("killed before the commit")

    with monkeypatch.context() as patch:
        patch.setattr("connectors.ingest.commit", die)
        with pytest.raises(RuntimeError, match="killed"):
            load(shop_source(), api, destination)
    assert loads(warehouse) == [("landed", 1)]
    asked = len(api.requests)
    shop.orders = []
    reports = ingest(shop_source(), shop_source().streams[0], connections(api), destination)
    assert [counts(report)[:2] for report in reports] == [(2, 2), (0, 0)]
    assert len(api.requests) == asked + 1, "one question, for what came after the landed load"
    assert raw(warehouse, "id") == [(1,), (2,)]
    assert loads(warehouse) == [("loaded", 2), ("loaded", 1)]


def test_a_landed_load_whose_object_was_damaged_is_extracted_again(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(api, [order(1), order(2)])
    with monkeypatch.context() as patch:
        patch.setattr("connectors.ingest.commit", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            load(shop_source(), api, destination)
    [landed] = landing_folder.rglob("*.jsonl.zst")
    landed.write_bytes(landed.read_bytes()[:-3])
    assert counts(load(shop_source(), api, destination)) == (2, 2, 0, 0, 0, 0)
    statuses = warehouse.query("select status, error from ops.loads order by started_at")
    assert statuses[0][0] == "failed"
    assert str(landed.relative_to(landing_folder)) in statuses[0][1]
    assert statuses[1][0] == "loaded"


def test_a_failed_extraction_leaves_no_row_and_its_retry_is_the_same_load(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(n) for n in range(9)])
    answer = api.answer
    api.answer = lambda request: Answer({}, 500) if request.parameters.get("after") == "6" else answer(request)
    with pytest.raises(SourceUnavailableError, match="answered 500"):
        load(shop_source(), api, destination)
    assert warehouse.query("select to_regclass('raw_shop.orders')") == [(None,)]
    assert loads(warehouse) == [("failed", 1)]
    api.answer = shop._answer
    assert load(shop_source(), api, destination).inserted == 9
    assert loads(warehouse) == [("loaded", 2)]
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]


def test_errors_say_where_and_the_ledger_keeps_them(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    bad_key = EnvironmentConnections({"HEADWATER_SHOP_URL": api.url, "HEADWATER_SHOP_KEY": "guess-me"})
    source = shop_source()
    with pytest.raises(ConfigurationError) as caught:
        ingest(source, source.streams[0], bad_key, destination)
    message = str(caught.value)
    [(load_id, error)] = warehouse.query("select load_id, error from ops.loads")
    assert message == error
    for part in ("401", "The credentials were refused", "source shop", "stream orders", str(load_id), "Check the key"):
        assert part in message
    assert "guess-me" not in message, "the API repeated the key, and we must not"


def test_an_html_page_is_not_data(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    api.answer = lambda _: Answer(b"<html><body>Log in</body></html>", headers={"Content-Type": "text/html"})
    with pytest.raises(MalformedResponseError, match="cannot be read.*it begins: <html>"):
        load(shop_source(), api, destination)
    assert warehouse.query("select manifest_key from ops.loads") == [(None,)]


def test_a_run_that_lost_its_lease_commits_nothing(
    api: Api, warehouse: Warehouse, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(api, [order(1, total=1)])
    original = commit_module.commit

    def overtaken(*arguments: Any) -> LoadReport:
        warehouse.execute("update ops.streams set epoch = epoch + 1, holder = 'a successor'")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("connectors.ingest.commit", overtaken)
        with pytest.raises(FencedError, match="lost the stream.*now held by a successor.*committed nothing"):
            load(shop_source(), api, destination)
    assert warehouse.query("select to_regclass('raw_shop.orders')") == [(None,)]
    assert warehouse.query("select count(*) from ops.watermarks") == [(0,)]


def test_runs_of_one_stream_take_turns(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(n) for n in range(50)])
    reports: list[LoadReport | HeadwaterError] = []

    def work() -> None:
        try:
            reports.append(load(shop_source(), api, destination))
        except HeadwaterError as error:
            reports.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(report, LoadReport) for report in reports), reports
    assert sum(report.inserted for report in reports if isinstance(report, LoadReport)) == 50
    assert len(raw(warehouse)) == 50


def test_a_stream_that_stays_busy_is_said_to_be_and_by_whom(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1)])
    with (
        Lease(warehouse.url("loader"), "shop", "orders", "somebody else"),
        pytest.raises(StreamBusyError, match="somebody else.*is working on the stream; waited 0 s.*stream orders"),
    ):
        load(shop_source(), api, destination, wait_seconds=0.2)


def test_a_stream_without_event_time_cannot_be_read_by_window(api: Api, destination: Destination) -> None:
    source = shop_source(event_time=None, window_parameters=None)
    with pytest.raises(WindowError, match="no event time"):
        load(source, api, destination, window=Window.parse("2024-01-01", "2024-01-02"))


def test_an_unreachable_warehouse_is_one_clear_error(api: Api, destination: Destination) -> None:
    nowhere = Destination(destination.warehouse.set(port=1), destination.landing)
    with pytest.raises(DestinationUnavailableError, match="127.0.0.1:1/.* cannot be reached") as caught:
        load(shop_source(), api, nowhere)
    assert "test-only" not in str(caught.value)


def test_an_unreachable_api_is_one_clear_error(destination: Destination) -> None:
    source = shop_source()
    nowhere = EnvironmentConnections({"HEADWATER_SHOP_URL": "http://127.0.0.1:1", "HEADWATER_SHOP_KEY": "x"})
    with pytest.raises(SourceUnavailableError, match="http://127.0.0.1:1 did not answer.*source shop, stream orders"):
        ingest(source, source.streams[0], nowhere, destination)


def test_a_missing_setting_is_named(destination: Destination) -> None:
    source = shop_source()
    with pytest.raises(ConfigurationError, match="secret `shop_key` is not set. .*Set HEADWATER_SHOP_KEY"):
        ingest(source, source.streams[0], EnvironmentConnections({"HEADWATER_SHOP_URL": "http://x"}), destination)


def test_a_table_arrives_with_its_types_bit_for_bit(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        """
        create type mood as enum ('fine', 'Not So "Fine"');
        create domain positive as integer check (value > 0);
        create table things (
            id bigint primary key, n numeric, n2 numeric(12, 3), d double precision, t text, v varchar(7), b bytea,
            u uuid, ts timestamptz, dt date, i interval, j json, jb jsonb, a text[], aa integer[][], r int4range,
            m mood, p positive, net inet, bits bit(3), "Strange Name" boolean
        );
        insert into things values
        (1, 'NaN', 1.500, '-Infinity', E'tab\\t "quotes" \\\\ and \\n', '', '\\x00ff', gen_random_uuid(), 'infinity',
         '-infinity', '1 mon -2 days 03:04:05.678', '{"a": 1, "a": 2}', '{"k": [1, 2.50]}', array['x', null, ''],
         '{{1,2},{3,4}}', '[1,5)', 'Not So "Fine"', 7, '10.0.0.1/8', b'101', true),
        (2, repeat('9', 5000)::numeric, null, 'NaN', null, null, null, null, null, null, null, null, null, null,
         null, null, null, null, null, null, null);
        """
    )
    report = load_table(erp(name="things", primary_key=("id",)), connection, warehouse, destination)
    assert report.inserted == 2
    columns = "id, n, n2, d, t, v, b, u, ts, dt, i, j, jb, a, aa, r, m, p, net, bits"
    as_text = ", ".join(f"{name}::text" for name in columns.split(", "))
    there = connection.execute(f'select {as_text}, "Strange Name" from things order by id'.encode()).fetchall()
    assert raw(warehouse, f"{as_text}, strange_name", "raw_erp.things") == there
    types = dict(
        warehouse.query(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'raw_erp.things'::regclass and attnum > 0"
        )
    )
    assert types["n2"] == "numeric(12,3)"
    assert types["aa"] == "integer[]"
    assert types["m"] == types["p"] == "text", "an enum and a domain have no twin here"


def test_a_table_is_read_incrementally_and_its_rows_updated(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table planes (tail text primary key, seats integer, changed timestamptz);"
        "insert into planes values ('a', 1, '2024-01-01Z'), ('b', 2, '2024-01-02Z'), ('c', 3, null)"
    )
    source = erp(name="planes", primary_key=("tail",), cursor=Cursor("changed"))
    assert counts(load_table(source, connection, warehouse, destination)) == (3, 3, 0, 0, 0, 0)
    connection.execute("update planes set seats = 20, changed = '2024-01-03Z' where tail = 'b'")
    connection.execute("update planes set seats = 30 where tail = 'c'")
    connection.execute("insert into planes values ('d', 4, '2024-01-02Z')")
    report = load_table(source, connection, warehouse, destination)
    assert counts(report) == (3, 1, 2, 0, 0, 0), "b changed, c has no cursor and changed, d shares the watermark"
    assert raw(warehouse, "tail, seats", "raw_erp.planes") == [("a", 1), ("b", 20), ("c", 30), ("d", 4)]


def test_a_replaced_table_loses_what_the_source_lost(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table airlines (carrier text primary key, name text);"
        "insert into airlines values ('AA', 'American'), ('UA', 'United')"
    )
    source = erp(name="airlines", primary_key=("carrier",), write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    before = raw(warehouse, "*", "raw_erp.airlines")
    assert load_table(source, connection, warehouse, destination).moved == 0
    assert raw(warehouse, "*", "raw_erp.airlines") == before, "an unchanged table is not written again"
    connection.execute("delete from airlines where carrier = 'AA'; insert into airlines values ('B6', 'JetBlue')")
    report = load_table(source, connection, warehouse, destination)
    assert (report.inserted, report.deleted, report.unchanged) == (1, 1, 1)
    assert raw(warehouse, "carrier", "raw_erp.airlines") == [("B6",), ("UA",)]


def test_a_replaced_table_that_is_suddenly_empty_is_not_believed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int primary key); insert into t values (1)")
    source = erp(name="t", primary_key=("id",), write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    connection.execute("delete from t")
    with pytest.raises(ContractViolationError, match="no rows any more"):
        load_table(source, connection, warehouse, destination)
    assert len(raw(warehouse, "*", "raw_erp.t")) == 1


def test_a_source_column_that_widens_is_followed_and_one_that_changes_kind_is_not(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, n int, s varchar(3)); insert into t values (1, 1)"
    )
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t alter n type bigint, alter s type varchar(9), add extra date")
    connection.execute("insert into t values (2, 3000000000, 'longer', '2024-01-01')")
    assert load_table(source, connection, warehouse, destination).inserted == 1
    changes = warehouse.query("select column_name, change, to_type from ops.schema_changes order by id")
    assert changes == [
        ("n", "widened", "bigint"),
        ("s", "widened", "character varying(9)"),
        ("extra", "added", "date"),
    ]
    connection.execute("alter table t alter n type text")
    with pytest.raises(ContractViolationError, match="changed `n` from bigint to text, and raw cannot follow"):
        load_table(source, connection, warehouse, destination)


def test_a_table_s_column_is_not_squeezed_into_a_narrower_declared_type(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, n numeric(9, 4)); insert into t values (1, 1.2345)"
    )
    with pytest.raises(ContractViolationError, match=r"declared as numeric\(9,2\), and the source's numeric\(9,4\)"):
        load_table(
            erp(name="t", primary_key=("id",), columns={"n": "numeric(9,2)"}), connection, warehouse, destination
        )
    wider = erp(name="t", primary_key=("id",), columns={"n": "numeric(12,4)", "id": "bigint"})
    load_table(wider, connection, warehouse, destination)
    assert raw(warehouse, "id, n::text, pg_typeof(id)::text", "raw_erp.t") == [(1, "1.2345", "bigint")]


def test_an_appended_event_is_there_once_and_stays_as_it_came(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table events (id int primary key, what text, at timestamptz);"
        "insert into events values (1, 'a', '2024-01-01Z'), (2, 'b', '2024-01-02Z')"
    )
    source = erp(name="events", primary_key=("id",), write=WriteDisposition.APPEND, cursor=Cursor("at"))
    load_table(source, connection, warehouse, destination)
    connection.execute("insert into events values (3, 'c', '2024-01-02Z'); update events set what = 'x' where id = 2")
    assert counts(load_table(source, connection, warehouse, destination)) == (2, 1, 0, 1, 0, 0)
    assert raw(warehouse, "id, what", "raw_erp.events") == [(1, "a"), (2, "b"), (3, "c")]


def test_an_appended_stream_gets_each_load_once(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table events (what text); insert into events values ('a'), ('a')")
    source = erp(name="events", write=WriteDisposition.APPEND)
    assert load_table(source, connection, warehouse, destination).inserted == 2
    assert raw(warehouse, "what", "raw_erp.events") == [("a",), ("a",)]


def test_a_missing_table_or_column_is_named(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int primary key)")
    with pytest.raises(ConfigurationError, match='no table "public"."trains"'):
        load_table(erp(name="trains", primary_key=("id",)), connection, warehouse, destination)
    with pytest.raises(ConfigurationError, match="no column changed"):
        load_table(erp(name="t", primary_key=("id",), cursor=Cursor("changed")), connection, warehouse, destination)


def test_a_refused_password_is_said_without_saying_it(warehouse: Warehouse, destination: Destination) -> None:
    url = warehouse.server.url.set(password="not-the-one").render_as_string(hide_password=False)
    source = erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="refused the connection") as caught:
        ingest(source, source.streams[0], EnvironmentConnections({"HEADWATER_ERP_URL": url}), destination)
    assert "not-the-one" not in str(caught.value)


def test_files_are_read_once_and_again_only_when_they_change(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    one = 'station,hour,temp,note\nEWR,2013-01-01T00:00Z,1.50,"a, ""b""\nc"\nJFK,2013-01-01T00:00Z,NA,\n'
    drop(folder, {"weather-2013-01-01.csv": one, "other.csv": "x\n1\n", "weather-2013-01-02.csv.part": "half"})
    source, where = weather(folder)
    stream = source.streams[0]
    assert counts(ingest(source, stream, where, destination)[-1]) == (2, 2, 0, 0, 0, 0)
    assert raw(warehouse, "station, temp::text, note", "raw_met.weather") == [
        ("EWR", "1.50", 'a, "b"\nc'),
        ("JFK", None, None),
    ]
    assert ingest(source, stream, where, destination)[-1].extracted == 0
    drop(folder, {"weather-2013-01-01.csv": one.replace("1.50", "2.75")})
    drop(folder, {"weather-2013-01-02.csv": "station,hour,temp\nEWR,2013-01-02T00:00Z,3\n"})
    assert counts(ingest(source, stream, where, destination)[-1]) == (3, 1, 1, 1, 0, 0)
    assert raw(warehouse, "count(*), min(temp)::text", "raw_met.weather") == [(3, "2.75")]


def test_a_window_reads_the_files_of_its_days(tmp_path: Path, destination: Destination) -> None:
    folder = tmp_path / "files"
    days = [f"2013-01-{day:02}" for day in range(1, 11)]
    drop(folder, {f"weather-{day}.csv": f"station,hour,temp\nEWR,{day}T12:00Z,1\n" for day in days})
    source, where = weather(folder)
    ingest(source, source.streams[0], where, destination)
    window = Window.parse("2013-01-05", "2013-01-06")
    report = ingest(source, source.streams[0], where, destination, window=window)[-1]
    assert report.extracted == 3, "the day, and the two whose local day may reach into it"
    assert report.unchanged == 3


def test_a_ragged_record_is_quarantined_and_a_broken_file_is_refused(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, reject_limit=0.5)
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1\nJFK,2013-01-01T00:00Z\n"})
    assert counts(ingest(source, source.streams[0], where, destination)[-1]) == (2, 1, 0, 0, 0, 1)
    [(reason,)] = warehouse.query("select reason from ops.quarantine")
    assert reason == "weather-2013-01-01.csv, record 3: 2 values under 3 columns"
    (folder / "weather-2013-01-02.csv").write_bytes(b"station,hour,temp\nEWR,2013-01-02T00:00Z,\xff\n")
    with pytest.raises(MalformedResponseError, match="weather-2013-01-02.csv is not UTF-8"):
        ingest(source, source.streams[0], where, destination)
    assert len(raw(warehouse, "*", "raw_met.weather")) == 1


def test_the_landing_holds_files_byte_for_byte(tmp_path: Path, destination: Destination, landing_folder: Path) -> None:
    import zstandard  # only here

    folder = tmp_path / "files"
    text = 'station,hour,temp\r\n"E\nWR",2013-01-01T00:00Z,1\r\n'
    drop(folder, {"weather-2013-01-01.csv": text})
    source, where = weather(folder)
    ingest(source, source.streams[0], where, destination)
    [landed] = landing_folder.rglob("*.csv.zst")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(landed.read_bytes()) == text.encode()
    [manifest] = landing_folder.rglob("manifest.json")
    content = json.loads(manifest.read_bytes())
    assert content["objects"][0]["file"] == "weather-2013-01-01.csv"
    assert content["rows"] == content["objects"][0]["rows"] == 1


def test_a_missing_folder_is_named(tmp_path: Path, destination: Destination) -> None:
    source, where = weather(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="nowhere does not exist"):
        ingest(source, source.streams[0], where, destination)
