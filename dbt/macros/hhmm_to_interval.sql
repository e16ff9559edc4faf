{% macro hhmm_to_interval(column) %}
{{ return(adapter.dispatch('hhmm_to_interval')(column)) }}
{% endmacro %}

{% macro postgres__hhmm_to_interval(column) %}
make_interval(hours => {{ column }} / 100, mins => {{ column }} % 100)
{% endmacro %}

{% macro spark__hhmm_to_interval(column) %}
make_dt_interval(0, {{ column }} div 100, {{ column }} % 100, 0)
{% endmacro %}
