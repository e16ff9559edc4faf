"""Ten kinds of bad data, each injected into raw that was good: which test says so, and that nothing is built on it.

The data are made up (raw_data.py), the project is the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from connectors.connections import EnvironmentConnections
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.sources.operations_db import operations_db
from tests.conftest import Warehouse
from tests.dbt.conftest import Dbt, Outcome, bad
from tests.dbt.raw_data import LOAD, YESTERDAY

MARTS = {"dim_airlines", "dim_airports", "dim_planes", "fct_daily_airport_operations"}
MARTS |= {"fct_daily_carrier_performance", "fct_flights", "fct_weather_impact"}
FLIGHTS = "raw_flights_api.flights"
WEATHER = "raw_weather_files.weather"
ON_DAY = "(time_hour at time zone 'America/New_York')::date"


@dataclass(frozen=True, slots=True)
class Injection:
    """What is done to raw, and the one test that does not pass then."""

    statement: str
    test: str
    kept: str
    """What of the kept failures is looked at: the rest of a `select`."""
    rows: list[tuple[Any, ...]]
    status: str = "fail"


# Those of a group do not hide each other: tests of sources all run, whatever fails beside them. Those of staging do not
# run if a test of their source has failed.
IN_SOURCES = {
    "duplicate key": Injection(
        f"insert into {FLIGHTS} select * from {FLIGHTS} where id = 700",
        "source_unique_flights_api_flights_id",
        "unique_field, load_ids::text from {}",
        [(700, f"{{{LOAD}}}")],
    ),
    "missing day": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} = '2013-01-22'",
        "flights_have_no_day_missing",
        "missing_day::text from {}",
        [("2013-01-22",)],
    ),
    "halved volume": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} = '2013-02-18' and id % 2 = 0",
        "flights_are_as_many_as_usual",
        "event_day::text, row_count, usual_row_count from {} where row_count < usual_row_count",
        [("2013-02-18", 12, 24)],
    ),
    "doubled volume": Injection(
        # Under new ids: the key alone does not notice.
        f"insert into {FLIGHTS} select (jsonb_populate_record(f, jsonb_build_object('id', id + 100000))).*"
        f" from {FLIGHTS} as f where {ON_DAY} = '2013-02-17'",
        "flights_are_as_many_as_usual",
        "event_day::text, row_count, usual_row_count from {} where row_count > usual_row_count",
        [("2013-02-17", 28, 14)],
    ),
    "late day": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} >= '{YESTERDAY}' and status <> 'scheduled'",
        "flights_are_recent",
        "newest_day::text, days_behind from {}",
        [("2013-02-18", 1)],
    ),
    "frozen source": Injection(
        # Its loads are green: by the time of loading, nothing is older than before.
        f"delete from {WEATHER} where {ON_DAY} > '{YESTERDAY}'::date - 3; update {WEATHER} set _loaded_at = now()",
        "weather_is_recent",
        "newest_day::text, days_behind from {}",
        [("2013-02-16", 3)],
    ),
}
IN_STAGING = {
    "orphan": Injection(
        "delete from raw_operations_db.airlines where carrier = 'WN'",
        "flights_are_of_registered_carriers",
        "distinct carrier_code, load_id::text from {}",
        [("WN", LOAD)],
    ),
    "null": Injection(
        f"update {FLIGHTS} set minute = null where id = 700",
        "flights_have_what_every_flight_has",
        "flight_id, load_id::text from {}",
        [(700, LOAD)],
    ),
    "out of range": Injection(
        f"update {FLIGHTS} set distance = -distance where id = 701",
        "flight_measures_are_plausible",
        "flight_id, load_id::text from {}",
        [(701, LOAD)],
    ),
    "late day of weather": Injection(
        # Flights are right without it, so this is said and holds nothing back.
        f"delete from {WEATHER} where {ON_DAY} = '{YESTERDAY}'",
        "weather_is_recent",
        "newest_day::text, days_behind from {}",
        [("2013-02-18", 1)],
        status="warn",
    ),
}


def test_good_data_pass_every_test(of_good_data: dict[str, Outcome]) -> None:
    """Without this, a test that always fails would look like one that has found something."""
    assert {str(outcome.status) for outcome in of_good_data.values()} == {"success", "pass", "no-op"}
    assert of_good_data.keys() >= MARTS


@pytest.mark.parametrize("group", [IN_SOURCES, IN_STAGING], ids=["in sources", "in staging"])
def test_each_kind_of_bad_data_fails_just_its_test_and_nothing_is_built_on_it(
    dbt: Dbt, change: Callable[[str], None], group: dict[str, Injection]
) -> None:
    built = "select oid, relname from pg_class where relnamespace = 'marts'::regnamespace order by 1"
    before = dbt.warehouse.query(built)
    for injection in group.values():
        change(injection.statement)
    outcomes = dbt.run("build")
    assert bad(outcomes) == {injection.test: injection.status for injection in group.values()}
    for kind, injection in group.items():
        kept = dbt.warehouse.query("select " + injection.kept.format(f"failures.{injection.test}"))
        assert kept == injection.rows, kind
    assert {name for name, outcome in outcomes.items() if str(outcome.status) == "skipped"} >= MARTS
    assert dbt.warehouse.query(built) == before


@pytest.mark.chaos
@pytest.mark.parametrize("kind", [*IN_SOURCES, *IN_STAGING])
def test_each_kind_of_bad_data_by_itself_fails_just_its_test(
    dbt: Dbt, change: Callable[[str], None], kind: str
) -> None:
    injection = (IN_SOURCES | IN_STAGING)[kind]
    change(injection.statement)
    assert bad(dbt.run("build")) == {injection.test: injection.status}


def test_failing_rows_are_bounded_and_gone_when_the_test_passes(dbt: Dbt, change: Callable[[str], None]) -> None:
    tables = "select tablename from pg_tables where schemaname = 'failures' order by 1"
    test = ("test", "--select", "flight_measures_are_plausible")
    change(f"update {FLIGHTS} set distance = -1")
    dbt.warehouse.execute(
        "create table if not exists failures.of_a_test_long_gone (); "
        "alter table failures.of_a_test_long_gone owner to headwater_transformer"
    )
    assert bad(dbt.run(*test)) == {"flight_measures_are_plausible": "fail"}
    assert dbt.warehouse.query("select count(*) from failures.flight_measures_are_plausible") == [(500,)]
    change(f"update {FLIGHTS} set distance = 100")
    assert bad(dbt.run(*test)) == {}
    left = [name for (name,) in dbt.warehouse.query(tables)]
    assert not {"flight_measures_are_plausible", "of_a_test_long_gone"} & set(left)


def test_failing_rows_are_for_the_owner_and_for_nobody_who_only_reads(dbt: Dbt, change: Callable[[str], None]) -> None:
    change(f"update {FLIGHTS} set distance = -1 where id = 700")
    dbt.run("test", "--select", "flight_measures_are_plausible")
    rows = b"select flight_id from failures.flight_measures_are_plausible"
    with dbt.warehouse.connect("owner") as owner:
        assert owner.execute(rows).fetchall() == [(700,)]
    for role in ("reader", "publisher", "loader"):
        with dbt.warehouse.connect(role) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(rows)


def test_a_type_that_changes_fails_the_load_and_raw_stays(
    source_database: Callable[[str], psycopg.Connection], warehouse: Warehouse, destination: Destination
) -> None:
    """The tenth kind does not get as far as dbt."""
    source = source_database(
        "create table planes (tailnum text primary key, seats integer, updated_at timestamptz not null);"
        "insert into planes values ('N101', 150, '2013-01-01Z')"
    )
    url = warehouse.server.url.set(database=source.info.dbname).render_as_string(hide_password=False)
    connections = EnvironmentConnections({"HEADWATER_OPERATIONS_DB_URL": url})
    planes = operations_db.streams[0]
    ingest(operations_db, planes, connections, destination)
    before = warehouse.query("select * from raw_operations_db.planes")
    source.execute("alter table planes alter seats type text")
    source.execute("insert into planes values ('N102', 'about 150', '2013-01-02Z')")
    with pytest.raises(ContractViolationError, match="changed `seats` from integer to text, and raw cannot follow"):
        ingest(operations_db, planes, connections, destination)
    assert warehouse.query("select * from raw_operations_db.planes") == before
