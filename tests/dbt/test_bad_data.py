"""Ten kinds of bad data, each injected into raw that was good: which test says so, and that nothing is built on it.

The data are made up (raw_data.py), the project is the real one. That nothing of it is served: tests/flows.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from connectors.connections import EnvironmentConnections
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.sources.operations_db import operations_db
from tests.conftest import Warehouse
from tests.dbt.bad_data import FLIGHTS, IN_SOURCES, IN_STAGING, Injection
from tests.dbt.conftest import Dbt, Outcome, bad

MARTS = {"dim_airlines", "dim_airports", "dim_planes", "fct_daily_airport_operations"}
MARTS |= {"fct_daily_carrier_performance", "fct_flights", "fct_weather_impact"}


def test_good_data_pass_every_test(of_good_data: dict[str, Outcome]) -> None:
    """Without this, a test that always fails would look like one that has found something."""
    assert {str(outcome.status) for outcome in of_good_data.values()} == {"success", "pass", "no-op"}
    assert of_good_data.keys() >= MARTS


@pytest.mark.parametrize("group", [IN_SOURCES, IN_STAGING], ids=["in sources", "in staging"])
def test_each_kind_of_bad_data_fails_just_its_test_and_nothing_is_built_on_it(
    dbt: Dbt, change: Callable[[str], None], group: dict[str, Injection]
) -> None:
    built = "select oid from pg_class where relnamespace = 'marts'::regnamespace and relname = any(%s) order by 1"
    before = dbt.warehouse.query(built, [sorted(MARTS)])
    for injection in group.values():
        change(injection.statement)
    outcomes = dbt.run("build")
    assert bad(outcomes) == {injection.test: injection.status for injection in group.values()}
    for kind, injection in group.items():
        kept = dbt.warehouse.query("select " + injection.kept.format(f"failures.{injection.test}"))
        assert kept == injection.rows, kind
    assert {name for name, outcome in outcomes.items() if str(outcome.status) == "skipped"} >= MARTS
    assert dbt.warehouse.query(built, [sorted(MARTS)]) == before


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
