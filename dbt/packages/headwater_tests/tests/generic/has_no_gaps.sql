{% test has_no_gaps(model, event_time, time_zone, first=none, tolerated=[]) %}

{% set day_in = adapter.dispatch('day_in', 'headwater_tests') %}
{% set tolerated_days = adapter.dispatch('tolerated_days', 'headwater_tests') %}

with days_with_rows as (

    select distinct {{ day_in(event_time, time_zone) }} as event_day
    from {{ model }}

),

span as (

    select
        {{ "'" ~ first ~ "'::date" if first else 'min(event_day)' }} as first_day,
        max(event_day) as last_day
    from days_with_rows

)

select grid.day::date as missing_day
from span
cross join generate_series(span.first_day::timestamp, span.last_day::timestamp, interval '1 day') as grid (day)
left join days_with_rows on grid.day::date = days_with_rows.event_day
where
    days_with_rows.event_day is null
    and grid.day::date <> all({{ tolerated_days(tolerated) }})

{% endtest %}
