"""A transform killed -9 at any instant: readers have what they had, and the next run does all of the work.

`make test` kills two, `make chaos` fifty, spread over all that a transform says and over its named instants. Every
other of those hits the run that should have mended what the kill before it has left.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from connectors.destinations.warehouse.windows import unbuilt_windows
from connectors.failpoints import TRANSFORM_FAILPOINTS
from tasks.transform import downstream
from tests.conftest import Warehouse
from tests.dbt.raw_data import NOW
from tests.flows.transforms import Nursery, ServingReader, Transforms
from tests.waiting import until

SERVED = TRANSFORM_FAILPOINTS.index("generation-served")
FIRST_BUILDS, LATER_BUILDS = 8, 36
Instant = str | float
"""When to kill: at a named instant, or when so much of what a transform says has been said, of 1."""

_CURRENT_PLANES = (
    "select to_jsonb(t) - '{version_id,valid_from,seen_at}'::text[] from snapshots.snap_operations_db__planes t"
    " where valid_to is null order by tail_number"
)
_LEFT_BY_DBT = (
    "select nspname || '.' || relname from pg_class c join pg_namespace n on n.oid = relnamespace"
    " where relname ~ '__dbt_(tmp|backup)$'"
)


def change(warehouse: Warehouse, number: int) -> None:
    """The same rows of each source for the same number: some change, one is new, one goes. The ledger knows of it."""
    stamp = f"'{NOW}'::timestamptz + {number} * interval '1 second'"
    load = f"01900000-0000-7000-8000-{number:012x}"
    flights, day = "raw_flights_api.flights", f"'2013-01-01T05:00Z'::timestamptz + {number % 40} * interval '1 day'"
    warehouse.execute(f"""
        update {flights} set distance = distance + 1, _loaded_at = {stamp} where id % 40 = {number % 40};
        insert into {flights} select (jsonb_populate_record(f, jsonb_build_object('id', 200000 + {number}))).*
            from {flights} as f where id = {19 * number + 9};
        delete from {flights} where id = {19 * number};
        update raw_weather_files.weather set temp = temp + 1, _loaded_at = {stamp}
            where origin = 'JFK' and day = 1 + {number % 28};
        update raw_operations_db.planes set seats = seats + 1, _loaded_at = {stamp}
            where tailnum = 'N' || 101 + {number % 10};
        insert into ops.loads (load_id, source, stream, status, attempt, rows_extracted, rows_inserted, rows_updated,
                rows_unchanged, rows_duplicate, rows_quarantined)
            values ('{load}', 'flights_api', 'flights', 'loaded', 1, 1, 1, 0, 0, 0, 0);
        insert into ops.windows as w (source, stream, window_start, window_end, rows, changed_by)
            values ('flights_api', 'flights', {day}, {day} + interval '1 day', 24, '{load}')
            on conflict (source, stream, window_start) do update set changed_by = excluded.changed_by, is_stale = true
    """)


class Scene:
    """A source that changes, transforms that are killed, and what must hold after each."""

    def __init__(self, transforms: Transforms) -> None:
        self.transforms = transforms
        self.warehouse = transforms.warehouse
        self.changes = 0
        self.phases: Counter[str] = Counter()
        """What killed transforms were doing."""
        self.left: Counter[str] = Counter()
        """Relations of dbt's own that kills have left."""
        self._note()

    def change(self) -> None:
        self.changes += 1
        change(self.warehouse, self.changes)

    def kill(self, instant: Instant) -> None:
        """Change the source, kill a transform that has begun, and look."""
        self.change()
        status = kill(self.transforms, instant)
        is_published = self.transforms.generation() != self._generation
        self.check_after_kill()
        if isinstance(instant, str):
            assert is_published == (TRANSFORM_FAILPOINTS.index(instant) >= SERVED), instant
        if status == -signal.SIGKILL:
            self.phases[phase(self.transforms.nursery.said(), instant)] += 1

    def check_after_kill(self) -> None:
        """All of the change is served, or nothing of it, and then nobody says that it was done."""
        generation = self.transforms.generation()
        if generation != self._generation:
            assert generation == self._generation + 1
            self._check_served()
        else:
            assert self.transforms.content() == self._content, "what is served was not published"
            assert self._has_unbuilt_windows(), "windows are said to be built, and are not"
            assert self.transforms.completed() == self._completed, "Prefect says that it succeeded"
        self.left.update(self._left_by_dbt())
        self._note()

    def run(self) -> None:
        """A transform that nobody disturbs: all that is in raw is served, and said to be built."""
        self.transforms.run()
        self._check_served()
        assert not self._has_unbuilt_windows()
        assert self._left_by_dbt() == [], "a build cleans up after one that was killed"
        generation, completed = self._generation, self._completed
        self._note()
        assert (self._generation, self._completed) == (generation + 1, completed + 1)

    def leave_rubbish(self) -> None:
        """What a kill can leave, all at once: files that are torn, relations that dbt was about to swap or to drop."""
        for path in self.transforms.target.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with self.warehouse.connect("transformer") as connection:
            for mart in ("dim_planes", "fct_weather_impact"):
                connection.execute(f"create table marts.{mart}__dbt_tmp (wrong text)".encode())
                connection.execute(f"create table marts.{mart}__dbt_backup as table marts.{mart}".encode())
            connection.execute("create view staging.stg_flights_api__flights__dbt_tmp as select 1 as wrong")

    def _check_served(self) -> None:
        assert self.transforms.content() == self.transforms.content("marts")
        there, served = self.warehouse.query(
            "select count(*), sum(distance), max(_loaded_at) from raw_flights_api.flights"
            " union all select count(*), sum(distance_miles), max(loaded_at) from serving.fct_flights"
        )
        assert served == there

    def _has_unbuilt_windows(self) -> bool:
        return bool(unbuilt_windows(self.warehouse.url("transformer")))

    def _left_by_dbt(self) -> list[str]:
        return [name for (name,) in self.warehouse.query(_LEFT_BY_DBT)]

    def _note(self) -> None:
        self._generation, self._content = self.transforms.generation() or 0, self.transforms.content()
        self._completed = self.transforms.completed()


