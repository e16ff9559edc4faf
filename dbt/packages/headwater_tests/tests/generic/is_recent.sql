{% test is_recent(model, event_time, time_zone, grace='0 hours', first=none, until=none) %}

{% set current_instant = adapter.dispatch('current_instant', 'headwater_tests') %}
{% set days_between = adapter.dispatch('days_between', 'headwater_tests') %}
{% set end_of_time = adapter.dispatch('end_of_time', 'headwater_tests') %}
{% set day_in = adapter.dispatch('day_in', 'headwater_tests') %}
{{ config(fail_calc='coalesce(max(days_behind), 0)') }}

with due as (

    select
        least(
            {{ day_in(current_instant() ~ " - interval '" ~ grace ~ "'", time_zone) }} - 1,
            {{ "'" ~ until ~ "'::date - 1" if until else end_of_time() }}
        ) as due_day

),

newest as (

    select {{ day_in('max(' ~ event_time ~ ')', time_zone) }} as newest_day
    from {{ model }}

)

select
    newest.newest_day,
    due.due_day,
    -- Without a row it is behind by as much as can be.
    coalesce({{ days_between('newest.newest_day', 'due.due_day') }}, 2147483647) as days_behind
from due
cross join newest
where
    (newest.newest_day is null or newest.newest_day < due.due_day)
    {% if first %}
    and due.due_day >= '{{ first }}'::date
    {% endif %}

{% endtest %}
