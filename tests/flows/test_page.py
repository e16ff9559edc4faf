"""The status page at the end of a run: made whatever became of it, once, and never the reason that a run fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from connectors.connections import EnvironmentConnections
from connectors.ingest import LANDING
from tasks.credentials import WAREHOUSE_WATCHER, register
from tasks.page import rebuild_page
from tests.conftest import Warehouse

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="inner", flow_run_name="inner", on_completion=[rebuild_page], persist_result=False)
def inner() -> None:
    """A flow within another."""


@flow(
    name="night",
    flow_run_name="night {number}",
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def night(number: int, fails: bool = False) -> int:
    inner()
    if fails:
        raise ValueError("a bad night")
    return number


def connected(warehouse: Warehouse, landing: Path) -> None:
    environment = EnvironmentConnections(
        {
            "HEADWATER_WAREHOUSE_WATCHER_URL": warehouse.url("watcher").render_as_string(hide_password=False),
            "HEADWATER_LANDING_URL": landing.as_uri(),
        }
    )
    register(environment, [WAREHOUSE_WATCHER, LANDING])


def made(landing: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((landing.parent / "page" / "status.json").read_bytes())
    return content


def test_a_run_leaves_a_page_whether_it_succeeds_or_fails(warehouse: Warehouse, landing_folder: Path) -> None:
    connected(warehouse, landing_folder)
    assert night(1) == 1
    assert made(landing_folder)["made_by"] == "flow run night 1", "the flow within it leaves it to the outer one"
    with pytest.raises(ValueError, match="a bad night"):
        night(2, fails=True)
    assert made(landing_folder)["made_by"] == "flow run night 2"


def test_a_page_that_cannot_be_made_is_no_trouble_of_the_run(
    warehouse: Warehouse, landing_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connected(warehouse, landing_folder)
    warehouse.execute("revoke select on serving.data_status from headwater_watcher")
    assert night(3) == 3
    assert not (landing_folder.parent / "page" / "status.json").exists()
    assert "The status page was not made anew" in caplog.text
