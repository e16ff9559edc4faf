{% macro default__day_in(instant, time_zone) %}
{{ return('((' ~ instant ~ ") at time zone '" ~ time_zone ~ "')::date") }}
{% endmacro %}
