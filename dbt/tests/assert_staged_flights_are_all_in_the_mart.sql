with staged as (

    select flights.flight_id, flights.loaded_at
    from {{ ref('stg_flights_api__flights') }} as flights

),

built as (

    select flights.flight_id, flights.loaded_at
    from {{ ref('fct_flights') }} as flights

),

last_build as (

    select max(built.loaded_at) as newest_loaded_at
    from built

),

-- Staging is a view and may have moved on since the mart was built; what is newer than the mart is the next run's work.
due as (

    select staged.flight_id, staged.loaded_at
    from staged
    inner join last_build on staged.loaded_at <= last_build.newest_loaded_at

)

select
    due.flight_id,
    'missing from fct_flights, or there in an older version' as problem
from due
left join built on due.flight_id = built.flight_id and due.loaded_at = built.loaded_at
where built.flight_id is null

union all

select
    built.flight_id,
    'in fct_flights, but no longer in the source' as problem
from built
left join staged on built.flight_id = staged.flight_id
where staged.flight_id is null
