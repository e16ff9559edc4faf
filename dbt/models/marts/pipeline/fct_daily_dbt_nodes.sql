{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['node_id', 'run_date'],
        on_schema_change='append_new_columns',
        full_refresh=false,
    )
}}

-- What it is made from is deleted after a season (the flow housekeeping), and this is not: it cannot be built again, so
-- that a full refresh leaves it alone. The last days are counted anew, since builds go on around midnight.

with invocations as (

    select * from {{ ref('stg_ops__dbt_invocations') }}
    {% if is_incremental() %}
    where started_date >= (select coalesce(max(this.run_date), '-infinity') - 2 from {{ this }} as this)
    {% endif %}

),

results as (

    select
        results.*,
        invocations.started_date as run_date
    from {{ ref('stg_ops__dbt_results') }} as results
    inner join invocations on results.invocation_id = invocations.invocation_id
    where not results.is_test

),

by_day as (

    select
        node_id,
        run_date,
        max(node_name) as node_name,
        max(resource_type) as resource_type,
        max(layer) as layer,
        count(*) filter (where outcome <> 'skipped') as runs,
        count(*) filter (where outcome = 'failed') as failed_runs,
        count(*) filter (where outcome = 'skipped') as skipped_runs,
        count(distinct compiled_sha256) as versions,
        sum(written_rows)::bigint as written_rows,
        sum(node_seconds)::numeric(14, 3) as total_seconds,
        (percentile_cont(0.5) within group (order by node_seconds))::numeric(12, 3) as median_seconds,
        (percentile_cont(0.95) within group (order by node_seconds))::numeric(12, 3) as p95_seconds
    from results
    group by node_id, run_date

),

final as (

    select
        *,
        rank() over (partition by run_date order by coalesce(total_seconds, 0) desc) as slowness_rank
    from by_day

)

select * from final
