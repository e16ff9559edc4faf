{% test row_count_equals(model, other) %}

with counted as (

    select
        (select count(*) from {{ model }}) as row_count,
        (select count(*) from {{ other }}) as other_row_count

)

select *
from counted
where row_count <> other_row_count

{% endtest %}
