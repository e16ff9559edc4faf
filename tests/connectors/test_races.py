"""Runs of one stream that meet: sleepers that wake up behind their successor, several at once, a backfill among them.

`make test` has a run sleep at some of the named instants; `make chaos` at each, and lets more runs meet.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from connectors.failpoints import FAILPOINTS
from connectors.model import Window
from connectors.rebuild import rebuild
from tests.connectors.scene import COMMITTED, Scene, Watcher, ending, source_of
from tests.waiting import until

FENCED = "connectors.errors.FencedError: This run lost the stream"
STOPPED = "connectors.errors.DestinationUnavailableError: This run was stopped within its transaction"


def everything(scene: Scene) -> list[object]:
    """What the warehouse says: rows, position, ledger."""
    ledger = scene.warehouse.query("select * from ops.loads order by load_id")
    return [scene.raw(), scene.warehouse.query("select * from ops.watermarks"), ledger]


def sleeping_places() -> list[object]:
    in_the_short_form = ("lease-taken", "chunk-landed", "landed-noted", "rows-written", "load-recorded")
    return [pytest.param(name, marks=() if name in in_the_short_form else pytest.mark.chaos) for name in FAILPOINTS]


def wait_for_the_end_of_its_lease(scene: Scene) -> None:
    over = "select from ops.streams where lease_until < now() and holder = 'the victim'"
    until(lambda: scene.warehouse.query(over), "the lease ends")


@pytest.mark.parametrize("name", sleeping_places())
@pytest.mark.parametrize("scene", ["merge", "replace"], indirect=True)
def test_a_run_that_wakes_up_after_its_successor_commits_nothing_and_says_why(scene: Scene, name: str) -> None:
    with Watcher(scene):
        process = scene.sleeper(name, lease=1)
        try:
            wait_for_the_end_of_its_lease(scene)
            scene.change()
            scene.load()
            after = everything(scene)
            process.send(signal.SIGCONT)
            code = process.wait()
        finally:
            process.kill()
        assert everything(scene) == after
        assert scene.raw() == scene.there()
        if FAILPOINTS.index(name) >= COMMITTED:
            assert code == 0, f"it had committed before it slept: {process.said}"
        else:
            # Within its transaction, the server ended the sleeper's session; before it, the fence stopped it.
            in_commit = FAILPOINTS.index(name) >= FAILPOINTS.index("commit-begun")
            assert ending(process.said).startswith(STOPPED if in_commit else FENCED), process.said
            assert code == 1
        scene.change()
        scene.check_after_rerun()


@pytest.mark.parametrize("scene", ["replace"], indirect=True)
def test_raw_is_what_landed_also_when_a_sleeper_wrote_the_manifest(scene: Scene) -> None:
    """Two attempts of one load, with other rows each: the manifest that is there first is the one that counts."""
    sleeper = scene.sleeper("all-copied", lease=1)
    successor = None
    try:
        wait_for_the_end_of_its_lease(scene)
        scene.change()
        successor = scene.sleeper("all-copied")
        for process in (sleeper, successor):
            process.send(signal.SIGCONT)
        assert (sleeper.wait(), successor.wait()) == (1, 0), successor.said
    finally:
        for process in (sleeper, successor or sleeper):
            process.kill()
    before = scene.raw()
    rebuild(source_of("replace"), source_of("replace").streams[0], scene.destination)
    assert scene.raw() == before
    scene.check_after_rerun()


@contextmanager
def changing(scene: Scene) -> Iterator[None]:
    """A source that changes all the while."""
    stop = threading.Event()
    url = scene.warehouse.server.url
    trouble: list[BaseException] = []

    def change() -> None:
        try:
            connection = psycopg.connect(
                host=url.host,
                port=url.port,
                user=url.username,
                password=str(url.password),
                dbname=scene.connection.info.dbname,
                autocommit=True,
            )
            with connection:
                while not stop.wait(0.05):
                    connection.execute(
                        "insert into t select (select max(id) from t) + n, md5(random()::text),"
                        " '2024-01-01Z'::timestamptz + n * interval '12 hours', now() from generate_series(1, 8) n"
                    )
                    if scene.write != "append":
                        connection.execute("update t set v = v || 'y', changed = now() where random() < 0.02")
        except BaseException as error:  # noqa: BLE001 - said where the test can hear it
            trouble.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not trouble, trouble


@pytest.mark.parametrize(
    ("scene", "runs", "rounds"),
    [("merge", 4, 1), *(pytest.param(write, 8, 5, marks=pytest.mark.chaos) for write in ("merge", "append"))],
    indirect=["scene"],
)
def test_runs_and_a_backfill_at_once_come_out_as_one_after_the_other(scene: Scene, runs: int, rounds: int) -> None:
    for _ in range(rounds):
        with changing(scene):
            processes = [scene.process() for _ in range(runs // 2)]
            processes.append(scene.process(Window.parse("2024-01-02", "2024-01-03")))
            processes += [scene.process() for _ in range(runs - runs // 2)]
            for process in processes:
                assert process.wait(300) == 0, process.said
        assert not scene.is_ahead()
        [(rows, counted)] = scene.warehouse.query(
            "select (select count(*) from raw_erp.t), sum(rows_inserted - rows_deleted) from ops.loads"
        )
        assert rows == counted, "each row was inserted once"
        scene.check_after_rerun()
    before = scene.raw()
    rebuild(source_of(scene.write), source_of(scene.write).streams[0], scene.destination)
    assert scene.raw() == before, "one after the other, from the landing"
