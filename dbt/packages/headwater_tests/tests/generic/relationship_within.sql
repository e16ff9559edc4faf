{% test relationship_within(model, column_name, to, field, tolerated_share) %}

with orphans as (

    select child.*
    from {{ model }} as child
    left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
    where
        child.{{ column_name }} is not null
        and parent.{{ field }} is null

)

select *
from orphans
where
    (select count(*) from orphans)
    > {{ tolerated_share }} * (select count({{ column_name }}) from {{ model }})

{% endtest %}
