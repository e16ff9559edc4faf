with staged as (

    select
        flight_id,
        loaded_at
    from {{ ref('stg_flights_api__flights') }}

),

built as (

    select
        flight_id,
        loaded_at
    from {{ ref('fct_flights') }}

),

last_build as (

    select max(loaded_at) as newest_loaded_at
    from {{ ref('fct_flights') }}

)

select
    staged.flight_id,
    staged.loaded_at as staged_loaded_at,
    built.flight_id as built_flight_id,
    built.loaded_at as built_loaded_at
from staged
full outer join built on staged.flight_id = built.flight_id
cross join last_build
where
    staged.flight_id is null
    -- Staging is a view and may have moved on since the mart was built; what is newer than the mart is the next run's.
    or (
        staged.loaded_at <= last_build.newest_loaded_at
        and staged.loaded_at is distinct from built.loaded_at
    )
