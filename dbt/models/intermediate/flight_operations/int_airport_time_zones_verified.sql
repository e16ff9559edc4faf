{{
    config(
        materialized='table',
        indexes=[{'columns': ['airport_code'], 'unique': true}],
    )
}}

-- An unknown zone name makes `at time zone` raise, and one bad row in the register would then stop the whole build.
-- Only names this very server knows pass; which names those are differs between servers (Asia/Chongqing, for one, is
-- a legacy alias that some packagings leave out).

with airports as (

    select * from {{ ref('stg_operations_db__airports') }}

),

server_time_zones as (

    {{ known_time_zones() }}

),

verified as (

    select
        airports.airport_code,
        server_time_zones.time_zone_name
    from airports
    left join server_time_zones on airports.time_zone_name = server_time_zones.time_zone_name

)

select * from verified
