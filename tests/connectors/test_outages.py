"""The warehouse gone in the middle of a load: its server stopped the hard way, or the link to it cut.

`make test` stops it three times and cuts each kind of link once; `make chaos` does so at every named instant, at random
ones, and a hundred times at the commit.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.connection import connect
from connectors.failpoints import FAILPOINTS
from connectors.ingest import Destination
from deployments.local.postgres import LocalPostgres
from tests.conftest import Server, Warehouse, create_warehouse
from tests.connectors.examples import Prepare
from tests.connectors.scene import COMMITTED, UNAVAILABLE, WRITES, Scene, ending
from tests.victims import Victim
from tests.waiting import until


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A server that nobody else uses, to be stopped at will. What is read is on another."""
    local = LocalPostgres(tmp_path_factory.mktemp("outages"))
    try:
        local.start()
        yield local
    finally:
        local.destroy()


@pytest.fixture
def doomed(
    request: pytest.FixtureRequest, own_server: LocalPostgres, source_database: Prepare, landing_folder: Path
) -> Scene:
    warehouse = create_warehouse(Server.of(own_server.start()), f"warehouse_{time.monotonic_ns()}")
    destination = Destination(warehouse.url("loader"), Landing(StoreLocation(landing_folder.as_uri())))
    return Scene(source_database("select"), warehouse, destination, landing_folder, request.param)


def stop(local: LocalPostgres) -> None:
    """Stop the server without letting it finish anything: it recovers from its log when it starts again.

    By the signal that `pg_ctl stop --mode=immediate` sends, without the time it takes to start that program.
    """
    cluster = local._known_cluster()
    assert cluster is not None
    server = cluster.running()
    assert server is not None
    os.kill(server.pid, signal.SIGQUIT)
    until(lambda: cluster.running() is None, "the server ends")


def ended(process: Victim) -> bool:
    """Whether the load was done; if it was not, that it said so in one clear error."""
    with process:
        code = process.wait()
    assert code in (0, 1)
    assert code == 0 or ending(process.said).startswith(UNAVAILABLE), process.said
    return code == 0


def stops() -> list[object]:
    in_the_short_form = ("chunk-copied", "rows-written", "load-recorded")
    return [pytest.param(name, marks=() if name in in_the_short_form else pytest.mark.chaos) for name in FAILPOINTS]


@pytest.mark.parametrize("name", stops())
@pytest.mark.parametrize("doomed", ["merge"], indirect=True)
def test_a_server_stopped_at_a_named_instant_loses_nothing(doomed: Scene, own_server: LocalPostgres, name: str) -> None:
    process = doomed.sleeper(name)
    try:
        stop(own_server)
        process.send(signal.SIGCONT)
        done = ended(process)
    finally:
        process.kill()
        own_server.start()
    committed = FAILPOINTS.index(name) >= COMMITTED
    assert committed or not done
    doomed.check_after_kill(committed=committed)
    doomed.check_after_rerun()


@pytest.mark.chaos
@pytest.mark.parametrize("doomed", WRITES, indirect=True)
def test_a_server_stopped_at_random_instants_loses_nothing(doomed: Scene, own_server: LocalPostgres) -> None:
    doomed.change(2000)
    seconds = doomed.seconds()
    outcomes: Counter[bool] = Counter()
    for _ in range(13):
        doomed.change(2000)
        doomed.before = doomed.raw()
        process = doomed.process()
        try:
            time.sleep(random.random() * seconds)
            stop(own_server)
            outcomes[ended(process)] += 1
        finally:
            process.kill()
            own_server.start()
        assert doomed.raw() in (doomed.before, doomed.there())
        assert not doomed.is_ahead()
        doomed.check_after_rerun()
    assert outcomes[False], "they were all too late"


