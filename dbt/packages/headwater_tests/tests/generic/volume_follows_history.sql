{% test volume_follows_history(
    model, event_time, time_zone, at_least=0.6, at_most=1.6, days=7, weeks=8, least_history=3, tolerated=[]
) %}

{% set current_instant = adapter.dispatch('current_instant', 'headwater_tests') %}
{% set day_in = adapter.dispatch('day_in', 'headwater_tests') %}
{% set days_between = adapter.dispatch('days_between', 'headwater_tests') %}
{% set is_not_tolerated = adapter.dispatch('is_not_tolerated', 'headwater_tests') %}
{% set midnight = adapter.dispatch('midnight', 'headwater_tests') %}

with clock as (

    select {{ day_in(current_instant(), time_zone) }} as today

),

counted as (

    select
        {{ day_in(event_time, time_zone) }} as event_day,
        count(*) as row_count
    from {{ model }}
    where
        {{ event_time }} >= (
            select {{ midnight('clock.today - (' ~ days ~ ' + 7 * ' ~ weeks ~ ')', time_zone) }}
            from clock
        )
    group by 1

),

compared as (

    select
        latest.event_day,
        latest.row_count,
        count(*) as history_days,
        percentile_cont(0.5) within group (order by earlier.row_count) as usual_row_count
    from counted as latest
    cross join clock
    -- The same weekday, so that a Saturday is measured by Saturdays.
    inner join counted as earlier
        on
            earlier.event_day < latest.event_day
            and earlier.event_day >= latest.event_day - 7 * {{ weeks }}
            and ({{ days_between('earlier.event_day', 'latest.event_day') }}) % 7 = 0
            and {{ is_not_tolerated('earlier.event_day', tolerated) }}
    where
        latest.event_day < clock.today
        and latest.event_day >= clock.today - {{ days }}
        and {{ is_not_tolerated('latest.event_day', tolerated) }}
    group by latest.event_day, latest.row_count

)

select
    event_day,
    row_count,
    usual_row_count,
    history_days
from compared
where
    history_days >= {{ least_history }}
    and row_count not between usual_row_count * {{ at_least }} and usual_row_count * {{ at_most }}

{% endtest %}
