with flights as (

    select * from {{ ref('stg_flights_api__flights') }}

),

airport_time_zones as (

    select * from {{ ref('int_airport_time_zones_verified') }}

),

-- The hour comes in UTC, so the doubled hour at the end of daylight saving is not ambiguous; wall time alone would be.
departures as (

    select
        flights.*,
        airport_time_zones.time_zone_name as destination_time_zone,
        flights.scheduled_departure_hour_at
        + {{ minutes_interval('flights.scheduled_departure_minute') }} as scheduled_departure_at
    from flights
    left join airport_time_zones on flights.destination_airport_code = airport_time_zones.airport_code

),

-- The source gives no arrival date. The arrival is the first time the destination's clock shows the scheduled reading
-- after the departure: on the destination's date of departure, or on the day after.
arrivals_on_departure_day as (

    select
        *,
        date_trunc('day', {{ local_time('scheduled_departure_at', 'destination_time_zone') }})
        + {{ hhmm_to_interval('scheduled_arrival_local_hhmm') }} as same_day_arrival_local
    from departures

),

arrivals as (

    select
        *,
        case
            when {{ instant_of('same_day_arrival_local', 'destination_time_zone') }} > scheduled_departure_at
                then {{ instant_of('same_day_arrival_local', 'destination_time_zone') }}
            else {{ instant_of("(same_day_arrival_local + interval '1 day')", 'destination_time_zone') }}
        end as scheduled_arrival_at
    from arrivals_on_departure_day

),

localized as (

    select
        flight_id,
        ({{ local_time('scheduled_departure_at', "'" ~ var('network_time_zone') ~ "'") }})::date as event_date,
        carrier_code,
        flight_number,
        tail_number,
        origin_airport_code,
        destination_airport_code,
        destination_time_zone,
        flight_status,
        scheduled_departure_hour_at,
        scheduled_departure_at,
        scheduled_departure_at + {{ minutes_interval('departure_delay_minutes') }} as actual_departure_at,
        scheduled_arrival_at,
        scheduled_arrival_at + {{ minutes_interval('arrival_delay_minutes') }} as actual_arrival_at,
        -- The source's own clock readings stay, so that tests can hold the computed instants against them.
        scheduled_departure_local_date,
        scheduled_departure_local_hhmm,
        actual_departure_local_hhmm,
        scheduled_arrival_local_hhmm,
        actual_arrival_local_hhmm,
        departure_delay_minutes,
        arrival_delay_minutes,
        air_time_minutes,
        distance_miles,
        source_updated_at,
        load_id,
        loaded_at
    from arrivals

)

select * from localized
