{% macro as_bigint(expression) %}
{{ return(adapter.dispatch('as_bigint')(expression)) }}
{% endmacro %}

{% macro postgres__as_bigint(expression) %}
{{ expression }}
{% endmacro %}

{% macro spark__as_bigint(expression) %}
({{ expression }})::bigint
{% endmacro %}
