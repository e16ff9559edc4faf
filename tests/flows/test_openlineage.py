"""Events of OpenLineage, caught by a real HTTP server: what they say, and that no run suffers for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

import tasks.transform
from connectors.connections import EnvironmentConnections, Secret
from connectors.errors import DataError, HeadwaterError
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from connectors.model import Cursor
from connectors.privacy import Hashed
from connectors.registry import SOURCES
from flows.ingest import ingest
from flows.transform import transform
from tasks import openlineage
from tasks.credentials import WAREHOUSE_PUBLISHER, WAREHOUSE_TRANSFORMER, WAREHOUSE_WATCHER, register
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Prepare, database, erp
from tests.shop import GOOD, Shop

Event = dict[str, Any]
TABLE = """
create table t (id int primary key, email text, changed timestamptz not null);
insert into t select n, n || '@b.test', '2024-01-01Z' from generate_series(1, 5) n;
"""


@pytest.fixture
def catcher(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An endpoint that takes events, and an emitter that has seen no other."""
    before = dict(os.environ)
    api.answer = lambda _: Answer({}, 201)
    monkeypatch.setenv("OPENLINEAGE_URL", api.url)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "shop-floor")
    monkeypatch.setattr(openlineage, "EMITTER", openlineage.Emitter())
    monkeypatch.setattr(openlineage, "FLUSH_SECONDS", 60.0)  # the client is imported first, on a machine that is busy
    yield api
    # The client writes what it was told by one variable into others.
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE") and name not in before]:
        del os.environ[name]


