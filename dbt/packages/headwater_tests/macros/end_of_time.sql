{% macro default__end_of_time() %}
{{ return("'infinity'::date") }}
{% endmacro %}

{% macro spark__end_of_time() %}
{{ return("'9999-12-31'::date") }}
{% endmacro %}
