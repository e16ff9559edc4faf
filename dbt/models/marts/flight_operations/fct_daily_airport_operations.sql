{{ config(indexes=[{'columns': ['event_date']}]) }}

-- Both sides of an airport are counted on event_date, the day the flight was due to leave. Arrivals by local date would
-- need time zones that some destinations lack, and would not add up to the flights of a day.
-- The fact is named twice on purpose: PostgreSQL writes a shared CTE out in full before it reads it twice.

with departures as (

    select
        origin_airport_code as airport_code,
        event_date,
        count(*) as scheduled_departures,
        count(*) filter (where flight_status in ('landed', 'diverted')) as flown_departures,
        count(*) filter (where flight_status = 'cancelled') as cancelled_departures,
        count(*) filter (where flight_status = 'scheduled') as pending_departures,
        count(*) filter (where is_departure_delayed) as delayed_departures,
        {{ mean('departure_delay_minutes') }}::numeric(8, 2) as average_departure_delay_minutes
    from {{ ref('fct_flights') }}
    group by origin_airport_code, event_date

),

arrivals as (

    select
        destination_airport_code as airport_code,
        event_date,
        count(*) as scheduled_arrivals,
        count(*) filter (where flight_status = 'landed') as landed_arrivals,
        count(*) filter (where flight_status = 'cancelled') as cancelled_arrivals,
        count(*) filter (where flight_status = 'diverted') as diverted_arrivals,
        count(*) filter (where flight_status = 'scheduled') as pending_arrivals,
        count(*) filter (where is_arrival_delayed) as delayed_arrivals,
        {{ mean('arrival_delay_minutes') }}::numeric(8, 2) as average_arrival_delay_minutes
    from {{ ref('fct_flights') }}
    group by destination_airport_code, event_date

),

final as (

    select
        coalesce(departures.airport_code, arrivals.airport_code) as airport_code,
        coalesce(departures.event_date, arrivals.event_date) as event_date,
        coalesce(departures.scheduled_departures, 0) as scheduled_departures,
        coalesce(departures.flown_departures, 0) as flown_departures,
        coalesce(departures.cancelled_departures, 0) as cancelled_departures,
        coalesce(departures.pending_departures, 0) as pending_departures,
        coalesce(departures.delayed_departures, 0) as delayed_departures,
        departures.average_departure_delay_minutes,
        coalesce(arrivals.scheduled_arrivals, 0) as scheduled_arrivals,
        coalesce(arrivals.landed_arrivals, 0) as landed_arrivals,
        coalesce(arrivals.cancelled_arrivals, 0) as cancelled_arrivals,
        coalesce(arrivals.diverted_arrivals, 0) as diverted_arrivals,
        coalesce(arrivals.pending_arrivals, 0) as pending_arrivals,
        coalesce(arrivals.delayed_arrivals, 0) as delayed_arrivals,
        arrivals.average_arrival_delay_minutes
    from departures
    full outer join arrivals
        on
            departures.airport_code = arrivals.airport_code
            and departures.event_date = arrivals.event_date

)

select * from final
