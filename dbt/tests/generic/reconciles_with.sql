{% test reconciles_with(model, other, by, measures) %}

with summed as (

    select
        {%- for column in by.keys() %}
        {{ column }} as key_{{ loop.index }},
        {%- endfor %}
        {%- for measure in measures.keys() %}
        {{ measure }} as measure_{{ loop.index }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}
    group by {{ by.keys() | join(', ') }}

),

summed_other as (

    select
        {%- for column in by.values() %}
        {{ column }} as key_{{ loop.index }},
        {%- endfor %}
        {%- for measure in measures.values() %}
        {{ measure }} as measure_{{ loop.index }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ other }}
    group by {{ by.values() | join(', ') }}

)

-- A group that one side lacks counts as zero there: an airport without departures has no row to sum.
select
    {%- for column in by.keys() %}
    coalesce(summed.key_{{ loop.index }}, summed_other.key_{{ loop.index }}) as {{ column }},
    {%- endfor %}
    {%- for measure in measures.keys() %}
    summed.measure_{{ loop.index }},
    summed_other.measure_{{ loop.index }} as other_measure_{{ loop.index }}{{ ',' if not loop.last }}
    {%- endfor %}
from summed
full outer join summed_other
    on
        {% for column in by.keys() -%}
        {{ 'and ' if not loop.first }}summed.key_{{ loop.index }} = summed_other.key_{{ loop.index }}
        {% endfor %}
where
    {% for measure in measures.keys() -%}
    {{ 'or ' if not loop.first }}coalesce(summed.measure_{{ loop.index }}, 0) <> coalesce(summed_other.measure_{{ loop.index }}, 0)
    {% endfor %}

{% endtest %}
