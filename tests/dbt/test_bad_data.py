"""Ten kinds of bad data, each injected into raw that was good: which test says so, and that nothing is built on it.

The data are made up (raw_data.py), the project is the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from connectors.connections import EnvironmentConnections
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.sources.operations_db import operations_db
from deployments.local.layout import PROJECT_ROOT
from tests.conftest import Warehouse
from tests.dbt.conftest import Dbt, Outcome
from tests.dbt.raw_data import LOAD, TABLES, YESTERDAY, create_raw_tables

MARTS = {"dim_airlines", "dim_airports", "dim_planes", "fct_daily_airport_operations"}
MARTS |= {"fct_daily_carrier_performance", "fct_flights", "fct_weather_impact"}
# Raw, what reads it first, and the tests that need nothing else.
GATE = ("build", "--select", "source:*+1", "--indirect-selection", "cautious")

FLIGHTS = "raw_flights_api.flights"
WEATHER = "raw_weather_files.weather"
ON_DAY = "(time_hour at time zone 'America/New_York')::date"
ALL_FLIGHTS = "carrier, flight, tailnum, origin, dest, status, time_hour, minute, year, month, day, sched_dep_time,"
ALL_FLIGHTS += "dep_time, sched_arr_time, arr_time, dep_delay, arr_delay, air_time, distance, updated_at, _load_id, _loaded_at"


@dataclass(frozen=True, slots=True)
class Injection:
    """What is done to raw, and the tests that do not pass then, each with its status."""

    statement: str
    bad: dict[str, str]


INJECTIONS = {
    "duplicate key": Injection(
        f"insert into {FLIGHTS} select * from {FLIGHTS} where id = 700",
        {"source_unique_flights_api_flights_id": "fail"},
    ),
    "orphan": Injection(
        "delete from raw_operations_db.airlines where carrier = 'WN'",
        {"flights_are_of_registered_carriers": "fail"},
    ),
    "null": Injection(
        f"update {FLIGHTS} set carrier = null where id = 700",
        {next_name: "fail" for next_name in ["columns_not_null_stg_flights_api__flights"]},
    ),
    "out of range": Injection(
        f"update {FLIGHTS} set distance = -distance where id = 700",
        {"flight_measures_are_plausible": "fail"},
    ),
    "missing day": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} = '2013-01-22'",
        {"flights_have_no_day_missing": "fail"},
    ),
    "halved volume": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} = '{YESTERDAY}' and id % 2 = 0",
        {"flights_are_as_many_as_usual": "fail"},
    ),
    "doubled volume": Injection(
        # Under new ids: the key alone does not notice.
        f"insert into {FLIGHTS} (id, {ALL_FLIGHTS}) select id + 100000, {ALL_FLIGHTS} from {FLIGHTS}"
        f" where {ON_DAY} = '{YESTERDAY}'",
        {"flights_are_as_many_as_usual": "fail"},
    ),
    "frozen source": Injection(
        # Green loads of old rows: by the time of loading, nothing is older than before.
        f"delete from {WEATHER} where {ON_DAY} > '{YESTERDAY}'::date - 3; update {WEATHER} set _loaded_at = now()",
        {"weather_is_recent": "fail"},
    ),
    "late day": Injection(
        f"delete from {FLIGHTS} where {ON_DAY} = '{YESTERDAY}'; update {FLIGHTS} set status = 'scheduled',"
        f" dep_time = null, arr_time = null, dep_delay = null, arr_delay = null, air_time = null"
        f" where {ON_DAY} > '{YESTERDAY}'",
        {"flights_are_recent": "fail", "flights_have_no_day_missing": "fail"},
    ),
    "late day of weather": Injection(
        # Flights are right without it, so this is said and holds nothing back.
        f"delete from {WEATHER} where {ON_DAY} = '{YESTERDAY}'",
        {"weather_is_recent": "warn"},
    ),
}


@pytest.fixture(scope="module")
def dbt(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    create_raw_tables(module_warehouse)
    module_warehouse.execute("create schema kept")
    for source, tables in TABLES.items():
        for table in tables:
            module_warehouse.execute(f"create table kept.{table} as table raw_{source}.{table}")
    return Dbt(module_warehouse, PROJECT_ROOT / "dbt", tmp_path_factory.mktemp("dbt"))


@pytest.fixture(scope="module")
def of_good_data(dbt: Dbt) -> dict[str, Outcome]:
    return dbt.run("build")


@pytest.fixture
def inject(dbt: Dbt, of_good_data: dict[str, Outcome]) -> Iterator[Callable[[str], None]]:
    """Spoil raw until the end of the test."""
    yield dbt.warehouse.execute
    for source, tables in TABLES.items():
        for table in tables:
            dbt.warehouse.execute(f"truncate raw_{source}.{table}; insert into raw_{source}.{table} table kept.{table}")


def test_good_data_pass_every_test(of_good_data: dict[str, Outcome]) -> None:
    """Without this, a test that always fails would look like one that has found something."""
    assert {name: outcome for name, outcome in of_good_data.items() if str(outcome.status) not in PASSING} == {}
    assert of_good_data.keys() >= MARTS | {name for injection in INJECTIONS.values() for name in injection.bad}


PASSING = {"success", "pass", "no-op"}


@pytest.mark.parametrize("kind", INJECTIONS)
def test_each_kind_of_bad_data_fails_just_the_test_that_is_for_it(
    dbt: Dbt, inject: Callable[[str], None], kind: str
) -> None:
    inject(INJECTIONS[kind].statement)
    assert dbt.bad(*GATE) == INJECTIONS[kind].bad


def test_nothing_is_built_on_bad_data_and_the_rows_are_kept_with_their_load(
    dbt: Dbt, inject: Callable[[str], None]
) -> None:
    built = "select oid, relname from pg_class where relnamespace = 'marts'::regnamespace order by 1"
    before = dbt.warehouse.query(built)
    for kind in ("null", "out of range"):
        inject(INJECTIONS[kind].statement)
    outcomes = dbt.run("build")
    assert {name for name, outcome in outcomes.items() if str(outcome.status) == "skipped"} >= MARTS
    assert dbt.warehouse.query(built) == before
    kept = "select flight_id, carrier_code, distance_miles < 0, load_id::text from failures.{}"
    assert dbt.warehouse.query(kept.format("flight_measures_are_plausible")) == [(700, None, True, LOAD)]
    with dbt.warehouse.connect("owner") as owner:
        assert owner.execute(b"select count(*) from failures.flight_measures_are_plausible").fetchone() == (1,)
    for role in ("reader", "publisher", "loader"):
        with dbt.warehouse.connect(role) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(b"select * from failures.flight_measures_are_plausible")


def test_failing_rows_are_bounded_and_gone_when_the_test_passes(dbt: Dbt, inject: Callable[[str], None]) -> None:
    tables = "select tablename from pg_tables where schemaname = 'failures' order by 1"
    only = ("test", "--select", "flight_measures_are_plausible")
    inject(f"update {FLIGHTS} set distance = -1")
    dbt.warehouse.execute("create table if not exists failures.of_a_test_long_gone (); "
                          "alter table failures.of_a_test_long_gone owner to headwater_transformer")
    assert dbt.bad(*only) == {"flight_measures_are_plausible": "fail"}
    assert dbt.warehouse.query("select count(*) from failures.flight_measures_are_plausible") == [(500,)]
    inject(f"update {FLIGHTS} set distance = 100")
    assert dbt.bad(*only) == {}
    left = [name for (name,) in dbt.warehouse.query(tables)]
    assert not {"flight_measures_are_plausible", "of_a_test_long_gone"} & set(left)


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
