-- The two daily marts are grouped differently, but for any day both must tell the same story.

with by_airport as (

    select
        event_date,
        sum(scheduled_departures) as scheduled_flights,
        sum(cancelled_departures) as cancelled_flights,
        sum(pending_departures) as pending_flights
    from {{ ref('fct_daily_airport_operations') }}
    group by event_date

),

by_carrier as (

    select
        event_date,
        sum(scheduled_flights) as scheduled_flights,
        sum(cancelled_flights) as cancelled_flights,
        sum(pending_flights) as pending_flights
    from {{ ref('fct_daily_carrier_performance') }}
    group by event_date

)

select
    coalesce(by_airport.event_date, by_carrier.event_date) as event_date,
    by_airport.scheduled_flights,
    by_carrier.scheduled_flights as carrier_scheduled_flights,
    by_airport.cancelled_flights,
    by_carrier.cancelled_flights as carrier_cancelled_flights,
    by_airport.pending_flights,
    by_carrier.pending_flights as carrier_pending_flights
from by_airport
full outer join by_carrier on by_airport.event_date = by_carrier.event_date
where
    by_airport.scheduled_flights is distinct from by_carrier.scheduled_flights
    or by_airport.cancelled_flights is distinct from by_carrier.cancelled_flights
    or by_airport.pending_flights is distinct from by_carrier.pending_flights
