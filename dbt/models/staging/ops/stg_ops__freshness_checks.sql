with source as (

    select * from {{ source('ops', 'freshness') }}

),

renamed as (

    select
        source as source_name,
        stream as stream_name,
        checked_at,
        (checked_at at time zone 'UTC')::date as checked_date,
        as_of as complete_until_at,
        (extract(epoch from checked_at - as_of) / 3600)::numeric(12, 2) as lag_hours,
        status as freshness_status
    from source

)

select * from renamed
