"""At the end of a run its incidents are written down: also if it failed, and never to its harm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from connectors.incidents.observe import observation
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from connectors.registry import SOURCES
from flows.ingest import ingest
from tasks.credentials import WAREHOUSE_WATCHER, register
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, erp


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_fails_opens_an_incident_the_next_good_one_closes_it_and_none_is_harmed_by_that(
    source_database: Prepare,
    warehouse: Warehouse,
    landing_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = source_database("create table t (id int primary key)")
    source = erp(name="t", primary_key=("id",))
    monkeypatch.setitem(SOURCES, "erp", source)
    urls = {f"HEADWATER_WAREHOUSE_{role.upper()}_URL": warehouse.url(role) for role in ("loader", "watcher")}
    urls["HEADWATER_ERP_URL"] = warehouse.server.url.set(database=connection.info.dbname)
    environment = EnvironmentConnections(
        {name: url.render_as_string(hide_password=False) for name, url in urls.items()}
        | {"HEADWATER_LANDING_URL": landing_folder.as_uri()}
    )
    register(environment, [*source.requirements, WAREHOUSE_LOADER, LANDING])
    ingest("erp")
    assert "What is wrong was not all written down, the next run does it: Prefect has no block" in caplog.text

    register(environment, [WAREHOUSE_WATCHER])
    connection.execute("drop table t")
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            ingest("erp")
    [(title, times, run)] = warehouse.query(
        "select i.title, i.times_seen, s.run_id from ops.incidents i join ops.signs s using (incident_id)"
    )
    assert (title, times) == ("Stream erp.t failed to load", 2)
    assert run.startswith("flow run ingest erp (")
    assert caplog.text.count("Incidents: #1 opened. `headwater incidents` lists what is open.") == 1

    connection.execute("create table t (id int primary key)")
    monkeypatch.setattr("tasks.incidents.DEADLINE_SECONDS", 1.0)
    with observation(warehouse.url("watcher")):
        started = time.monotonic()
        ingest("erp")
        assert time.monotonic() - started < 30
    assert "the next run does it: " in caplog.text.rpartition("#1 opened")[2]
    monkeypatch.undo()
    monkeypatch.setitem(SOURCES, "erp", source)
    ingest("erp")
    assert warehouse.query("select closed_as from ops.incidents") == [("recovered",)]
    assert "Incidents: #1 closed." in caplog.text
