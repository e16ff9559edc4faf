{% macro default__rows_breaking(model, condition, tolerated_share) %}

{% if tolerated_share == 0 %}

select *
from {{ model }}
where ({{ condition }}) is not true

{% else %}

with failing as (

    select *
    from {{ model }}
    where ({{ condition }}) is not true

)

select *
from failing
where (select count(*) from failing) > {{ tolerated_share }} * (select count(*) from {{ model }})

{% endif %}

{% endmacro %}
