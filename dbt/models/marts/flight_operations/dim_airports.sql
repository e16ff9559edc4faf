-- Members missing from the register are taken from fct_flights, for the reason given in dim_planes.

with airports as (

    select * from {{ ref('stg_operations_db__airports') }}

),

airport_time_zones as (

    select * from {{ ref('int_airport_time_zones_verified') }}

),

served_airport_codes as (

    select origin_airport_code as airport_code
    from {{ ref('fct_flights') }}

    union distinct

    select destination_airport_code as airport_code
    from {{ ref('fct_flights') }}

),

registered_members as (

    select
        airports.airport_code,
        airports.airport_name,
        airports.latitude_degrees,
        airports.longitude_degrees,
        airports.has_plausible_location,
        airports.altitude_feet,
        airports.utc_offset_hours,
        airports.daylight_saving_code,
        airport_time_zones.time_zone_name,
        false as is_inferred
    from airports
    left join airport_time_zones on airports.airport_code = airport_time_zones.airport_code

),

inferred_members as (

    select
        served_airport_codes.airport_code,
        -- The code stands in for the name, so that a label on a chart is never empty.
        served_airport_codes.airport_code as airport_name,
        null::{{ float_type() }} as latitude_degrees,
        null::{{ float_type() }} as longitude_degrees,
        false as has_plausible_location,
        null::integer as altitude_feet,
        null::integer as utc_offset_hours,
        null::{{ text_type() }} as daylight_saving_code,
        null::{{ text_type() }} as time_zone_name,
        true as is_inferred
    from served_airport_codes
    left join airports on served_airport_codes.airport_code = airports.airport_code
    where airports.airport_code is null

),

final as (

    select * from registered_members
    union all
    select * from inferred_members

)

select * from final