@dataclass(slots=True)
class Link:
    """A way to the warehouse that breaks once: at the COMMIT of a load, or when so many bytes have gone through it."""

    warehouse: Warehouse
    commit_is_heard: bool | None = None
    """Whether the server hears the COMMIT at which the link breaks; None: it does not break there."""
    cut_after: int | None = None
    """In bytes, of all connections and both ways."""
    falls_silent: bool = False
    """Whether nobody is told that it broke: what is sent is not taken any more."""
    carried: int = 0
    recorded: bool = False
    """Whether the load's row has been written: the next COMMIT is the one."""
    url: str = ""
    broken: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    sockets: list[socket.socket] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        target = (self.warehouse.server.url.host or "", self.warehouse.server.url.port or 0)
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(target)
            self.sockets += [client, server]
            for asks in (True, False):
                threading.Thread(target=self.pump, args=(client, server, asks), daemon=True).start()

    def pump(self, client: socket.socket, server: socket.socket, asks: bool) -> None:
        take, give = (client, server) if asks else (server, client)
        try:
            while data := take.recv(65536):
                through = self.through(data, asks)
                if through is None:
                    give.sendall(data)
                    continue
                if self.falls_silent:
                    return
                hang_up(client)
                server.sendall(data[:through] if asks else b"")
                break
        except OSError:
            pass
        if not asks:
            hang_up(client)
            hang_up(server)
        else:  # the server may have more to say; it ends when it has heard that nobody asks any more
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)

    def through(self, data: bytes, asks: bool) -> int | None:
        """Of a packet at which the link breaks, how many bytes still go through; None if it does not break."""
        with self.lock:
            before, self.carried = self.carried, self.carried + len(data)
            self.recorded = self.recorded or (asks and b"set status = 'loaded'" in data)
            if self.broken.is_set():
                return None
            if self.commit_is_heard is not None and self.recorded and asks and b"COMMIT\x00" in data:
                self.broken.set()
                return len(data) if self.commit_is_heard else 0
            if self.cut_after is not None and self.carried > self.cut_after and (asks or not self.falls_silent):
                self.broken.set()
                return max(0, self.cut_after - before)
            return None


def hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def link(
    warehouse: Warehouse,
    *,
    commit_is_heard: bool | None = None,
    cut_after: int | None = None,
    falls_silent: bool = False,
) -> Iterator[Link]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is not taken is soon noticed
    port = listener.getsockname()[1]
    made = Link(warehouse, commit_is_heard, cut_after, falls_silent)
    made.url = warehouse.url("loader").set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    threading.Thread(target=made.serve, args=[listener], daemon=True).start()
    try:
        yield made
    finally:
        hang_up(listener)
        for end in made.sockets:
            hang_up(end)


@pytest.mark.parametrize("times", [1, pytest.param(17, marks=pytest.mark.chaos)])
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not heard"])
@pytest.mark.parametrize("scene", WRITES, indirect=True)
def test_a_link_cut_at_the_commit_is_settled_by_the_ledger(scene: Scene, heard: bool, times: int) -> None:
    for _ in range(times):
        with link(scene.warehouse, commit_is_heard=heard) as cut:
            process = scene.process(url=cut.url)
            code = process.wait()
        assert cut.broken.is_set(), "no COMMIT came by"
        if heard:
            assert code == 0, process.said
            assert "The connection broke at the commit" in process.said
        else:
            assert code == 1
            assert ending(process.said).startswith(f"{UNAVAILABLE}The warehouse broke off"), process.said
        scene.check_after_kill(committed=heard)
        scene.check_after_rerun()
        scene.before = scene.raw()
        scene.change(100)


@pytest.mark.chaos
@pytest.mark.parametrize("scene", WRITES, indirect=True)
def test_a_link_cut_at_any_byte_loses_nothing(scene: Scene) -> None:
    with link(scene.warehouse) as whole:
        process = scene.process(url=whole.url)
        assert process.wait() == 0
    outcomes: Counter[bool] = Counter()
    for _ in range(35):
        scene.before = scene.raw()
        scene.change()
        with link(scene.warehouse, cut_after=random.randrange(whole.carried)) as cut:
            process = scene.process(url=cut.url)
            outcomes[ended(process)] += 1
        assert cut.broken.is_set()
        assert scene.raw() in (scene.before, scene.there())
        assert not scene.is_ahead()
        scene.check_after_rerun()
    assert outcomes[False], "none was cut where it matters"


@pytest.mark.parametrize("scene", ["merge"], indirect=True)
def test_a_link_that_falls_silent_is_given_up(scene: Scene) -> None:
    """A peer that stalls in the middle of a COPY, and neither takes more nor says that it has gone."""
    with connect(scene.destination.warehouse, "test") as connection:
        usual = int(connection.info.get_parameters()["tcp_user_timeout"])
    assert 0 < usual <= 120_000, "in milliseconds"
    scene.change(2000)
    with link(scene.warehouse, cut_after=2_000_000, falls_silent=True) as silent:
        process = scene.process(url=f"{silent.url}?tcp_user_timeout=1000")
        assert not ended(process)
    assert silent.broken.is_set()
    scene.check_after_kill(committed=False)
    scene.check_after_rerun()
