"""The walk of a load, source → landing → raw: taking turns, resuming, refusing, and what the ledger says of it."""

from __future__ import annotations

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
    SourceUnavailableError,
    StreamBusyError,
    WindowError,
)
from connectors.ingest import Destination, ingest
from connectors.model import Window
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import (
    Shop,
    connections,
    counts,
    load,
    loads,
    order,
    raw,
    shop_source,
)


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


def test_a_row_that_changes_again_within_its_instant_is_followed(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Shop(api, [order(1, total=1), order(2, total=1)])
    load(shop_source(), api, destination)
    shop.orders[0]["total"] = 2
    assert counts(load(shop_source(), api, destination)) == (2, 0, 1, 1, 0, 0)
    assert raw(warehouse, "id, total") == [(1, 2), (2, 1)]


def test_nothing_new_moves_nothing(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    load(shop_source(), api, destination)
    before = raw(warehouse)
    assert load(shop_source(), api, destination).moved == 0
    assert raw(warehouse) == before


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


def test_a_key_that_no_row_has_is_refused(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1)])
    with pytest.raises(ContractViolationError, match="No row has a value in number"):
        load(shop_source(primary_key=("number",)), api, destination)
    assert warehouse.query("select to_regclass('raw_shop.orders')") == [(None,)]


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
