"""A run whose Prefect server goes away in the middle of it: its loads go on, and the server hears of its end once it is
back. tests/deployments/machines has the long form, with a server that is really killed, and schedules."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from connectors.backfill.books import begin
from connectors.backfill.plan import plan_backfill
from connectors.ingest import LANDING, WAREHOUSE_LOADER, Destination
from tasks.credentials import register
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.backfill.test_backfill import DAYS, PER_DAY, orders, source
from tests.connectors.examples import Shop, connections
from tests.waiting import until

RUN = """
import sys
from connectors.registry import SOURCES
from tests.connectors.backfill.test_backfill import source
SOURCES["shop"] = source()
from flows.backfill import backfill_helper
backfill_helper("shop", "orders", sys.argv[1])
"""


@dataclass(slots=True)
class Door:
    """The way to the Prefect server: open, or shut, so that nobody answers there any more."""

    server: tuple[str, int]
    port: int = 0
    _listener: socket.socket = field(default_factory=socket.socket)
    _ends: list[socket.socket] = field(default_factory=list)

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=[self._listener], daemon=True).start()

    def shut(self) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self.server)
                self._ends += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=[one, other], daemon=True).start()

    @staticmethod
    def _pump(take: socket.socket, give: socket.socket) -> None:
        with suppress(OSError):
            while data := take.recv(65536):
                give.sendall(data)
            give.shutdown(socket.SHUT_WR)


class PausingShop(Shop):
    """It waits before it answers, once it is told to: somebody shuts a door meanwhile."""

    def __init__(self, api: Api) -> None:
        super().__init__(api, orders(), page=1000)
        self.asked = 0
        self.may_answer = threading.Event()

    def _answer(self, request: Request) -> Answer:
        self.asked += 1
        if self.asked == 4:
            self.may_answer.wait(60)
        return super()._answer(request)


def test_loads_go_on_while_the_server_is_away_and_it_hears_of_the_end_when_it_is_back(
    prefect_server: str, warehouse: Warehouse, destination: Destination, landing_folder: Path, api: Api, tmp_path: Path
) -> None:
    loader = destination.warehouse.render_as_string(hide_password=False)
    places = {"HEADWATER_WAREHOUSE_LOADER_URL": loader, "HEADWATER_LANDING_URL": landing_folder.as_uri()}
    register(connections(api, **places), [*source().requirements, WAREHOUSE_LOADER, LANDING])
    shop = PausingShop(api)
    plan = plan_backfill(source(), source().streams[0], destination)
    backfill_id = begin(plan, destination.warehouse, rows_at_once=1)
    address = urlsplit(prefect_server)
    door = Door((str(address.hostname), int(address.port or 0)))
    door.open()

    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(backfill_id)],
        env={
            **os.environ,
            "PREFECT_API_URL": f"http://127.0.0.1:{door.port}/api",
            "HEADWATER_HOME": str(tmp_path),
            "DO_NOT_TRACK": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: shop.asked == 4 or run.poll() is not None, "it is in the middle", seconds=120)
        door.shut()
        shop.may_answer.set()
        loaded = "select count(*) from ops.backfill_windows where state = 'loaded'"
        until(lambda: warehouse.query(loaded) == [(DAYS,)], "all is loaded with the server away")
        door.open()
        _, errors = run.communicate(timeout=120)
    finally:
        run.kill()
        door.shut()
    assert run.returncode == 0, errors
    assert warehouse.query("select count(*), count(distinct id) from raw_shop.orders") == [(DAYS * PER_DAY,) * 2]
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(like_="help shop"))
        [found] = client.read_flow_runs(flow_run_filter=named)
    assert found.state is not None
    assert found.state.is_completed()
