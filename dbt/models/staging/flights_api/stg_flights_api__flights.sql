with source as (

    select * from {{ source('flights_api', 'flights') }}
    where _deleted_at is null

),

renamed as (

    select
        id as flight_id,
        carrier as carrier_code,
        flight::integer as flight_number,
        nullif(tailnum, '') as tail_number,
        origin as origin_airport_code,
        dest as destination_airport_code,
        status as flight_status,
        time_hour as scheduled_departure_hour_at,
        minute::integer as scheduled_departure_minute,
        make_date(year::integer, month::integer, day::integer) as scheduled_departure_local_date,
        sched_dep_time::integer as scheduled_departure_local_hhmm,
        dep_time::integer as actual_departure_local_hhmm,
        sched_arr_time::integer as scheduled_arrival_local_hhmm,
        arr_time::integer as actual_arrival_local_hhmm,
        dep_delay::integer as departure_delay_minutes,
        arr_delay::integer as arrival_delay_minutes,
        air_time::integer as air_time_minutes,
        distance::integer as distance_miles,
        updated_at as source_updated_at,
        _load_id as load_id,
        _loaded_at as loaded_at
    from source

)

select * from renamed
