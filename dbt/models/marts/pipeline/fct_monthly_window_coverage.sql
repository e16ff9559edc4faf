-- A gap is where no window is between two that are: it counts in the month in which it begins. What a stream's
-- definition asks for beyond its first and last window is not known here; `headwater windows` says that.

with windows as (

    select
        *,
        date_trunc('month', window_started_at at time zone 'UTC')::date as month_start_date,
        max(window_ended_at) over (
            partition by source_name, stream_name
            order by window_started_at
            rows between unbounded preceding and 1 preceding
        ) as covered_until_at
    from {{ ref('stg_ops__windows') }}

),

present as (

    select
        source_name,
        stream_name,
        month_start_date,
        count(*) as windows,
        count(*) filter (where is_read_whole) as windows_read_whole,
        count(*) filter (where is_stale) as stale_windows,
        count(*) filter (where not is_built) as unbuilt_windows,
        count(*) filter (where window_rows = 0) as empty_windows,
        sum(window_rows)::bigint as window_rows,
        sum(extract(epoch from window_ended_at - window_started_at) / 3600) as covered_hours
    from windows
    group by source_name, stream_name, month_start_date

),

gaps as (

    select
        source_name,
        stream_name,
        date_trunc('month', covered_until_at at time zone 'UTC')::date as month_start_date,
        count(*) as gaps,
        sum(extract(epoch from window_started_at - covered_until_at) / 3600) as missing_hours
    from windows
    where window_started_at > covered_until_at
    group by source_name, stream_name, date_trunc('month', covered_until_at at time zone 'UTC')::date

),

final as (

    select
        coalesce(present.source_name, gaps.source_name) as source_name,
        coalesce(present.stream_name, gaps.stream_name) as stream_name,
        coalesce(present.month_start_date, gaps.month_start_date) as month_start_date,
        coalesce(present.windows, 0) as windows,
        coalesce(present.windows_read_whole, 0) as windows_read_whole,
        coalesce(present.stale_windows, 0) as stale_windows,
        coalesce(present.unbuilt_windows, 0) as unbuilt_windows,
        coalesce(present.empty_windows, 0) as empty_windows,
        coalesce(present.window_rows, 0) as window_rows,
        coalesce(present.covered_hours, 0)::numeric(12, 2) as covered_hours,
        coalesce(gaps.gaps, 0) as gaps,
        coalesce(gaps.missing_hours, 0)::numeric(12, 2) as missing_hours
    from present
    full outer join gaps
        on
            present.source_name = gaps.source_name
            and present.stream_name = gaps.stream_name
            and present.month_start_date = gaps.month_start_date

)

select * from final
