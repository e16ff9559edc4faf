with flights as (

    select * from {{ ref('int_flights_weather_joined') }}

),

classified as (

    select
        *,
        -- By arrival, as the passenger feels it. No default for a landed flight without a delay: that contradiction
        -- must fail in the mart's contract, not be called on time.
        case
            when flight_status in ('cancelled', 'diverted', 'scheduled') then flight_status
            when arrival_delay_minutes >= {{ var('severe_delay_minutes') }} then 'severe'
            when arrival_delay_minutes >= {{ var('major_delay_minutes') }} then 'major'
            when arrival_delay_minutes >= {{ var('minor_delay_minutes') }} then 'minor'
            when arrival_delay_minutes < {{ var('minor_delay_minutes') }} then 'on_time'
        end as delay_class,
        departure_delay_minutes >= {{ var('minor_delay_minutes') }} as is_departure_delayed,
        arrival_delay_minutes >= {{ var('minor_delay_minutes') }} as is_arrival_delayed
    from flights

)

select * from classified
