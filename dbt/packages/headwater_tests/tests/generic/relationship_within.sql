{% test relationship_within(model, column_name, to, field, tolerated_share) %}

with counted as (

    select
        count(*) as row_count,
        count(*) filter (where parent.{{ field }} is null) as orphan_count
    from {{ model }} as child
    left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
    where child.{{ column_name }} is not null

)

-- The first condition is of no row, so PostgreSQL decides it before it reads any: a test that passes joins once.
select child.*
from {{ model }} as child
left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
where
    (select orphan_count > row_count * {{ tolerated_share }} from counted)
    and child.{{ column_name }} is not null
    and parent.{{ field }} is null

{% endtest %}
