"""A history of the demo's sources, loaded as the demo does: what appears, changes and goes while its clock moves on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.deletions import find_deleted
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from connectors.lake import refresh
from connectors.model import Window, stream_of
from connectors.registry import SOURCES
from deployments.demo import clock, operations_database, weather_files
from tests.conftest import Server, Warehouse
from tests.sources.stand_ins import flights_api, operations_db

STREAMS = (
    "operations_db.planes",
    "operations_db.airports",
    "operations_db.airlines",
    "weather_files.weather",
    "flights_api.flights",
)


@dataclass(slots=True)
class History:
    """The demo's sources, a warehouse that they are loaded into, and a lake beside it."""

    home: Path
    connections: EnvironmentConnections
    destination: Destination
    warehouse: Warehouse
    operations: psycopg.Connection
    """To the operational database, as its owner."""

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    def move(self, now: datetime) -> None:
        """Let it be a later time everywhere."""
        clock.set_to(self.home, now)
        weather_files.deliver(self.home, now)
        for file in weather_files.folder(self.home).glob("*.csv"):
            os.utime(file, (0, 0))  # nobody is writing it any more
        self.warehouse.execute(f"alter database {self.warehouse.database} set headwater.now = '{clock.iso(now)}'")

    def load(self, name: str, *, window: Window | None = None, full_refresh: bool = False) -> None:
        source_name, _, stream = name.partition(".")
        source = SOURCES[source_name]
        ingest(
            source,
            stream_of(source, stream),
            self.connections,
            self.destination,
            window=window,
            full_refresh=full_refresh,
        )

    def load_all(self) -> None:
        for name in STREAMS:
            self.load(name)

    def compare_keys(self, stream: str) -> None:
        source = SOURCES["operations_db"]
        find_deleted(source, stream_of(source, stream), self.connections, self.destination)

    def refresh_lake(self) -> None:
        lake = Landing(StoreLocation(self.lake.as_uri()))
        for name in STREAMS:
            source_name, _, stream = name.partition(".")
            source = SOURCES[source_name]
            refresh(source, stream_of(source, stream), self.destination, lake)


@contextmanager
def demo(server: Server, warehouse: Warehouse, home: Path, flights: int) -> Iterator[History]:
    """The demo's sources, with so many flights."""
    home.mkdir(exist_ok=True)
    with ExitStack() as running:
        api = running.enter_context(flights_api.stand_in(server, home, flights=flights))
        database = running.enter_context(operations_db.stand_in(server, home))
        weather_files.folder(home).mkdir(parents=True)
        destination = Destination(warehouse.url("loader"), Landing(StoreLocation((home / "landing").as_uri())))
        files = {"HEADWATER_WEATHER_FILES_URL": weather_files.folder(home).as_uri()}
        connections = EnvironmentConnections({**api.variables, **database.variables, **files})
        operations = running.enter_context(server.connect(operations_database.DATABASE))
        operations.autocommit = True
        yield History(home, connections, destination, warehouse, operations)


def three_weeks(history: History) -> None:
    """January 2013 until the 22nd: loads as they come, and everything that may happen to rows on the way."""
    operations = history.operations
    history.move(datetime(2013, 1, 8, 18, tzinfo=UTC))
    history.load_all()
    # Planes change, one goes, and comes back.
    operations.execute("update planes set seats = seats + 1, updated_at = now() where tailnum like 'N1%'")
    operations.execute("create table aside as select * from planes where tailnum in ('N10156', 'N102UW')")
    operations.execute("delete from planes where tailnum in ('N10156', 'N102UW')")
    history.move(datetime(2013, 1, 15, 18, tzinfo=UTC))
    history.load_all()
    history.compare_keys("planes")
    operations.execute("insert into planes select * from aside where tailnum = 'N102UW'")
    history.compare_keys("planes")
    # Of a table that is read whole a row changes, one goes, one is new.
    operations.execute("update airlines set name = 'Endeavor' where carrier = '9E'")
    operations.execute("delete from airlines where carrier = 'OO'; insert into airlines values ('ZZ', 'Newcomer')")
    operations.execute("update airports set alt = alt + 1")  # behind the cursor's back
    history.load("operations_db.airports", full_refresh=True)
    history.move(datetime(2013, 1, 22, 18, tzinfo=UTC))
    history.load_all()
    # A window is read again, with a file that has changed; a reading goes, one comes, one is none.
    window = Window(datetime(2013, 1, 10, 5, tzinfo=UTC), datetime(2013, 1, 10, 5, tzinfo=UTC) + timedelta(days=1))
    history.load("flights_api.flights", window=window)
    folder = weather_files.folder(history.home)
    header, first, second, third, *rest = (folder / "weather-2013-01-10.csv").read_text().splitlines(keepends=True)
    changed = "".join([header, _with_temperature(second, "9.50"), third, *rest, _with_temperature(first, "warm")])
    (folder / "weather-2013-01-10.csv").write_text(changed)
    # As many degrees twice, with another zero: a number without bounds is another one then.
    header, *rest = (folder / "weather-2013-01-11.csv").read_text().splitlines(keepends=True)
    for temperature in ("40.0", "40.00"):
        content = "".join([header, *(_with_temperature(line, temperature) for line in rest)])
        (folder / "weather-2013-01-11.csv").write_text(content)
        history.load("weather_files.weather")
    operations.execute("delete from airlines where carrier = 'ZZ'")
    history.load("operations_db.airlines")


def _with_temperature(line: str, temperature: str) -> str:
    values = line.split(",")
    return ",".join([*values[:5], temperature, *values[6:]])
