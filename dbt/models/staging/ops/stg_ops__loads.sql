with source as (

    select * from {{ source('ops', 'loads') }}

),

renamed as (

    select
        load_id,
        source as source_name,
        stream as stream_name,
        kind as load_kind,
        status as load_status,
        window_start is not null as is_of_window,
        started_at,
        (started_at at time zone 'UTC')::date as started_date,
        loaded_at as committed_at,
        extract(epoch from loaded_at - started_at)::numeric(12, 3) as load_seconds,
        attempt as attempts,
        coalesce(rows_extracted, 0) as extracted_rows,
        coalesce(rows_inserted, 0) as inserted_rows,
        coalesce(rows_updated, 0) as updated_rows,
        coalesce(rows_deleted, 0) as deleted_rows,
        coalesce(rows_quarantined, 0) as quarantined_rows,
        coalesce(bytes_landed, 0) as landed_bytes,
        requests
    from source

)

select * from renamed
