{% test has_no_gaps(model, event_time, time_zone, first=none, tolerated=[]) %}

{% set day_in = adapter.dispatch('day_in', 'headwater_tests') %}
{% set day_series = adapter.dispatch('day_series', 'headwater_tests') %}
{% set is_not_tolerated = adapter.dispatch('is_not_tolerated', 'headwater_tests') %}

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
cross join {{ day_series('span.first_day', 'span.last_day') }} as grid (day)
left join days_with_rows on grid.day::date = days_with_rows.event_day
where
    days_with_rows.event_day is null
    and {{ is_not_tolerated('grid.day::date', tolerated) }}

{% endtest %}
