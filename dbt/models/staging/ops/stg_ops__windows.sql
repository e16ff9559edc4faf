with source as (

    select * from {{ source('ops', 'windows') }}

),

renamed as (

    select
        source as source_name,
        stream as stream_name,
        window_start as window_started_at,
        window_end as window_ended_at,
        rows as window_rows,
        read_at is not null as is_read_whole,
        is_stale,
        built_by is not null as is_built
    from source

)

select * from renamed
