{#
    dbt's own tests return the value that fails and no more. A failure that is kept should lead to the load that brought it.
#}
{% macro postgres__test_unique(model, column_name) %}

{% set load_id = adapter.dispatch('load_id_column', 'headwater_tests')(model) %}

select
    {{ column_name }} as unique_field,
    {% if load_id %}
    array_agg(distinct {{ load_id }}) as load_ids,
    {% endif %}
    count(*) as n_records
from {{ model }}
where {{ column_name }} is not null
group by {{ column_name }}
having count(*) > 1

{% endmacro %}

{% macro spark__test_unique(model, column_name) %}
{{ return(postgres__test_unique(model, column_name)) }}
{% endmacro %}

{% macro postgres__test_relationships(model, column_name, to, field) %}

select child.*
from {{ model }} as child
left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
where
    child.{{ column_name }} is not null
    and parent.{{ field }} is null

{% endmacro %}

{% macro spark__test_relationships(model, column_name, to, field) %}
{{ return(postgres__test_relationships(model, column_name, to, field)) }}
{% endmacro %}
