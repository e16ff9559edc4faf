"""Publishing: one changed day of a year against the whole year, published into an empty schema.

dbt's part is played by hand: an incremental mart of a year, of which a day is deleted and inserted again, as dbt's
delete+insert does.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from statistics import median

from bench.results import Result
from bench.scene import Scene
from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.marts import Mart
from connectors.destinations.warehouse.publish import publish

_DAYS = 365
_MART = Mart("fct_events", "marts", ("event_id",), group="bench", is_incremental=True)
_STATE = "select count(*), sum(hashtextextended(e::text, 0)::numeric) from {} e"


def run(scene: Scene, rows: int, rounds: int) -> Iterator[Result]:
    """The benchmark: in each round a full publish, then one of a changed day."""
    limits, times = [], []
    for number in range(rounds):
        scene.fresh_warehouse()
        _build(scene, rows)
        limits.append(_publish(scene))
        _change_a_day(scene, number * 30 + 1)
        times.append(_publish(scene))
    ratio = median(mine / other for mine, other in zip(times, limits, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = "a full publish of the same mart into an empty schema"
    yield Result("publish_one_day", rows, median(times), median(limits), ratio, peak, what)


def _publish(scene: Scene) -> float:
    """Seconds from the end of the build until it is served; what is served has to be the mart afterwards."""
    scene.settle()
    begun = time.monotonic()
    prepare(scene.warehouse("transformer"), [_MART])
    publish(scene.warehouse("publisher"), [_MART], invocation_id="bench")
    wall = time.monotonic() - begun
    with scene.connect("warehouse") as connection:
        expected = connection.execute(_STATE.format("marts.fct_events").encode()).fetchone()
        if connection.execute(_STATE.format("serving.fct_events").encode()).fetchone() != expected:
            sys.exit("What is served is not the mart.")
    return wall


def _build(scene: Scene, rows: int) -> None:
    with scene.connect("warehouse") as connection:
        connection.execute(
            f"""
            create schema marts;
            create table marts.fct_events (
                event_id bigint primary key, event_date date not null, happened_at timestamptz, carrier text,
                origin text, destination text, status text, delay numeric(8, 2), distance integer, loaded_at timestamptz
            );
            insert into marts.fct_events
            select n, '2023-01-01'::date + (n::bigint * {_DAYS} / {rows + 1})::int,
                timestamptz '2023-01-01Z' + n * (interval '{_DAYS} days' / {rows + 1}), 'C' || n % 16, 'O' || n % 3,
                'D' || n % 100, 'landed', n % 500 / 7.0, n % 3000, now()
            from generate_series(1, {rows}) n;
            create index on marts.fct_events (event_date);
            alter schema marts owner to headwater_transformer;
            alter table marts.fct_events owner to headwater_transformer;
            """.encode()
        )
        connection.execute("vacuum (analyze) marts.fct_events")


def _change_a_day(scene: Scene, day: int) -> None:
    with scene.connect("warehouse") as connection, connection.transaction():
        connection.execute(
            "create temporary table changed on commit drop as select * from marts.fct_events"
            f" where event_date = '2023-01-01'::date + {day}".encode()
        )
        connection.execute("update changed set delay = delay + 1, loaded_at = now()")
        connection.execute("delete from marts.fct_events where event_id in (select event_id from changed)")
        connection.execute("insert into marts.fct_events select * from changed")
