{% macro default__rows_breaking(model, condition, tolerated_share) %}

{% if tolerated_share == 0 %}

select *
from {{ model }}
where ({{ condition }}) is not true

{% else %}

with counted as (

    select
        count(*) as row_count,
        count(*) filter (where ({{ condition }}) is not true) as failing_count
    from {{ model }}

)

-- The first condition is of no row, so PostgreSQL decides it before it reads any: a test that passes scans once.
select *
from {{ model }}
where
    (select failing_count > row_count * {{ tolerated_share }} from counted)
    and ({{ condition }}) is not true

{% endif %}

{% endmacro %}
