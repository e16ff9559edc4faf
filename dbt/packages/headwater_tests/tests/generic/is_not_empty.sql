{% test is_not_empty(model) %}

select 'no rows' as problem
where not exists (select 1 from {{ model }})

{% endtest %}
