"""Raw tables as the demo's loads would leave them, made up: seven weeks of flights in which every test passes.

Made in the database, so that a test has them in a blink. The clock stands at noon (New York) of the last day: its
morning's flights have landed, its afternoon's are still to come.
"""

from __future__ import annotations

from tests.conftest import Warehouse

NOW = "2013-02-20T17:00:00Z"
FIRST_DAY = "2013-01-01"
YESTERDAY = "2013-02-19"
LOAD = "01900000-0000-7000-8000-000000000001"
TABLES = {
    "flights_api": ("flights",),
    "operations_db": ("planes", "airports", "airlines"),
    "weather_files": ("weather",),
}

_OWN = f"'{LOAD}'::uuid as _load_id, '{NOW}'::timestamptz as _loaded_at, null::timestamptz as _deleted_at"
_AIRPORTS = """
select
    faa, faa || ' airport' as name, lat::float8 as lat, lon::float8 as lon, 20 as alt, tz, 'A' as dst, tzone,
    '2012-12-01Z'::timestamptz as updated_at
from (values
    ('EWR', 40.7, -74.2, -5, 'America/New_York'), ('JFK', 40.6, -73.8, -5, 'America/New_York'),
    ('LGA', 40.8, -73.9, -5, 'America/New_York'), ('BOS', 42.4, -71.0, -5, 'America/New_York'),
    ('MIA', 25.8, -80.3, -5, 'America/New_York'), ('ORD', 42.0, -87.9, -6, 'America/Chicago'),
    ('LAX', 33.9, -118.4, -8, 'America/Los_Angeles')
) as airports (faa, lat, lon, tz, tzone)
"""
_PLANES = """
select
    'N' || number as tailnum, 1990 + number % 20 as year, 'Fixed wing multi engine' as type, 'BOEING' as manufacturer,
    '737' as model, 2 as engines, 150 as seats, null::integer as speed, 'Turbo-fan' as engine,
    '2012-12-01Z'::timestamptz as updated_at
from generate_series(101, 110) as number
"""
_AIRLINES = """
select *
from (values ('B6', 'JetBlue'), ('DL', 'Delta'), ('UA', 'United'), ('WN', 'Southwest')) as airlines (carrier, name)
"""
_WEATHER = f"""
select
    origin, hour_at as time_hour, extract(year from local_hour)::integer as year,
    extract(month from local_hour)::integer as month, extract(day from local_hour)::integer as day,
    extract(hour from local_hour)::integer as hour, 40::numeric as temp, 30::numeric as dewp, 60::numeric as humid,
    270::numeric as wind_dir, 10::numeric as wind_speed, null::numeric as wind_gust,
    case extract(day from local_hour)::integer % 5 when 0 then 0.1 else 0 end::numeric as precip,
    1015::numeric as pressure, 10::numeric as visib
from
    unnest(array['EWR', 'JFK', 'LGA']) as origin,
    generate_series('{FIRST_DAY}T05:00Z'::timestamptz, '2013-02-20T04:00Z', '1 hour') as hour_at,
    lateral (select hour_at at time zone 'America/New_York' as local_hour) as clock
"""
# Every journey leaves between 6 and 17 o'clock and ends on the same day, half an hour after its time in the air.
_FLIGHTS = f"""
with planned as (
    select
        row_number() over () as id, n, day::date as day, n % 9 = 8 as never_left, 4 * (n % 6) - 3 as delay,
        day + make_interval(hours => 6 + n % 12, mins => 7 * n % 60) as departs,
        (array['EWR', 'JFK', 'LGA'])[1 + n % 3] as origin, route.*
    from generate_series('{FIRST_DAY}'::timestamp, '2013-02-20', '1 day') as day
    cross join lateral generate_series(1, case when extract(isodow from day) < 6 then 24 else 14 end) as n
    inner join (values
        (0, 'BOS', 'B6', 75, 0, 190), (1, 'MIA', 'DL', 190, 0, 1090), (2, 'ORD', 'UA', 150, -60, 730),
        (3, 'LAX', 'WN', 370, -180, 2470)
    ) as route (number, dest, carrier, minutes, zone_minutes, distance) on route.number = n % 4
),

told as (
    select
        planned.*, departs + make_interval(mins => minutes + zone_minutes) as arrives,
        case
            when departs at time zone 'America/New_York' > '{NOW}'::timestamptz - interval '6 hours' then 'scheduled'
            when never_left then 'cancelled'
            else 'landed'
        end as status
    from planned
)

select
    id, carrier, 1000 + n::bigint as flight, 'N' || 101 + n % 10 as tailnum, origin, dest, status,
    date_trunc('hour', departs) at time zone 'America/New_York' as time_hour,
    extract(minute from departs)::bigint as minute,
    extract(year from day)::bigint as year, extract(month from day)::bigint as month,
    extract(day from day)::bigint as day, to_char(departs, 'HH24MI')::bigint as sched_dep_time,
    case status when 'landed' then to_char(departs + make_interval(mins => delay), 'HH24MI')::bigint end as dep_time,
    to_char(arrives, 'HH24MI')::bigint as sched_arr_time,
    case status when 'landed' then to_char(arrives + make_interval(mins => delay), 'HH24MI')::bigint end as arr_time,
    case status when 'landed' then delay::bigint end as dep_delay,
    case status when 'landed' then delay::bigint end as arr_delay,
    case status when 'landed' then minutes - 30::bigint end as air_time,
    distance::bigint as distance, '{NOW}'::timestamptz as updated_at
from told
"""
_ROWS = {"flights": _FLIGHTS, "planes": _PLANES, "airports": _AIRPORTS, "airlines": _AIRLINES, "weather": _WEATHER}


def create_raw_tables(warehouse: Warehouse) -> None:
    """Make them, let dbt read them, and set the warehouse's clock."""
    statements = [f"alter database {warehouse.database} set headwater.now = '{NOW}'"]
    for source, tables in TABLES.items():
        schema = f"raw_{source}"
        statements.append(f"create schema {schema}; grant usage on schema {schema} to headwater_transformer")
        statements += [
            f"create table {schema}.{table} as select made.*, {_OWN} from ({_ROWS[table]}) as made" for table in tables
        ]
        statements.append(f"grant select on all tables in schema {schema} to headwater_transformer")
        statements += [f"alter table {schema}.{table} owner to headwater_loader" for table in tables]
        statements.append(f"alter schema {schema} owner to headwater_loader")
    for statement in statements:
        warehouse.execute(statement)


def keep_raw_tables(warehouse: Warehouse) -> None:
    """Have a copy of them, from which `restore_raw_tables` brings them back."""
    warehouse.execute("create schema kept")
    for source, tables in TABLES.items():
        for table in tables:
            warehouse.execute(f"create table kept.{table} as table raw_{source}.{table}")


def restore_raw_tables(warehouse: Warehouse) -> None:
    """As they were when they were kept."""
    for source, tables in TABLES.items():
        for table in tables:
            warehouse.execute(f"truncate raw_{source}.{table}; insert into raw_{source}.{table} table kept.{table}")
