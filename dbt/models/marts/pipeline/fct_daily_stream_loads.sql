{{ config(indexes=[{'columns': ['load_date']}]) }}

-- Made anew each time: a load that failed may be taken up days later, and the ledger never forgets one. A row of it
-- stands for thousands of rows of data.

with loads as (

    select * from {{ ref('stg_ops__loads') }}

),

final as (

    select
        source_name,
        stream_name,
        started_date as load_date,
        count(*) as loads,
        count(*) filter (where load_status = 'loaded') as committed_loads,
        count(*) filter (where load_status = 'failed') as failed_loads,
        count(*) filter (where is_of_window) as window_loads,
        sum(attempts - 1)::bigint as retries,
        sum(extracted_rows)::bigint as extracted_rows,
        sum(inserted_rows)::bigint as inserted_rows,
        sum(updated_rows)::bigint as updated_rows,
        sum(deleted_rows)::bigint as deleted_rows,
        sum(quarantined_rows)::bigint as quarantined_rows,
        sum(landed_bytes)::bigint as landed_bytes,
        sum(requests)::bigint as requests,
        sum(load_seconds)::numeric(14, 3) as total_seconds,
        (percentile_cont(0.5) within group (order by load_seconds))::numeric(12, 3) as median_seconds,
        (percentile_cont(0.95) within group (order by load_seconds))::numeric(12, 3) as p95_seconds
    from loads
    group by source_name, stream_name, started_date

)

select * from final
