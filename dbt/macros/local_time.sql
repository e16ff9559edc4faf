{% macro local_time(instant, time_zone) %}
{{ return(adapter.dispatch('local_time')(instant, time_zone)) }}
{% endmacro %}

{% macro postgres__local_time(instant, time_zone) %}
{{ instant }} at time zone {{ time_zone }}
{% endmacro %}

{# Spark's is an instant that shows the reading in UTC; that is why its session has to be in UTC (profiles.yml). #}
{% macro spark__local_time(instant, time_zone) %}
from_utc_timestamp({{ instant }}, {{ time_zone }})
{% endmacro %}
