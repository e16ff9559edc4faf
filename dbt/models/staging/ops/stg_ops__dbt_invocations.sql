with source as (

    select * from {{ source('ops', 'dbt_invocations') }}

),

renamed as (

    select
        invocation_id,
        selection,
        is_full_refresh,
        is_success,
        started_at,
        (started_at at time zone 'UTC')::date as started_date,
        extract(epoch from ended_at - started_at)::numeric(12, 3) as build_seconds,
        generation
    from source

)

select * from renamed
