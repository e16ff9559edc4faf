"""The systems together: what is in the operations database, and what happens when time passes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from deployments.demo import clock, dataset, systems, weather_files
from deployments.local.errors import LocalStackError
from deployments.local.stack import LocalStack

COUNTS = "select (select count(*) from planes), (select count(*) from airports), (select count(*) from airlines)"
CHANGED = "select tailnum, speed, updated_at from planes where updated_at > %s order by updated_at"


def connect(variables: dict[str, str]) -> psycopg.Connection:
    url = make_url(variables["HEADWATER_OPERATIONS_DB_URL"])
    assert (url.drivername, url.username, url.database) == ("postgresql+psycopg", "operations_app", "operations")
    return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


def changed_planes(app: psycopg.Connection) -> list[tuple[str, int, datetime]]:
    return app.execute(CHANGED, [clock.DEFAULT]).fetchall()


def delivered(stack: LocalStack) -> int:
    return len(list(weather_files.folder(stack.home).glob("*.csv")))


@pytest.fixture
def app(variables: dict[str, str]) -> Iterator[psycopg.Connection]:
    """A connection to the operations database as Headwater has it."""
    with connect(variables) as connection:
        yield connection


def test_the_operations_database_holds_the_data_set(app: psycopg.Connection) -> None:
    assert app.execute(COUNTS).fetchone() == (3_322, 1_458, 16)
    changed_at = datetime(2012, 12, 1, 0, 1, tzinfo=UTC)
    plane = app.execute("select * from planes where tailnum = 'N10156'").fetchone()
    values = ("N10156", 2004, "Fixed wing multi engine", "EMBRAER", "EMB-145XR", 2, 55, None, "Turbo-fan")
    assert plane == (*values, changed_at)
    assert app.execute("select count(*) from planes where speed is null").fetchone() == (3_299,)
    airport = app.execute("select name, lat, tz, tzone from airports where faa = '04G'").fetchone()
    assert airport == ("Lansdowne Airport", 41.1304722, -5, "America/New_York")
    assert app.execute("select count(*) from airports where tzone is null").fetchone() == (3,)


def test_headwater_may_read_it_and_nothing_else(app: psycopg.Connection) -> None:
    for statement in (
        "delete from planes",
        "update airlines set name = ''",
        "create table mine ()",
        "create temp table t ()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement.encode())


def test_starting_again_changes_nothing(stack: LocalStack, variables: dict[str, str], app: psycopg.Connection) -> None:
    before = app.execute("select xmin, * from planes order by tailnum").fetchall()
    pids = {service.name: service.pid for service in stack.status()}
    assert systems.start(stack) == variables
    assert app.execute("select xmin, * from planes order by tailnum").fetchall() == before
    assert {service.name: service.pid for service in stack.status()} == pids


def test_without_a_running_database_the_clock_does_not_move(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "home")
    with pytest.raises(LocalStackError, match="database is not running"):
        systems.advance(stack, by=timedelta(hours=1))
    assert clock.read(stack.home) == clock.DEFAULT


def test_time_passes_in_all_systems(tmp_path: Path) -> None:
    """Runs on a stack of its own: the other tests want time to stand still."""
    stack = LocalStack(tmp_path / "home")
    try:
        stack.start_postgres()
        clock.set_to(stack.home, clock.DEFAULT - timedelta(days=1))
        variables = systems.start(stack)
        headers = {"X-API-Key": variables["HEADWATER_FLIGHTS_API_KEY"]}
        url = f"{variables['HEADWATER_FLIGHTS_API_URL']}/v1/flights?updated_since=2013-12-31T17:00:01Z&limit=10000"
        with httpx.Client(headers=headers, trust_env=False) as client, connect(variables) as app:
            assert client.get(url).json()["data"] == []
            assert delivered(stack) == 363

            assert systems.advance(stack, by=timedelta(days=1)) == clock.DEFAULT
            assert client.get(url).json()["data"] == []
            assert delivered(stack) == 364
            assert changed_planes(app) == []

            systems.advance(stack, by=timedelta(hours=13))
            settled = client.get(url).json()
            assert settled["as_of"] == "2014-01-01T06:00:00Z"
            assert {record["status"] for record in settled["data"]} == {"landed", "cancelled"}
            assert len(changed_planes(app)) == 2
            server = stack.postgres.server()
            assert server is not None
            with server.connect("headwater") as warehouse:
                assert warehouse.execute("select current_setting('headwater.now')").fetchone() == (
                    "2014-01-01T06:00:00Z",
                )

            systems.advance(stack, to=clock.DEFAULT + timedelta(days=2))
            # However many steps that took, one plane every six hours has changed, in the order of the file.
            without_speed = [str(row["tailnum"]) for row in dataset.rows("planes") if row["speed"] is None]
            assert changed_planes(app) == [
                (tailnum, 400 + number, clock.DEFAULT + number * timedelta(hours=6))
                for number, tailnum in enumerate(without_speed[:8], start=1)
            ]
            assert app.execute(COUNTS).fetchone() == (3_322, 1_458, 16)
    finally:
        stack.destroy()


def test_the_weather_bucket_is_where_its_variable_says(stack: LocalStack, variables: dict[str, str]) -> None:
    assert variables["HEADWATER_WEATHER_FILES_URL"] == f"file://{weather_files.folder(stack.home)}"
    assert delivered(stack) == 364
