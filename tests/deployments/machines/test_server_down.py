"""The Prefect server is away for ten minutes, in the middle of a run and when schedules are due: nothing is lost,
nothing is left out, nothing is done twice.

Twenty minutes or more, most of it waiting; HEADWATER_CHAOS_DOWN_SECONDS makes it shorter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.deployments.machines.site import Site, site, wait

pytestmark = pytest.mark.chaos

DOWN_SECONDS = float(os.environ.get("HEADWATER_CHAOS_DOWN_SECONDS", "600"))
AGAIN_SECONDS = 512 + 60
"""How long after its return the server hears of a run that has ended: the last of its attempts is so long apart."""
BRING_FLIGHTS = ("ingest/flights-api", "catch-up/nyc", "pipeline/nyc")
BACKFILL = {"mode": "all", "rows_at_once": 1, "at_once": 1, "build": False}
LOADED = "select count(*) from ops.backfill_windows join ops.backfills b using (backfill_id) where"
LOADED += " backfill_windows.state = 'loaded' and b.started_at = (select max(started_at) from ops.backfills)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("down") / "home", clock="2013-02-09T17:00:00") as found:
        found.pause(*BRING_FLIGHTS)
        yield found


def test_a_run_under_way_and_schedules_outlast_ten_minutes_without_a_server(place: Site) -> None:
    place.completed("backfill/nyc", source="flights_api", end="2013-02-09", **BACKFILL)
    [(windows,)] = place.query(LOADED)
    undisturbed = place.flights()
    place.forget_flights()
    every_minute = scheduled_each_minute(place)

    run = place.start("backfill/nyc", source="flights_api", end="2013-02-09", **BACKFILL)
    wait(lambda: 2 < place.query(LOADED)[0][0] < windows, "the run is under way", 300)
    place.kill_server()
    down = datetime.now(UTC)
    begun = time.monotonic()
    wait(lambda: place.query(LOADED) == [(windows,)], "it goes on without a server", DOWN_SECONDS)
    assert place.flights() == undisturbed
    time.sleep(max(0.0, DOWN_SECONDS - (time.monotonic() - begun)))
    place.stack.start_prefect_server()
    back = datetime.now(UTC)

    wait(lambda: place.state(run)["state_type"] == "COMPLETED", "the server hears of its end", AGAIN_SECONDS)
    assert place.flights() == undisturbed
    assert place.query("select count(*) from ops.loads where status <> 'loaded'") == [(0,)]
    assert "missing" not in place.run("windows", "flights_api.flights", "--end", "2013-02-09", "--state", "missing")

    missed = runs_due(place, every_minute, down, back)
    assert missed, "a schedule was due meanwhile"
    wait(lambda: not runs_due(place, every_minute, down, back, "SCHEDULED"), "each missed run is dealt with", 600)
    wait(lambda: not runs_due(place, every_minute, down, back, "PENDING", "RUNNING"), "and over", 180)
    done = [each["state_type"] for each in runs_due(place, every_minute, down, back)]
    assert set(done) <= {"COMPLETED", "CANCELLED"}
    assert done.count("COMPLETED") <= 1, "one run does the work of all that were missed"
    caught_up = f"select count(*) from ops.loads where source = 'operations_db' and started_at > '{back}'"
    assert place.query(caught_up)[0][0] >= 3, "each of its streams"


def scheduled_each_minute(place: Site) -> str:
    """A deployment that runs every minute from now on; its id."""
    found: dict[str, Any] = place.prefect("deployments/name/ingest/operations-db", method="GET")
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    schedule = {"schedule": {"interval": 60, "anchor_date": soon}, "active": True}
    place.prefect(f"deployments/{found['id']}/schedules", [schedule])
    # The hourly schedule has one of them.
    wait(lambda: len(runs_due(place, found["id"], datetime.now(UTC), None)) > 5, "the schedule makes runs", 150)
    return str(found["id"])


def runs_due(
    place: Site, deployment: str, after: datetime, before: datetime | None, *states: str
) -> list[dict[str, Any]]:
    """Runs of a schedule that were to begin between two instants, in some states or in any."""
    due = {"after_": after.isoformat()} | ({"before_": before.isoformat()} if before else {})
    runs: dict[str, Any] = {"expected_start_time": due} | ({"state": {"type": {"any_": states}}} if states else {})
    found = place.prefect(
        "flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": runs, "limit": 200}
    )
    return [each for each in found if each["auto_scheduled"]]
