with weather_hours as (

    select * from {{ ref('stg_weather_files__weather_hours') }}

),

plausible as (

    select
        airport_code,
        observed_hour_at,
        temperature_fahrenheit,
        case when wind_speed_mph < {{ var('implausible_wind_mph') }} then wind_speed_mph end as wind_speed_mph,
        case when wind_gust_mph < {{ var('implausible_wind_mph') }} then wind_gust_mph end as wind_gust_mph,
        precipitation_inches,
        visibility_miles,
        loaded_at
    from weather_hours

),

categorized as (

    select
        airport_code,
        observed_hour_at,
        -- The first that holds wins: from what closes a runway to what only slows it.
        case
            when precipitation_inches is null or visibility_miles is null
                then 'unknown'
            when
                temperature_fahrenheit <= {{ var('freezing_point_fahrenheit') }}
                -- Gauges read nothing or next to nothing in dry snow; poor visibility in frost gives it away.
                and (precipitation_inches > 0 or visibility_miles < {{ var('low_visibility_miles') }})
                then 'snow_or_freezing'
            when precipitation_inches > {{ var('heavy_rain_inches') }}
                then 'heavy_rain'
            when precipitation_inches > 0
                then 'rain'
            when visibility_miles < {{ var('low_visibility_miles') }}
                then 'low_visibility'
            when
                wind_speed_mph >= {{ var('strong_wind_mph') }}
                or wind_gust_mph >= {{ var('strong_gust_mph') }}
                then 'strong_wind'
            else 'clear'
        end as weather_category,
        temperature_fahrenheit,
        wind_speed_mph,
        wind_gust_mph,
        precipitation_inches,
        visibility_miles,
        loaded_at
    from plausible

)

select * from categorized
