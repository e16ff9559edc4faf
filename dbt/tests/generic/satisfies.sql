{% test satisfies(model, condition, tolerated_share=0) %}

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

select *
from counted
where failing_count > row_count * {{ tolerated_share }}

{% endif %}

{% endtest %}
