{% macro mean(column) %}
{{ return(adapter.dispatch('mean')(column)) }}
{% endmacro %}

{% macro postgres__mean(column) %}
avg({{ column }})
{% endmacro %}

{# Spark's own is a binary fraction, in which the difference of two means may fall on the wrong side of a half. #}
{% macro spark__mean(column) %}
(sum({{ column }})::decimal(18, 0) / nullif(count({{ column }}), 0)::decimal(18, 0))
{% endmacro %}
