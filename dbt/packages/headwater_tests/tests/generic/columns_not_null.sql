{% test columns_not_null(model, columns) %}

select *
from {{ model }}
where {{ adapter.dispatch('null_count', 'headwater_tests')(columns) }} > 0

{% endtest %}
