-- Members missing from the register are taken from fct_flights, not from staging: a load that commits while this
-- build runs may bring new tail numbers, and the dimension must match the fact as it was built.

with planes as (

    select * from {{ ref('stg_operations_db__planes') }}

),

flown_tail_numbers as (

    select distinct tail_number
    from {{ ref('fct_flights') }}
    where tail_number is not null

),

registered_members as (

    select
        tail_number as plane_key,
        tail_number,
        manufacture_year,
        plane_type,
        manufacturer_name,
        model_name,
        engine_count,
        engine_type,
        seat_count,
        cruising_speed_mph,
        false as is_inferred
    from planes

),

inferred_tail_numbers as (

    select
        flown_tail_numbers.tail_number as plane_key,
        flown_tail_numbers.tail_number
    from flown_tail_numbers
    left join planes on flown_tail_numbers.tail_number = planes.tail_number
    where planes.tail_number is null

    union all

    -- The one member for flights that name no plane; it is there even while every flight names one.
    select
        'unknown' as plane_key,
        null as tail_number

),

inferred_members as (

    select
        plane_key,
        tail_number,
        null::integer as manufacture_year,
        null::{{ text_type() }} as plane_type,
        null::{{ text_type() }} as manufacturer_name,
        null::{{ text_type() }} as model_name,
        null::integer as engine_count,
        null::{{ text_type() }} as engine_type,
        null::integer as seat_count,
        null::integer as cruising_speed_mph,
        true as is_inferred
    from inferred_tail_numbers

),

final as (

    select * from registered_members
    union all
    select * from inferred_members

)

select * from final