@pytest.fixture
def source(
    source_database: Prepare, warehouse: Warehouse, landing_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> psycopg.Connection:
    """A table, registered as the source `erp`."""
    connection = source_database(TABLE)
    definition = erp(
        name="t", primary_key=("id",), cursor=Cursor("changed"), privacy={"email": Hashed(Secret("people_key"))}
    )
    monkeypatch.setitem(SOURCES, "erp", definition)
    url = database(connection, warehouse).database(definition.database).render_as_string(hide_password=False)
    values = {
        "HEADWATER_ERP_URL": url,
        "HEADWATER_PEOPLE_KEY": "a key of the tests that is long enough",
        "HEADWATER_WAREHOUSE_LOADER_URL": warehouse.url("loader").render_as_string(hide_password=False),
        "HEADWATER_LANDING_URL": landing_folder.as_uri(),
    }
    register(EnvironmentConnections(values), [*definition.requirements, WAREHOUSE_LOADER, LANDING])
    return connection


def events(catcher: Api) -> list[Event]:
    """Those that were caught, each checked against what the specification asks of every event."""
    found = [json.loads(request.body) for request in catcher.requests]
    for event in found:
        assert event["eventType"] in ("START", "COMPLETE", "FAIL")
        assert UUID(event["run"]["runId"])
        assert event["job"]["namespace"] == "shop-floor"
        assert event["schemaURL"].endswith("RunEvent")
        facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
        for dataset in [*event["inputs"], *event["outputs"]]:
            assert dataset["namespace"]
            assert dataset["name"]
            for kind in ("facets", "inputFacets", "outputFacets"):
                facets += dataset.get(kind, {}).values()
        assert all(facet["_producer"] and facet["_schemaURL"] for facet in facets)
    return found


@pytest.mark.usefixtures("prefect_server")
def test_a_load_tells_that_it_starts_and_what_it_has_made_of_what(
    source: psycopg.Connection, warehouse: Warehouse, catcher: Api
) -> None:
    [report] = ingest("erp")
    start, complete = events(catcher)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["job"]["name"] == complete["job"]["name"] == "erp.t"
    parent = complete["run"]["facets"]["parent"]["job"]
    assert (parent["namespace"], parent["name"]) == ("shop-floor", "ingest")
    [parameter] = complete["run"]["facets"]["executionParameters"]["parameters"]
    assert (parameter["key"], parameter["value"]) == ("load_id", str(report.load_id))

    server = f"postgres://{warehouse.server.url.host}:{warehouse.server.url.port}"
    [read] = complete["inputs"]
    assert (read["namespace"], read["name"]) == (server, f"{source.info.dbname}.public.t")
    [raw] = complete["outputs"]
    assert (raw["namespace"], raw["name"]) == (server, f"{warehouse.database}.raw_erp.t")
    assert raw["outputFacets"]["outputStatistics"]["rowCount"] == 5
    fields = [(each["name"], each["type"]) for each in raw["facets"]["schema"]["fields"]]
    assert fields[:3] == [("id", "integer"), ("email", "text"), ("changed", "timestamp with time zone")]
    lineage = raw["facets"]["columnLineage"]["fields"]
    assert lineage.keys() == {"id", "email", "changed"}
    [of_email] = lineage["email"]["inputFields"]
    assert (of_email["name"], of_email["field"]) == (read["name"], "email")
    assert [each["masking"] for each in of_email["transformations"]] == [True]

    source.execute("drop table t")
    with pytest.raises(HeadwaterError):
        ingest("erp")
    *_, failed = events(catcher)
    assert failed["eventType"] == "FAIL"
    assert failed["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.usefixtures("prefect_server")
def test_a_build_tells_of_each_model_and_of_its_tests(
    shop: Shop, catcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.transform, "DBT_PROJECT", shop.folder)
    monkeypatch.setattr(tasks.transform, "DBT_TARGET", shop.folder / "target")
    needed = (WAREHOUSE_TRANSFORMER, WAREHOUSE_PUBLISHER, WAREHOUSE_WATCHER)
    urls = {
        each.environment_variable: shop.warehouse.url(each.name.partition("_")[2]).render_as_string(hide_password=False)
        for each in needed
    }
    register(EnvironmentConnections(urls), needed)
    shop.warehouse.execute(GOOD + "update raw_shop.orders set total = null where id = 2")
    with pytest.raises(DataError):
        transform()
    found = events(catcher)
    by_job = {(event["job"]["name"], event["eventType"]): event for event in found}
    start, end = found[0], found[-1]
    assert (start["job"]["name"], start["eventType"], end["eventType"]) == ("dbt build", "START", "FAIL")
    assert "not_null_stg_orders_total" in end["run"]["facets"]["errorMessage"]["message"]
    staff = by_job["model.shop.dim_staff", "COMPLETE"]
    assert staff["run"]["facets"]["parent"]["run"]["runId"] == start["run"]["runId"]
    assert [each["name"] for each in staff["inputs"]] == [f"{shop.warehouse.database}.staging.stg_staff"]
    [made] = staff["outputs"]
    assert made["name"] == f"{shop.warehouse.database}.marts.dim_staff"
    assert [each["name"] for each in made["facets"]["schema"]["fields"]] == ["id", "name", "part"]
    assert by_job["model.shop.stg_staff", "START"]["inputs"][0]["name"].endswith(".raw_shop.staff")
    assert ("model.shop.fct_orders", "COMPLETE") not in by_job, "it was skipped"
    asserted = {
        assertion["assertion"]: assertion["success"]
        for dataset in end["inputs"]
        for assertion in dataset["inputFacets"]["dataQualityAssertions"]["assertions"]
    }
    assert asserted["not_null_stg_orders_total"] is False
    assert asserted["source_unique_shop_orders_id"] is True


@pytest.mark.usefixtures("prefect_server", "source")
@pytest.mark.parametrize("trouble", ["it answers 500", "it says nothing", "nobody is there"])
def test_a_load_ends_well_and_soon_whatever_the_endpoint_does(
    catcher: Api, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def slow(_: object) -> Answer:
        time.sleep(4)
        return Answer({})

    if trouble == "it answers 500":
        catcher.answer = lambda _: Answer({}, 500)
    elif trouble == "it says nothing":
        catcher.answer = slow
    else:
        monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(openlineage, "FLUSH_SECONDS", 0.5)
    begun = time.monotonic()
    [report] = ingest("erp")
    assert report.inserted == 5
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("prefect_server", "source")
def test_nothing_is_sent_unless_somebody_says_where_and_a_file_is_such_a_place(
    landing_folder: Path, catcher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert ingest("erp")[0].inserted == 5
    monkeypatch.delenv("OPENLINEAGE_DISABLED")
    monkeypatch.delenv("OPENLINEAGE_URL")
    assert not openlineage.is_on()
    assert ingest("erp")[0].inserted == 0
    assert catcher.requests == []
    file = landing_folder / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(file))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    assert ingest("erp")[0].inserted == 0
    assert [json.loads(line)["eventType"] for line in file.read_text().splitlines()] == ["START", "COMPLETE"]
