"""Loads that take a while show how far they are; others show nothing; and names tell which is which."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.expectations import expected_rows
from connectors.ingest import LANDING, WAREHOUSE_LOADER, Destination, ingest
from connectors.model import Cursor, Window
from connectors.postgres import PostgresSource
from connectors.registry import SOURCES
from flows.ingest import ingest as ingest_flow
from tasks import progress
from tasks.credentials import register
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.examples import Prepare, Shop, connections, database, erp, order, shop_source
from tests.waiting import until

ORDERS = [order(number, at=f"2024-01-{number % 28 + 1:02}T00:00:00Z") for number in range(60)]
WINDOW = ("2024-01-01", "2024-02-01")


class SlowShop(Shop):
    """It takes its time over each page."""

    def _answer(self, request: Request) -> Answer:
        time.sleep(0.15)
        return super()._answer(request)


def load(warehouse: Warehouse, landing: Path, api: Api, **parameters: Any) -> list[LoadReport]:
    """The flow."""
    source = shop_source()
    register(
        connections(
            api,
            HEADWATER_WAREHOUSE_LOADER_URL=warehouse.url("loader").render_as_string(hide_password=False),
            HEADWATER_LANDING_URL=landing.as_uri(),
        ),
        [*source.requirements, WAREHOUSE_LOADER, LANDING],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "shop", source)
        reports: list[LoadReport] = ingest_flow("shop", **parameters)
    return reports


def shown() -> list[tuple[float, str]]:
    """Progress of the shop's loads that artifacts show, the latest first."""
    with get_client(sync_client=True) as client:
        found = [each for each in client.read_artifacts() if each.key == "load-shop-orders"]
    found.sort(key=lambda each: str(each.created), reverse=True)
    return [(json.loads(str(each.data)), str(each.description)) for each in found]


@pytest.mark.usefixtures("prefect_server")
def test_a_long_load_shows_rows_rate_and_what_is_left_and_a_short_one_nothing(
    warehouse: Warehouse, landing_folder: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(api, ORDERS)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 60.0)  # on a machine that is busy, four are not long
    load(warehouse, landing_folder, api, start=WINDOW[0], end=WINDOW[1])
    assert shown() == [], "it was over before anybody could look"

    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.4)
    monkeypatch.setattr(progress, "UPDATE_SECONDS", 0.2)
    said: list[tuple[float, str]] = []
    update = progress.update_progress_artifact

    def heard(artifact: Any, percent: float, description: str) -> None:
        said.append((percent, description))
        update(artifact, percent, description)

    monkeypatch.setattr(progress, "update_progress_artifact", heard)
    SlowShop(api, ORDERS)
    load(warehouse, landing_folder, api, start=WINDOW[0], end=WINDOW[1])
    [(percent, description)] = shown()
    assert percent == 100
    assert re.fullmatch(r"shop\.orders 2024-01-01/02-01: 60 rows, \d+ a second, loaded in \d+ s", description), (
        description
    )
    under_way = [each for each in said if " left" in each[1]]
    assert under_way, said
    assert all(re.search(r": \d+ of about 60 rows, \d+ a second, about \d+ s left$", text) for _, text in under_way)
    assert all(0 < percent < 100 for percent, _ in under_way)
    with get_client(sync_client=True) as client:
        # Of this test: other tests have run flows on the same server.
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["ingest shop 2024-01-01/02-01"]))
        )
        within = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))

        def names() -> set[str]:
            return {each.name for each in client.read_task_runs(flow_run_filter=within)}

        until(names, "the server knows of the task runs, which it hears of by events", seconds=30)
        assert names() == {"ingest shop.orders 2024-01-01/02-01"}


@pytest.mark.usefixtures("prefect_server")
def test_a_load_ends_well_though_its_progress_cannot_be_shown(
    warehouse: Warehouse,
    landing_folder: Path,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.1)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the server is on holiday")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    SlowShop(api, ORDERS[:9])
    [report] = load(warehouse, landing_folder, api)
    assert report.inserted == 9
    assert "The progress of this load cannot be shown: the server is on holiday" in caplog.text


def test_what_is_expected_of_a_load_is_what_raw_has_or_the_source_estimates(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, at timestamptz, changed timestamptz);"
        "insert into t select n, '2024-01-01Z'::timestamptz + n * interval '1 hour', '2024-02-01Z'"
        " from generate_series(0, 239) n; analyze t"
    )
    source = erp(name="t", primary_key=("id",), cursor=Cursor("changed"), event_time="at")
    loader = {"HEADWATER_WAREHOUSE_LOADER_URL": warehouse.url("loader").render_as_string(hide_password=False)}
    url = database(connection, warehouse).database(source.database).render_as_string(hide_password=False)
    both = EnvironmentConnections({**loader, "HEADWATER_ERP_URL": url})

    def expected(source: PostgresSource, window: Window | None = None, *, is_full: bool = False) -> int | None:
        return expected_rows(source, source.streams[0], both, window=window, is_full=is_full)

    assert expected(source) == 240, "the first load: as PostgreSQL estimates"
    ingest(source, source.streams[0], both, destination)
    connection.execute("delete from t where id < 24; analyze t")
    assert expected(source) is None, "nobody knows what has changed"
    assert expected(source, is_full=True) == 240, "as the last load of all of it"
    assert expected(source, Window.parse("2024-01-01", "2024-01-03")) == 48, "as raw has them"
    beyond = expected(source, Window.parse("2030-01-01", "2030-01-02"))
    assert beyond is not None
    assert beyond < 24
