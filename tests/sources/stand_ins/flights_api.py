"""The demo's flights API, with the flights of January: six pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.demo import dataset
from deployments.demo.flights import Flights
from deployments.demo.flights_api import Server as FlightsServer
from tests.conftest import Server
from tests.sources.stand_in import NOBODY, StandIn

_FLIGHTS = 26_000
_KEY = "the-key-of-the-flights"


@contextmanager
def stand_in(server: Server, folder: Path, flights: int = _FLIGHTS) -> Iterator[StandIn]:
    lines = dataset.text("flights").splitlines(keepends=True)[: flights + 1]
    api = FlightsServer(0, flights=Flights("".join(lines)), home=folder, key=_KEY)
    thread = threading.Thread(target=api.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield StandIn(
            variables={
                "HEADWATER_FLIGHTS_API_URL": f"http://127.0.0.1:{api.server_address[1]}",
                "HEADWATER_FLIGHTS_API_KEY": _KEY,
            },
            rows={"flights": flights},
            down={"HEADWATER_FLIGHTS_API_URL": f"http://{NOBODY}"},
            refused={"HEADWATER_FLIGHTS_API_KEY": "the-key-of-another-api"},
        )
    finally:
        api.shutdown()
        api.server_close()
        thread.join()
