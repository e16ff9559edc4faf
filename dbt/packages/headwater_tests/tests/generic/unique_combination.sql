{% test unique_combination(model, columns) %}

{% set load_id = adapter.dispatch('load_id_column', 'headwater_tests')(model) %}

select
    {{ columns | join(', ') }},
    {% if load_id %}
    array_agg(distinct {{ load_id }}) as load_ids,
    {% endif %}
    count(*) as row_count
from {{ model }}
group by {{ columns | join(', ') }}
having
    count(*) > 1
    or {{ adapter.dispatch('null_count', 'headwater_tests')(columns) }} > 0

{% endtest %}
