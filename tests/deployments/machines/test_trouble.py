"""Trouble on a whole stack that is real in every part: each is told of within the time that docs/watching.md states,
once, and once when it is over. The watcher is the stack's own, with its usual round of a minute.

It takes some forty minutes, most of it waiting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from deployments.demo import clock, systems
from tests.deployments.machines.site import Site, is_over, site, wait

pytestmark = pytest.mark.chaos

MINUTE = 60.0
SLACK_SECONDS = float(os.environ.get("HEADWATER_CHAOS_SLACK_SECONDS", "600"))
"""For how long Slack answers 500."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("trouble") / "home", clock="2013-01-12T17:00:00") as found:
        found.completed("pipeline/nyc")
        assert found.quiet() == [], "nothing is wrong at first"
        yield found


@pytest.fixture(autouse=True)
def _both_channels_hear_the_same(place: Site) -> Iterator[None]:
    yield
    assert [body["text"] for body in place.slack.taken] == [body["subject"] for body in place.hook.taken]


def once_and_over(place: Site, *troubles: str | tuple[str, ...]) -> None:
    """Each trouble was told when it began and when it was over, and there was no other.

    Args:
        troubles: what each was told by; several, where it may go by another sign of it when it is over.
    """
    names = [(trouble,) if isinstance(trouble, str) else trouble for trouble in troubles]
    wait(
        lambda: len([each for each in place.subjects() if is_over(each)]) >= len(names), "that it is over is told", 600
    )
    subjects = place.quiet()
    for told in (True, False):
        found = [subject for subject in subjects if is_over(subject) is told]
        assert len(found) == len(names), subjects
        assert all(any(name in subject for subject in found for name in each) for each in names), subjects


def test_a_killed_server_is_told_of_once_and_that_it_is_back_once(place: Site) -> None:
    place.kill_server()
    place.told("The Prefect server does not answer", within=3 * MINUTE)
    time.sleep(2 * MINUTE)  # two more rounds find the same
    place.stack.start_prefect_server()
    once_and_over(place, "The Prefect server does not answer")


def test_a_killed_database_is_told_of_past_the_outbox_that_is_in_it(place: Site) -> None:
    """The local stack has the warehouse and Prefect's own database on one server: it is one trouble all the same."""
    os.kill(place.pid("postgres"), 9)
    place.told("The warehouse does not answer", within=3 * MINUTE)
    time.sleep(2 * MINUTE)
    place.stack.start_postgres()
    once_and_over(place, "The warehouse does not answer")
    assert place.query("select count(*) from ops.incidents where title like 'The warehouse does not answer%'") == [(1,)]


def test_a_worker_that_is_killed_in_the_middle_of_a_run_is_told_of_and_so_is_its_run(place: Site) -> None:
    """Two troubles, each with its own command to type: no worker is there, and a build was killed. That its run has
    crashed is part of the latter."""
    run = place.start("transform/nyc")
    building = "select 1 from pg_stat_activity where usename = 'headwater_transformer' and state = 'active'"
    wait(lambda: place.query(building), "the run is under way", 120)
    killed = place.kill_worker()
    place.told("A build was killed", within=4 * MINUTE)
    place.told("No worker is there", within=killed + 4 * MINUTE - time.monotonic())
    until_told = killed + 4 * MINUTE - time.monotonic()
    wait(lambda: place.state(run)["state_type"] == "CRASHED", "the server says that it crashed", until_told)
    place.run("up")
    place.completed("transform/nyc")
    once_and_over(place, "No worker is there", ("A build was killed", "transform/nyc crashed"))


def test_a_source_that_is_frozen_behind_green_loads_is_told_of_and_an_old_window_makes_it_no_newer(place: Site) -> None:
    """Time passes for everybody but the flights API: it answers, and has nothing new for two days."""
    now = clock.read(place.stack.home) + timedelta(days=2)
    place.query(f"alter database headwater set headwater.now = '{clock.iso(now)}'")
    place.completed("ingest/flights-api")
    place.ended(place.start("transform/nyc"))
    place.told("flights_are_recent", within=MINUTE)
    place.completed("backfill/nyc", mode="all", start="2013-01-02", end="2013-01-03", build=False)
    place.ended(place.start("transform/nyc"))
    time.sleep(2 * MINUTE)
    assert len(place.subjects()) == 1, "neither told again nor over"
    systems.advance(place.stack, to=now)
    place.completed("pipeline/nyc")
    place.completed("transform/nyc")  # whose latest run has failed
    once_and_over(place, ("flights_are_recent", "transform/nyc failed"))


def test_what_happens_while_slack_answers_500_is_told_there_once_when_it_is_back(place: Site) -> None:
    """The other channel hears at once. Slack is tried again after 5 minutes at most."""
    place.slack.refuse(500)
    variable = place.prefect("variables/name/flights_api_url", method="GET")
    place.prefect(f"variables/{variable['id']}", {"value": "http://127.0.0.1:9"}, method="PATCH")
    begun = time.monotonic()
    place.ended(place.start("ingest/flights-api"))
    place.told("flights_api", within=MINUTE)
    time.sleep(max(0.0, SLACK_SECONDS - (time.monotonic() - begun)))
    count = len(place.slack.taken)
    place.slack.accept()
    wait(lambda: len(place.slack.taken) > count, "Slack hears of it", 6 * MINUTE)
    place.prefect(f"variables/{variable['id']}", {"value": variable["value"]}, method="PATCH")
    place.completed("ingest/flights-api")
    once_and_over(place, "flights_api")
