"""The same landing and the same dbt project on PostgreSQL and on Spark: the same raw, tests and marts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.local.layout import PROJECT_ROOT
from deployments.spark.compare import Comparison, compare
from tests.conftest import Server, Warehouse, empty_warehouse
from tests.dbt.conftest import Dbt, Outcome, bad
from tests.spark.conftest import RunSpark, tables
from tests.spark.history import STREAMS, History, demo, three_weeks

pytestmark = pytest.mark.spark

MARTS = {
    "dim_airlines": ["carrier_code"],
    "dim_airports": ["airport_code"],
    "dim_planes": ["plane_key"],
    "fct_flights": ["flight_id"],
    "fct_daily_airport_operations": ["airport_code", "event_date"],
    "fct_daily_carrier_performance": ["carrier_code", "event_date"],
    "fct_weather_impact": ["origin_airport_code", "weather_category"],
}
KEYS = {
    "operations_db.planes": ["tailnum"],
    "operations_db.airports": ["faa"],
    "operations_db.airlines": ["carrier"],
    "weather_files.weather": ["origin", "time_hour"],
    "flights_api.flights": ["id"],
}
NOW = "{now: '2013-01-22T18:00:00Z'}"


@dataclass(frozen=True, slots=True)
class Built:
    """One history, built on both engines."""

    history: History
    dbt: Dbt
    outcomes: dict[str, Outcome]
    """Of dbt on PostgreSQL, by node."""
    home: Path
    """Of Spark."""

    def compare(self, schema: str, table: str, key: list[str]) -> Comparison:
        with self.dbt.warehouse.connect("transformer") as connection:
            return compare(connection, schema, table, key, tables(self.home, schema, table))


@pytest.fixture(scope="module")
def built(
    run_spark: RunSpark, postgres: Server, _warehouse_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("slice")
    with (
        empty_warehouse(postgres, _warehouse_template) as warehouse,
        demo(postgres, warehouse, folder / "demo", 26_000) as history,
    ):
        three_weeks(history)
        history.refresh_lake()
        dbt = Dbt(warehouse, PROJECT_ROOT / "dbt", folder / "target")
        outcomes = dbt.run("build", "--vars", NOW)
        run_spark(history.lake, history.landing, folder / "spark", "build", "--vars", NOW)
        yield Built(history, dbt, outcomes, folder / "spark")


@pytest.mark.parametrize("stream", STREAMS)
def test_raw_is_the_same_row_by_row(built: Built, stream: str) -> None:
    source, _, table = stream.partition(".")
    found = built.compare(f"raw_{source}", table, KEYS[stream])
    assert found.is_equal, str(found)
    assert found.rows > 10


def test_the_history_has_all_that_may_happen_to_a_row(built: Built) -> None:
    """Else the test before would show less than it says."""
    query = built.history.warehouse.query
    assert query(
        "select bool_or(rows_inserted > 0), bool_or(rows_updated > 0), bool_or(rows_unchanged > 0),"
        " bool_or(rows_quarantined > 0), bool_or(rows_deleted > 0), bool_or(full_refresh), bool_or(kind = 'keys'),"
        " bool_or(window_start is not null) from ops.loads"
    ) == [(True,) * 8]
    assert query("select count(*) from raw_operations_db.planes where _deleted_at is not null") == [(1,)]


def test_the_same_tests_passed_on_the_same_models(built: Built) -> None:
    results = json.loads((built.home / "target/run_results.json").read_text())["results"]
    on_spark = {result["unique_id"].split(".")[2]: result["status"] for result in results}
    assert set(on_spark.values()) == {"pass", "success", "no-op"}
    assert bad(built.outcomes) == {}
    assert built.dbt.manifest is not None
    nodes = [*built.dbt.manifest.nodes.values(), *built.dbt.manifest.unit_tests.values()]
    # The ledger and what is made of it, and the history of planes, are PostgreSQL's alone.
    left_out = {
        node.name
        for node in nodes
        if {"ops", "pipeline", "_pipeline__unit_tests.yml"} & {*node.fqn, Path(node.original_file_path).name}
        or any("stg_ops__" in each or ".ops." in each for each in node.depends_on.nodes)
        or node.name.startswith("snap_")
        or any(each.startswith("snapshot.") for each in node.depends_on.nodes)
    }
    on_postgres = {name for name in built.outcomes if name not in left_out}
    assert {name for name in on_spark if name not in built.outcomes} == set()
    assert on_postgres - set(on_spark) == set()
    assert len(on_spark) > 110


@pytest.mark.parametrize("mart", MARTS)
def test_marts_are_the_same_row_by_row_and_column_by_column(built: Built, mart: str) -> None:
    found = built.compare("marts", mart, MARTS[mart])
    assert found.is_equal, str(found)
    assert found.rows > 10


def test_a_comparison_sees_a_single_value(built: Built) -> None:
    with built.dbt.warehouse.connect("transformer") as connection:
        connection.execute("update marts.dim_planes set seat_count = seat_count + 1 where plane_key = 'N10575'")
        found = compare(connection, "marts", "dim_planes", ["plane_key"], tables(built.home, "marts", "dim_planes"))
        connection.rollback()
    assert not found.is_equal
    assert found.differing == {"seat_count": 1}
    assert "seat_count of ('N10575',) is" in str(found)


@pytest.mark.chaos
def test_the_whole_year_is_the_same_too(
    run_spark: RunSpark, postgres: Server, warehouse: Warehouse, tmp_path: Path
) -> None:
    with demo(postgres, warehouse, tmp_path / "demo", 336_776) as history:
        for month in (4, 8, 12):
            history.move(datetime(2013, month, 31 if month != 4 else 30, 18, tzinfo=UTC))
            history.load_all()
        history.refresh_lake()
        dbt = Dbt(warehouse, PROJECT_ROOT / "dbt", tmp_path / "target")
        now = "{now: '2013-12-31T18:00:00Z'}"
        assert bad(dbt.run("build", "--vars", now)) == {}
        home = tmp_path / "spark"
        run_spark(history.lake, history.landing, home, "build", "--vars", now)
        built = Built(history, dbt, {}, home)
        found = [built.compare("marts", mart, key) for mart, key in MARTS.items()]
        found += [
            built.compare(f"raw_{stream.partition('.')[0]}", stream.partition(".")[2], key)
            for stream, key in KEYS.items()
        ]
        assert [str(each) for each in found if not each.is_equal] == []
        assert sum(each.rows for each in found) > 600_000
