{{ config(indexes=[{'columns': ['event_date']}]) }}

with flights as (

    select * from {{ ref('fct_flights') }}

),

counted as (

    select
        carrier_code,
        event_date,
        count(*) as scheduled_flights,
        count(*) filter (where delay_class <> 'scheduled') as completed_flights,
        count(*) filter (where flight_status in ('landed', 'diverted')) as flown_flights,
        count(*) filter (where delay_class = 'scheduled') as pending_flights,
        count(*) filter (where delay_class = 'cancelled') as cancelled_flights,
        count(*) filter (where delay_class = 'diverted') as diverted_flights,
        count(*) filter (where delay_class = 'on_time') as on_time_flights,
        count(*) filter (where delay_class = 'minor') as minor_delay_flights,
        count(*) filter (where delay_class = 'major') as major_delay_flights,
        count(*) filter (where delay_class = 'severe') as severe_delay_flights,
        {{ mean('departure_delay_minutes') }}::numeric(8, 2) as average_departure_delay_minutes,
        {{ mean('arrival_delay_minutes') }}::numeric(8, 2) as average_arrival_delay_minutes,
        coalesce(sum(air_time_minutes), 0) as total_air_time_minutes,
        -- A diverted flight flew, but how far is not known: only the planned distance of landed flights counts.
        coalesce(sum(distance_miles) filter (where flight_status = 'landed'), 0) as total_distance_miles
    from flights
    group by carrier_code, event_date

),

final as (

    select
        carrier_code,
        event_date,
        scheduled_flights,
        completed_flights,
        flown_flights,
        pending_flights,
        cancelled_flights,
        diverted_flights,
        on_time_flights,
        minor_delay_flights,
        major_delay_flights,
        severe_delay_flights,
        -- Cancelled and diverted flights stay in the denominator, as in the official on-time statistics: a carrier must
        -- not look punctual by cancelling.
        {{ share('on_time_flights', 'completed_flights') }}::numeric(5, 4) as on_time_share,
        {{ share('cancelled_flights', 'completed_flights') }}::numeric(5, 4) as cancelled_share,
        average_departure_delay_minutes,
        average_arrival_delay_minutes,
        total_air_time_minutes,
        total_distance_miles
    from counted

)

select * from final
