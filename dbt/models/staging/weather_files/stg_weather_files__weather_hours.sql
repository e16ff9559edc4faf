with source as (

    select * from {{ source('weather_files', 'weather') }}
    where _deleted_at is null

),

renamed as (

    select
        origin as airport_code,
        time_hour as observed_hour_at,
        make_date(year, month, day) as observed_local_date,
        hour as observed_local_hour,
        -- Rounded, not cast to a narrower type: a mad reading must reach the test that reports it, not break the view.
        round(temp, 2) as temperature_fahrenheit,
        round(dewp, 2) as dew_point_fahrenheit,
        round(humid, 2) as relative_humidity_percent,
        wind_dir as wind_direction_degrees,
        -- The files hold knots multiplied into miles per hour, with the noise of binary fractions.
        round(wind_speed, 2) as wind_speed_mph,
        round(wind_gust, 2) as wind_gust_mph,
        round(precip, 2) as precipitation_inches,
        pressure as pressure_millibars,
        round(visib, 2) as visibility_miles,
        _load_id as load_id,
        _loaded_at as loaded_at
    from source

)

select * from renamed
