with flights as (

    select * from {{ ref('fct_flights') }}

),

counted as (

    select
        origin_airport_code,
        weather_category,
        count(*) as scheduled_flights,
        count(*) filter (where flight_status <> 'scheduled') as completed_flights,
        count(*) filter (where flight_status in ('landed', 'diverted')) as flown_flights,
        count(*) filter (where flight_status = 'cancelled') as cancelled_flights,
        count(*) filter (where is_departure_delayed) as delayed_departures,
        {{ mean('departure_delay_minutes') }} as mean_departure_delay_minutes,
        {{ mean('arrival_delay_minutes') }} as mean_arrival_delay_minutes,
        percentile_cont(0.5) within group (order by departure_delay_minutes) as median_departure_delay_minutes
    from flights
    group by origin_airport_code, weather_category

),

compared as (

    select
        counted.*,
        -- Against the same airport in clear weather: LaGuardia's rain is not measured by Newark's sunshine.
        counted.mean_departure_delay_minutes - clear_weather.mean_departure_delay_minutes
            as added_departure_delay_minutes,
        -- The mean of a handful of flights is an anecdote, and flights whose weather was not observed say nothing
        -- about weather: both are shown, neither is ranked.
        (
            counted.weather_category <> 'unknown'
            and counted.flown_flights >= {{ var('weather_impact_minimum_flights') }}
        ) as is_ranked
    from counted
    left join counted as clear_weather
        on
            counted.origin_airport_code = clear_weather.origin_airport_code
            and clear_weather.weather_category = 'clear'

),

final as (

    select
        origin_airport_code,
        weather_category,
        scheduled_flights,
        completed_flights,
        flown_flights,
        cancelled_flights,
        delayed_departures,
        mean_departure_delay_minutes::numeric(8, 2) as mean_departure_delay_minutes,
        median_departure_delay_minutes::numeric(8, 2) as median_departure_delay_minutes,
        mean_arrival_delay_minutes::numeric(8, 2) as mean_arrival_delay_minutes,
        added_departure_delay_minutes::numeric(8, 2) as added_departure_delay_minutes,
        {{ share('delayed_departures', 'flown_flights') }}::numeric(5, 4) as delayed_departure_share,
        {{ share('cancelled_flights', 'completed_flights') }}::numeric(5, 4) as cancelled_share,
        {{ var('weather_impact_minimum_flights') }} as minimum_flights_for_rank,
        -- Ties are broken by name, so that a rank is the same after every build.
        case
            when is_ranked
                then {{ as_bigint("
                row_number() over (
                    partition by is_ranked
                    order by mean_departure_delay_minutes desc, origin_airport_code asc, weather_category asc
                )
                ") }}
        end as delay_rank
    from compared

)

select * from final
