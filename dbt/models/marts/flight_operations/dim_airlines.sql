-- Members missing from the register are taken from fct_flights, for the reason given in dim_planes.

with airlines as (

    select * from {{ ref('stg_operations_db__airlines') }}

),

flown_carrier_codes as (

    select distinct carrier_code
    from {{ ref('fct_flights') }}

),

registered_members as (

    select
        carrier_code,
        airline_name,
        false as is_inferred
    from airlines

),

inferred_members as (

    select
        flown_carrier_codes.carrier_code,
        -- The code stands in for the name, so that a label on a chart is never empty.
        flown_carrier_codes.carrier_code as airline_name,
        true as is_inferred
    from flown_carrier_codes
    left join airlines on flown_carrier_codes.carrier_code = airlines.carrier_code
    where airlines.carrier_code is null

),

final as (

    select * from registered_members
    union all
    select * from inferred_members

)

select * from final
