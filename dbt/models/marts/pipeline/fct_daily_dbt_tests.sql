{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['test_id', 'run_date'],
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
        invocations.started_date as run_date,
        invocations.started_at as build_started_at
    from {{ ref('stg_ops__dbt_results') }} as results
    inner join invocations on results.invocation_id = invocations.invocation_id
    where results.is_test

),

final as (

    select
        node_id as test_id,
        run_date,
        max(node_name) as test_name,
        (array_agg(severity order by build_started_at desc))[1] as severity,
        (array_agg(tested_nodes order by build_started_at desc))[1] as tested_nodes,
        count(*) filter (where outcome <> 'skipped') as runs,
        count(*) filter (where outcome = 'passed') as passed_runs,
        count(*) filter (where outcome = 'warned') as warned_runs,
        count(*) filter (where outcome = 'failed') as failed_runs,
        count(*) filter (where outcome = 'skipped') as skipped_runs,
        coalesce(max(failing_rows), 0) as most_failing_rows,
        (array_agg(outcome order by build_started_at desc))[1] as last_outcome,
        (percentile_cont(0.5) within group (order by node_seconds))::numeric(12, 3) as median_seconds
    from results
    group by node_id, run_date

)

select * from final
