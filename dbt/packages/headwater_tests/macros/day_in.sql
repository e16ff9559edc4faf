{% macro default__day_in(instant, time_zone) %}
{{ return('((' ~ instant ~ ") at time zone '" ~ time_zone ~ "')::date") }}
{% endmacro %}

{% macro spark__day_in(instant, time_zone) %}
{{ return('from_utc_timestamp(' ~ instant ~ ", '" ~ time_zone ~ "')::date") }}
{% endmacro %}
