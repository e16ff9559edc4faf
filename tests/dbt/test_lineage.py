"""Lineage of the project's own marts, as a real build compiles them, held against a list made by reading their SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.destinations.warehouse.status_facts import columns_by_relation, one_look
from connectors.registry import SOURCES
from tasks.lineage import lineage
from tests.dbt.conftest import Dbt, Outcome

F, W, P, A = "flights_api.flights", "weather_files.weather", "operations_db.planes", "operations_db.airports"
WEATHER = {f"{W} {field}" for field in ("precip", "visib", "temp", "wind_speed", "wind_gust")}
ZONES = "pg_timezone_names name"


def flights(*fields: str) -> set[str]:
    return {f"{F} data[].{field}" for field in fields}


BY_HAND: dict[str, set[str]] = {
    "fct_flights.flight_id": flights("id"),
    "fct_flights.event_date": flights("time_hour", "minute"),
    "fct_flights.tail_number": flights("tailnum"),
    "fct_flights.plane_key": flights("tailnum"),
    "fct_flights.destination_time_zone": {ZONES},
    "fct_flights.scheduled_arrival_at": flights("time_hour", "minute", "sched_arr_time") | {ZONES},
    "fct_flights.actual_departure_at": flights("time_hour", "minute", "dep_delay"),
    "fct_flights.delay_class": flights("status", "arr_delay"),
    "fct_flights.is_departure_delayed": flights("dep_delay"),
    "fct_flights.weather_category": WEATHER,
    "fct_flights.has_weather": {f"{W} time_hour"},
    "fct_flights.wind_gust_mph": {f"{W} wind_gust"},
    "fct_flights.load_id": {"generated"},
    "dim_planes.plane_key": {f"{P} tailnum"} | flights("tailnum"),
    "dim_planes.manufacture_year": {f"{P} year"},
    "dim_planes.is_inferred": {"constant"},
    "dim_airports.airport_name": {f"{A} name"} | flights("origin", "dest"),
    "dim_airports.has_plausible_location": {f"{A} lat", f"{A} lon"},
    "dim_airlines.airline_name": {"operations_db.airlines name"} | flights("carrier"),
    "fct_daily_airport_operations.airport_code": flights("origin", "dest"),
    "fct_daily_carrier_performance.on_time_share": flights("status", "arr_delay") | {f"{F} (rows)"},
    "fct_daily_carrier_performance.total_distance_miles": flights("distance", "status"),
    "fct_weather_impact.scheduled_flights": {f"{F} (rows)"},
    "fct_weather_impact.added_departure_delay_minutes": flights("dep_delay"),
    "fct_weather_impact.minimum_flights_for_rank": {"constant"},
    "fct_weather_impact.delay_rank": flights("dep_delay", "status", "origin") | WEATHER | {f"{F} (rows)"},
}


@pytest.fixture(scope="module")
def graph(dbt: Dbt, of_good_data: dict[str, Outcome]) -> dict[str, Any]:
    content = json.loads((dbt.target / "manifest.json").read_bytes())
    with one_look(dbt.warehouse.url("watcher")) as connection:
        catalog = columns_by_relation(connection, ["raw_flights_api", "raw_weather_files", "raw_operations_db"])
    found: dict[str, Any] = lineage(content, catalog, SOURCES.values())["graph"]
    return found


def ends(graph: dict[str, Any], number: int, column: str | None) -> Iterator[str]:
    """Where the paths back from a column end."""
    node = graph["nodes"][number]
    # The pipeline's own tables are loaded by nobody.
    if node["kind"] in ("stream", "relation") or node["id"].startswith("source.headwater.ops."):
        yield f"{node['name']} {column or '(rows)'}"
    elif column is None:
        for parent in node["rows_of"]:
            yield from ends(graph, parent, None)
    else:
        [(remark, origins)] = [
            (str(each[1]), each[2] if len(each) > 2 else []) for each in node["columns"] if each[0] == column
        ]
        for parent, origin, _ in origins:
            yield from ends(graph, parent, origin)
        if remark or not origins:
            yield remark


def mart_columns(graph: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    for number, node in enumerate(graph["nodes"]):
        if node.get("layer") == "marts":
            assert not node.get("is_partial"), node["name"]
            for column in node["columns"]:
                yield f"{node['name']}.{column[0]}", number, column[0]


def test_the_list_made_by_hand_is_what_is_found(graph: dict[str, Any]) -> None:
    found = {name: {*ends(graph, number, column)} for name, number, column in mart_columns(graph) if name in BY_HAND}
    assert found == BY_HAND


def test_every_column_of_every_mart_ends_at_a_field_or_is_said_to_be_made(graph: dict[str, Any]) -> None:
    columns = list(mart_columns(graph))
    assert len(columns) > 100
    for name, number, column in columns:
        found = {*ends(graph, number, column)}
        assert found, name
        assert "not known" not in found, name
        assert "" not in found, name


def test_marts_have_the_columns_that_the_warehouse_has(graph: dict[str, Any], dbt: Dbt) -> None:
    with one_look(dbt.warehouse.url("watcher")) as connection:
        for (schema, name), columns in columns_by_relation(connection, ["marts", "staging", "snapshots"]).items():
            [node] = [each for each in graph["nodes"] if each.get("relation") == f"{schema}.{name}"]
            assert [column[0] for column in node["columns"]] == columns


def test_dashboards_are_at_the_end(graph: dict[str, Any]) -> None:
    marts = {number for number, node in enumerate(graph["nodes"]) if node.get("layer") == "marts"}
    boards = {number: node["name"] for number, node in enumerate(graph["nodes"]) if node["kind"] == "exposure"}
    assert {*boards.values()} == {"duty_managers_questions", "flight_operations_this_morning", "pipeline_trends"}
    read = {number: {parent for parent, child in graph["edges"] if child == number} for number in boards}
    assert all(read.values())
    assert set().union(*read.values()) == marts
