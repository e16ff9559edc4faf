{{
    config(
        materialized='incremental' if target.type == 'postgres' else 'table',
        incremental_strategy='delete+insert',
        unique_key='flight_id',
        on_schema_change='fail',
        event_time='scheduled_departure_at',
        indexes=[
            {'columns': ['event_date']},
            {'columns': ['origin_airport_code', 'event_date']},
            {'columns': ['carrier_code', 'event_date']},
        ],
        pre_hook="{{ refuse_full_refresh() }}",
        post_hook="{{ delete_rows_missing_from(ref('stg_flights_api__flights'), 'flight_id') }}",
    )
}}

-- A row is built again when one of its inputs differs from what it was built from: the flight, the weather of its
-- hour, or the destination's time zone. The comparison is row by row. A high-water mark over loaded_at would be
-- cheaper and wrong: a load that took its timestamp early and committed late lies below the mark for ever, and weather
-- that arrives late belongs to flights loaded long ago.

with flights as (

    select * from {{ ref('int_flights_delay_classified') }}

),

{% if is_incremental() %}
built as (

    select
        flight_id,
        loaded_at,
        weather_loaded_at,
        destination_time_zone
    from {{ this }}

),

new_or_changed as (

    select flights.*
    from flights
    left join built on flights.flight_id = built.flight_id
    where
        built.flight_id is null
        or flights.loaded_at is distinct from built.loaded_at
        or flights.weather_loaded_at is distinct from built.weather_loaded_at
        or flights.destination_time_zone is distinct from built.destination_time_zone

),
{% else %}
new_or_changed as (

    select * from flights

),
{% endif %}

final as (

    select
        flight_id,
        event_date,
        carrier_code,
        flight_number,
        coalesce(tail_number, 'unknown') as plane_key,
        tail_number,
        origin_airport_code,
        destination_airport_code,
        destination_time_zone,
        flight_status,
        delay_class,
        scheduled_departure_at,
        actual_departure_at,
        scheduled_arrival_at,
        actual_arrival_at,
        departure_delay_minutes,
        arrival_delay_minutes,
        is_departure_delayed,
        is_arrival_delayed,
        air_time_minutes,
        distance_miles,
        has_weather,
        weather_category,
        temperature_fahrenheit::numeric(6, 2) as temperature_fahrenheit,
        wind_speed_mph::numeric(6, 2) as wind_speed_mph,
        wind_gust_mph::numeric(6, 2) as wind_gust_mph,
        precipitation_inches::numeric(6, 2) as precipitation_inches,
        visibility_miles::numeric(6, 2) as visibility_miles,
        source_updated_at,
        load_id,
        loaded_at,
        weather_loaded_at
    from new_or_changed

)

select * from final
