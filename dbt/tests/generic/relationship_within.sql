{% test relationship_within(model, column_name, to, field, tolerated_share) %}

with counted as (

    select
        count(*) as row_count,
        count(*) filter (where parent.{{ field }} is null) as orphan_count,
        count(distinct child.{{ column_name }}) filter (where parent.{{ field }} is null) as orphan_value_count
    from {{ model }} as child
    left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
    where child.{{ column_name }} is not null

)

select *
from counted
where orphan_count > row_count * {{ tolerated_share }}

{% endtest %}
