"""Kinds of bad data: what is done to raw that was good, and which test of the dbt project says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.dbt.raw_data import LOAD, YESTERDAY

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
