with source as (

    select * from {{ source('ops', 'dbt_results') }}

),

renamed as (

    select
        invocation_id,
        node as node_id,
        name as node_name,
        resource_type,
        resource_type in ('test', 'unit_test') as is_test,
        layer,
        severity,
        status as node_status,
        -- dbt's words are many; what matters is whether it did what it was to do.
        case
            when status in ('success', 'pass', 'no-op') then 'passed'
            when status = 'warn' then 'warned'
            when status = 'skipped' then 'skipped'
            else 'failed'
        end as outcome,
        failures as failing_rows,
        rows_affected as written_rows,
        started_at,
        extract(epoch from ended_at - started_at)::numeric(12, 3) as node_seconds,
        compiled_sha256,
        array_to_string(tests, ', ') as tested_nodes
    from source

)

select * from renamed
