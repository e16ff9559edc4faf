{% test reconciles_with(model, other, by, measures) %}

{% set key_names = [] %}
{% set measure_names = [] %}
{% set other_measure_names = [] %}
{% for column in by %}
{% do key_names.append('key_' ~ loop.index) %}
{% endfor %}
{% for measure in measures %}
{% do measure_names.append('measure_' ~ loop.index) %}
{% do other_measure_names.append('other_measure_' ~ loop.index) %}
{% endfor %}

with summed ({{ (key_names + measure_names) | join(', ') }}) as (

    select {{ (by.keys() | list + measures.keys() | list) | join(', ') }}
    from {{ model }}
    group by {{ by.keys() | join(', ') }}

),

summed_other ({{ (key_names + other_measure_names) | join(', ') }}) as (

    select {{ (by.values() | list + measures.values() | list) | join(', ') }}
    from {{ other }}
    group by {{ by.values() | join(', ') }}

)

-- A group that one side lacks counts as zero there: an airport without departures has no row to sum.
select *
from summed
full outer join summed_other using ({{ key_names | join(', ') }})
where
    false
    {% for measure in measures %}
    or coalesce(measure_{{ loop.index }}, 0) <> coalesce(other_measure_{{ loop.index }}, 0)
    {% endfor %}

{% endtest %}
