"""A load killed, stopped or cut off at any instant: raw is as it was or as it should be, and a rerun makes it right.

`make test` runs each named instant once; `make chaos` adds kills at random ones.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from connectors.failpoints import FAILPOINTS
from connectors.ingest import Destination
from connectors.model import Cursor, WriteDisposition
from connectors.postgres import PostgresSource
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, database, erp, load_table

LOAD = """
import sys
from sqlalchemy.engine import make_url
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from tests.connectors.test_kill import source_of

_, write, source_url, loader_url, landing, lease = sys.argv
source = source_of(write)
connections = EnvironmentConnections({"HEADWATER_ERP_URL": source_url})
destination = Destination(make_url(loader_url), Landing(StoreLocation(landing)))
print("ready", flush=True)
ingest(source, source.streams[0], connections, destination, run="the victim", lease_seconds=float(lease))
"""
COMMITTED = FAILPOINTS.index("committed")


def source_of(write: str) -> PostgresSource:
    """A table of some megabytes, so that a load has several chunks."""
    cursor = None if write == "replace" else Cursor("changed")
    return erp(name="t", primary_key=("id",), write=WriteDisposition(write), cursor=cursor)


class Scene:
    """A table, a raw table that is one change behind it, and processes that load."""

    def __init__(
        self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination, landing: Path, write: str
    ) -> None:
        self.connection = connection
        self.warehouse = warehouse
        self.destination = destination
        self.landing = landing
        self.write = write
        connection.execute(
            "create table t (id int primary key, v text, changed timestamptz);"
            "insert into t select n, repeat(md5(n::text), 10), '2024-01-01Z' from generate_series(1, 4000) n"
        )
        self.load()
        self.change()
        self.before = self.raw()

    def change(self) -> None:
        """New rows, and what else the write disposition can follow."""
        self.connection.execute(
            "insert into t select coalesce((select max(id) from t), 0) + n, repeat(md5(random()::text), 20), now()"
            " from generate_series(1, 4000) n"
        )
        if self.write != "append":
            self.connection.execute("update t set v = v || 'x', changed = now() where id % 10 = 0")
        if self.write == "replace":
            self.connection.execute("delete from t where id % 11 = 0")

    def load(self) -> None:
        load_table(source_of(self.write), self.connection, self.warehouse, self.destination)

    def process(self, *, lease: float = 60, url: str | None = None, **environment: str) -> subprocess.Popen[str]:
        source = database(self.connection, self.warehouse)._environment["HEADWATER_ERP_URL"]
        loader = url or self.warehouse.url("loader").render_as_string(hide_password=False)
        arguments = [self.write, source, loader, self.landing.as_uri(), str(lease)]
        process = subprocess.Popen(
            [sys.executable, "-c", LOAD, *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def raw(self) -> list[tuple[object, ...]]:
        return self.warehouse.query("select id, v, changed from raw_erp.t order by id, v")

    def there(self) -> list[tuple[object, ...]]:
        return self.connection.execute("select id, v, changed from t order by id, v").fetchall()

    def check_after_kill(self, *, committed: bool) -> None:
        """All of it or none of it, and no position ahead of the rows."""
        assert self.raw() == (self.there() if committed else self.before)
        if self.write != "replace":
            ahead = "select value::timestamptz > (select max(changed) from raw_erp.t) from ops.watermarks"
            assert self.warehouse.query(ahead) == [(False,)]

    def check_after_rerun(self) -> None:
        self.load()
        assert self.raw() == self.there()
        assert self.warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
        assert self.warehouse.query("select distinct status from ops.loads") == [("loaded",)]


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
) -> Scene:
    return Scene(source_database("select"), warehouse, destination, landing_folder, request.param)


def instants() -> list[object]:
    """Every instant for `merge`; for the others, in the short form, those where they differ."""
    differs = ("chunk-landed", "rows-written", "load-recorded", "committed")
    return [
        pytest.param(write, name, marks=() if write == "merge" or name in differs else pytest.mark.chaos)
        for write in ("merge", "append", "replace")
        for name in FAILPOINTS
    ]


@pytest.mark.parametrize(("scene", "name"), instants(), indirect=["scene"])
def test_a_kill_at_a_named_instant_leaves_all_or_nothing(scene: Scene, name: str) -> None:
    process = scene.process(HEADWATER_FAILPOINT=name)
    assert process.wait(60) == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    scene.check_after_kill(committed=FAILPOINTS.index(name) >= COMMITTED)
    scene.check_after_rerun()


@pytest.mark.chaos
@pytest.mark.parametrize("scene", ["merge", "append", "replace"], indirect=True)
def test_kills_at_random_instants_lose_nothing_and_double_nothing(scene: Scene) -> None:
    for number in range(67):
        scene.change()
        process = scene.process()
        time.sleep(random.random() * 0.5)
        process.kill()
        process.wait()
        if number % 5 == 4:
            scene.check_after_rerun()
    scene.check_after_rerun()


@pytest.mark.parametrize("name", ["chunk-landed", "landed-noted", "rows-written", "load-recorded"])
@pytest.mark.parametrize("scene", ["merge"], indirect=True)
def test_a_run_that_wakes_up_after_its_successor_commits_nothing_and_says_why(scene: Scene, name: str) -> None:
    process = scene.process(lease=1, HEADWATER_FAILPOINT=name, HEADWATER_FAILPOINT_SIGNAL="STOP")
    try:
        while not scene.warehouse.query("select from ops.streams where lease_until < now() and holder = 'the victim'"):
            time.sleep(0.1)
        scene.load()
        after = scene.raw(), scene.warehouse.query("select * from ops.watermarks")
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    # Within its transaction, the server ended the sleeper's session; before it, the fence stopped it.
    in_commit = FAILPOINTS.index(name) >= FAILPOINTS.index("commit-begun")
    assert ("stopped within its transaction" if in_commit else "FencedError: This run lost the stream") in errors
    assert (scene.raw(), scene.warehouse.query("select * from ops.watermarks")) == after
    assert scene.raw() == scene.there()
    assert scene.warehouse.query("select distinct status from ops.loads") == [("loaded",)]


@pytest.mark.parametrize("scene", ["replace"], indirect=True)
def test_a_manifest_that_a_sleeper_wrote_first_is_what_is_loaded(scene: Scene) -> None:
    stop = {"HEADWATER_FAILPOINT": "all-copied", "HEADWATER_FAILPOINT_SIGNAL": "STOP"}
    processes = []
    try:
        for lease in (1, 60):
            processes.append(scene.process(lease=lease, **stop))
            while psutil.Process(processes[-1].pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.1)
            scene.change()  # the two have not read the same
        for process, says in zip(processes, ("FencedError", ""), strict=True):
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=60)
            assert says in errors
        assert processes[1].returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    loaded = scene.raw()
    scene.warehouse.execute("drop table raw_erp.t")
    rebuild(source_of("replace"), source_of("replace").streams[0], scene.destination)
    assert scene.raw() == loaded
    scene.check_after_rerun()


@contextmanager
def link(warehouse: Warehouse, *, forward_commit: bool) -> Iterator[str]:
    """A way to the warehouse that breaks at the first COMMIT, before or after the server has heard it."""
    listener = socket.create_server(("127.0.0.1", 0))
    broken = threading.Event()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((warehouse.server.url.host or "", warehouse.server.url.port or 0))
            for take, give, watches in ((client, server, True), (server, client, False)):
                threading.Thread(target=pump, args=(take, give, client, watches), daemon=True).start()

    def pump(take: socket.socket, give: socket.socket, client: socket.socket, watches: bool) -> None:
        try:
            while data := take.recv(65536):
                if watches and b"COMMIT\x00" in data and not broken.is_set():
                    broken.set()
                    client.shutdown(socket.SHUT_RDWR)
                    if forward_commit:
                        give.sendall(data)
                    give.shutdown(socket.SHUT_WR)
                    return
                give.sendall(data)
        except OSError:
            pass
        finally:
            for end in (take, give):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR if not watches else socket.SHUT_WR)

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    try:
        yield warehouse.url("loader").set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        listener.close()
        assert broken.is_set(), "no COMMIT came by"


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not heard"])
@pytest.mark.parametrize("scene", ["merge", "append", "replace"], indirect=True)
def test_a_link_cut_at_the_commit_is_settled_by_the_ledger(scene: Scene, heard: bool) -> None:
    with link(scene.warehouse, forward_commit=heard) as url:
        process = scene.process(url=url)
        _, errors = process.communicate(timeout=60)
    if heard:
        assert process.returncode == 0, errors
        assert "The connection broke at the commit" in errors
    else:
        assert process.returncode == 1
        assert "The warehouse broke off" in errors
    scene.check_after_kill(committed=heard)
    scene.check_after_rerun()
