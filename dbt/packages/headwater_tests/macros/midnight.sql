{% macro default__midnight(day, time_zone) %}
{{ return('(' ~ day ~ ")::timestamp at time zone '" ~ time_zone ~ "'") }}
{% endmacro %}

{% macro spark__midnight(day, time_zone) %}
{{ return('to_utc_timestamp((' ~ day ~ ")::timestamp, '" ~ time_zone ~ "')") }}
{% endmacro %}
