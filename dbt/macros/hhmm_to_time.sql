{% macro hhmm_to_time(column) %}
{{ return(adapter.dispatch('hhmm_to_time')(column)) }}
{% endmacro %}

{% macro postgres__hhmm_to_time(column) %}
time '00:00' + {{ hhmm_to_interval(column) }}
{% endmacro %}

{% macro spark__hhmm_to_time(column) %}
{{ time_of_day("timestamp '1970-01-01 00:00:00' + " ~ hhmm_to_interval(column)) }}
{% endmacro %}
