{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['source_name', 'stream_name', 'check_date'],
        on_schema_change='append_new_columns',
        full_refresh=false,
    )
}}

-- What it is made from is deleted after a season (the flow housekeeping), and this is not: it cannot be built again, so
-- that a full refresh leaves it alone. The last days are counted anew, since builds go on around midnight.

with checks as (

    select * from {{ ref('stg_ops__freshness_checks') }}
    {% if is_incremental() %}
    where checked_date >= (select coalesce(max(this.check_date), '-infinity') - 2 from {{ this }} as this)
    {% endif %}

),

final as (

    select
        source_name,
        stream_name,
        checked_date as check_date,
        count(*) as checks,
        count(*) filter (where freshness_status = 'late') as late_checks,
        count(*) filter (where freshness_status in ('stale', 'never loaded')) as stale_checks,
        max(lag_hours) as greatest_lag_hours,
        (array_agg(freshness_status order by checked_at desc))[1] as last_status
    from checks
    group by source_name, stream_name, checked_date

)

select * from final
