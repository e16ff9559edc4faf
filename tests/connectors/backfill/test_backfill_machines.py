"""A backfill on several machines: one is killed, sleeps, or is cut off; nothing is lost, nothing is there twice.

Each worker is a process of its own. `make chaos` kills at twenty random instants, and cuts a machine's link.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from connectors.backfill.books import begin, progress
from connectors.backfill.run import work
from connectors.connections import EnvironmentConnections
from connectors.ingest import Destination
from connectors.rest import RestSource
from tests.connectors.backfill.test_backfill import DAYS, PER_DAY, ROWS, Scene, scene, whole, working
from tests.connectors.examples import connections, raw
from tests.connectors.scene import ending
from tests.machine import Machine, machine
from tests.victims import Victim, sleeper
from tests.waiting import until

__all__ = ["scene", "whole"]

Record = Callable[[str, object], None]


def worker(scene: Scene, backfill_id: UUID, **environment: str) -> Victim:
    """A process that works on a backfill."""
    return Victim(working(scene, backfill_id), **environment)


def work_elsewhere(machine: Machine, backfill_id: UUID, api: str, destination: Destination, source: RestSource) -> None:
    machine.enter()
    where = EnvironmentConnections({"HEADWATER_SHOP_URL": api, "HEADWATER_SHOP_KEY": "sesame"})
    work(backfill_id, source, source.streams[0], where, destination, run="the other")


def finish(scene: Scene, backfill_id: UUID) -> None:
    work(backfill_id, scene.source, scene.source.streams[0], connections(scene.api), scene.destination)


def check(scene: Scene, backfill_id: UUID, whole: list[tuple[Any, ...]]) -> None:
    """Raw and ledger are as if nobody had been disturbed."""
    assert raw(scene.warehouse, ROWS) == whole
    found = progress(scene.destination.warehouse, backfill_id)
    assert (found.loaded, found.failed, found.waiting, found.running) == (DAYS, 0, 0, 0)
    assert scene.warehouse.query("select count(*), sum(rows) from ops.windows") == [(DAYS, DAYS * PER_DAY)]
    [(inserted, unfinished)] = scene.warehouse.query(
        "select sum(rows_inserted), count(*) filter (where status not in ('loaded', 'superseded')) from ops.loads"
    )
    assert (inserted, unfinished) == (DAYS * PER_DAY, 0), "each row was inserted once, and no load is left open"
    assert scene.warehouse.query("select from pg_tables where schemaname = 'loading'") == [], "nor a table of one"


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.chaos)])
def test_one_of_two_workers_is_killed_at_a_random_instant_and_the_other_does_the_rest(
    whole: list[tuple[Any, ...]],
    scene: Scene,
    landing_folder: Path,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = None
    took = []
    for number in range(kills):
        backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=2 * PER_DAY, at_once=2)
        victim = worker(scene, backfill_id)
        has_begun = partial(
            scene.warehouse.query,
            "select from ops.backfill_windows where holder is not null and backfill_id = %s",
            [backfill_id],
        )
        until(has_begun, "it has begun")
        other = worker(scene, backfill_id)
        begun = time.monotonic()
        time.sleep(random.random() * (seconds or 1.0))
        assert victim.kill() in (-signal.SIGKILL, 0)
        killed = time.monotonic()
        assert other.wait(120) == 0, other.said
        took.append(time.monotonic() - killed)
        seconds = seconds or time.monotonic() - begun
        check(scene, backfill_id, whole)
        if number < kills - 1:
            scene.warehouse.execute(
                "drop schema raw_shop cascade; truncate ops.loads, ops.watermarks, ops.windows, ops.window_changes,"
                " ops.quarantine, ops.schema_changes, ops.files, ops.streams cascade"
            )
    record_property("seconds to the end of the backfill after the kill", [round(each, 1) for each in sorted(took)])
    print(f"{kills} kills: median {statistics.median(took):.1f} s, at most {max(took):.1f} s")  # noqa: T201 - for whoever measures


def test_a_worker_that_sleeps_loses_its_batch_and_commits_nothing_when_it_wakes_up(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine was suspended: its sessions are there, and say nothing."""
    monkeypatch.setattr("connectors.backfill.worker._SILENT_SECONDS", 2.0)
    backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=PER_DAY)
    with sleeper("landed-noted:3", working(scene, backfill_id)) as victim:
        scene.warehouse.execute("update ops.streams set lease_until = now()")  # as after a minute
        finish(scene, backfill_id)
        check(scene, backfill_id, whole)
        before = scene.warehouse.query("select * from ops.backfill_windows order by window_start")
        loads = scene.warehouse.query("select * from ops.loads order by load_id")
        victim.send(signal.SIGCONT)
        victim.wait()
    assert "This run lost the stream while it was stopped" in victim.said
    assert scene.warehouse.query("select * from ops.backfill_windows order by window_start") == before
    assert scene.warehouse.query("select * from ops.loads order by load_id") == loads
    check(scene, backfill_id, whole)


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["all-copied", "rows-written"])
def test_a_machine_that_is_cut_off_loses_its_batch_and_commits_nothing_when_it_is_back(
    whole: list[tuple[Any, ...]],
    scene: Scene,
    landing_folder: Path,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Its link is down: its sessions are there until the server misses them. In its commit it holds locks meanwhile."""
    with machine() as elsewhere:
        backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=PER_DAY)
        destination = replace(scene.destination, warehouse=scene.destination.warehouse.set(host=elsewhere.gateway))
        api = elsewhere.seen_from_there(scene.api.url)
        there = partial(work_elsewhere, elsewhere, backfill_id, api, destination, scene.source)
        with sleeper(f"{name}:3", there) as lost:
            elsewhere.cut()
            lost.send(signal.SIGCONT)  # it goes on, and nobody hears it
            begun = time.monotonic()
            finish(scene, backfill_id)
            took = time.monotonic() - begun
            check(scene, backfill_id, whole)
            loads = scene.warehouse.query("select * from ops.loads order by load_id")
            elsewhere.mend()
            assert lost.wait(300) == 0 or ending(lost.said), lost.said
    assert scene.warehouse.query("select * from ops.loads order by load_id") == loads
    check(scene, backfill_id, whole)
    record_property("seconds until all was loaded after the cut", round(took, 1))
    print(f"cut off at {name}: all was loaded {took:.1f} s later")  # noqa: T201 - for whoever measures
    assert took < 180
