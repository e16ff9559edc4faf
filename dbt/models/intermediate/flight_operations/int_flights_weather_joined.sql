with flights as (

    select * from {{ ref('int_flights_localized') }}

),

weather_hours as (

    select * from {{ ref('int_weather_hours_categorized') }}

),

-- The weather of the scheduled hour, also for a flight that left hours late: it is what the schedule met, it exists
-- for cancelled flights too, and it does not change when the flight does.
joined as (

    select
        flights.*,
        weather_hours.observed_hour_at is not null as has_weather,
        coalesce(weather_hours.weather_category, 'unknown') as weather_category,
        weather_hours.temperature_fahrenheit,
        weather_hours.wind_speed_mph,
        weather_hours.wind_gust_mph,
        weather_hours.precipitation_inches,
        weather_hours.visibility_miles,
        weather_hours.loaded_at as weather_loaded_at
    from flights
    left join weather_hours
        on
            flights.origin_airport_code = weather_hours.airport_code
            and flights.scheduled_departure_hour_at = weather_hours.observed_hour_at

)

select * from joined