def kill(transforms: Transforms, instant: Instant) -> int:
    """Begin a transform and kill it; how it ended, for it may have been faster."""
    nursery = transforms.nursery
    if isinstance(instant, str):
        transforms.begin(instant)
        status = nursery.end()
        assert status == -signal.SIGKILL, instant
        return status
    transforms.begin()
    until(
        lambda: len(nursery.said()) >= instant * transforms.lines or not nursery.is_busy(),
        "it says so much",
        seconds=240,
    )
    time.sleep(random.random() / 4)
    status = nursery.kill()
    assert status in (0, -signal.SIGKILL), "\n".join(nursery.said()[-40:])
    return status


def phase(said: list[str], instant: Instant) -> str:
    """What a transform was doing, by what it has said."""
    text = "\n".join(said)
    if isinstance(instant, str) or "dbt built" in text:
        return "publish"
    started = re.findall(r"\d+ of \d+ START (\w+)", text)
    if not started:
        return "parse" if "Running with dbt" in text else "start"
    return "test" if started[-1] == "test" else "model"


def test_what_kills_leave_behind_is_neither_served_nor_in_the_way(transforms: Transforms) -> None:
    scene = Scene(transforms)
    waiting = "select from pg_stat_activity where usename = 'headwater_transformer' and datname = current_database()"
    waiting += " and wait_event_type = 'Lock'"
    with ServingReader(scene.warehouse):
        scene.change()
        with scene.warehouse.server.connect(scene.warehouse.database) as other, other.transaction():
            other.execute("lock table raw_operations_db.airlines")
            transforms.begin()
            until(lambda: scene.warehouse.query(waiting), "a statement of dbt waits", seconds=240)
            assert transforms.nursery.kill() == -signal.SIGKILL
            until(lambda: not scene.warehouse.query(waiting), "it is gone, and with it its locks", seconds=30)
        scene.check_after_kill()
        scene.kill("build-ended")
        scene.leave_rubbish()
        scene.run()


@pytest.mark.chaos
def test_a_transform_that_sleeps_past_its_lease_does_not_publish_what_its_successor_builds(
    transforms: Transforms, tmp_path: Path
) -> None:
    generation = transforms.generation() or 0
    sleeper = transforms.begin("build-ended", sends="STOP")
    until(lambda: psutil.Process(sleeper).status() == psutil.STATUS_STOPPED, "it has built", seconds=240)
    transforms.warehouse.execute("update ops.streams set lease_until = now() where source = 'dbt'")
    with Nursery(tmp_path, transforms.nursery.environment) as nursery:
        Transforms(nursery, transforms.warehouse, tmp_path / "target").run()
    os.kill(sleeper, signal.SIGCONT)
    assert transforms.nursery.end() == 1
    assert "This run lost the stream while it was stopped" in "\n".join(transforms.nursery.said())
    assert transforms.generation() == generation + 1


@pytest.mark.chaos
def test_a_manifest_that_a_kill_has_torn_is_made_anew_for_whoever_needs_it(
    transforms: Transforms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tasks.transform.DBT_TARGET", tmp_path)
    (tmp_path / "manifest.json").write_text('{"metadata": {"dbt_sch')
    assert "fct_flights" in [each.model for each in downstream("flights_api", "flights")]


@pytest.mark.chaos
def test_fifty_kills_lose_nothing_and_serve_nothing_too_early(
    nursery: Nursery, new_warehouse: Callable[[], Warehouse], tmp_path: Path, record_property: Callable[..., None]
) -> None:
    transforms = Transforms(nursery, new_warehouse(), tmp_path / "target")
    transforms.register()
    for number in range(FIRST_BUILDS):
        assert kill(transforms, number / FIRST_BUILDS) == -signal.SIGKILL
        if number == FIRST_BUILDS - 1 and transforms.generation() == 1:  # a fast machine has published by then
            assert transforms.content() == transforms.content("marts"), "all of it is served"
            break
        assert transforms.generation() is None
        assert (
            transforms.warehouse.query("select from pg_views where schemaname = 'serving' and viewname ~ '^(dim|fct)_'")
            == []
        )
    transforms.run()
    scene = Scene(transforms)
    timed = [number / LATER_BUILDS for number in range(LATER_BUILDS)]
    instants: list[Instant] = [*timed, *TRANSFORM_FAILPOINTS]
    random.shuffle(instants)
    with ServingReader(scene.warehouse) as reader:
        for number, instant in enumerate(instants):
            scene.kill(instant)
            if number % 2:
                scene.run()
    record_property("phases", dict(scene.phases))
    record_property("left", dict(scene.left))
    record_property("looks", reader.looks)
    assert FIRST_BUILDS + sum(scene.phases.values()) >= 50, "too many were too late"
    assert scene.phases.keys() >= {"parse", "model", "test", "publish"}

    undisturbed = Transforms(nursery, new_warehouse(), tmp_path / "undisturbed")
    undisturbed.register()
    for number in range(scene.changes):
        change(undisturbed.warehouse, number + 1)
    undisturbed.run()
    assert undisturbed.content() == transforms.content()
    assert undisturbed.warehouse.query(_CURRENT_PLANES) == transforms.warehouse.query(_CURRENT_PLANES)
