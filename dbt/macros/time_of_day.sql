{% macro time_of_day(local_time) %}
{{ return(adapter.dispatch('time_of_day')(local_time)) }}
{% endmacro %}

{% macro postgres__time_of_day(local_time) %}
({{ local_time }})::time
{% endmacro %}

{# A text: Spark before 4.1 has no type for a time of day, and 4.3 cannot yet store one everywhere. #}
{% macro spark__time_of_day(local_time) %}
date_format({{ local_time }}, 'HH:mm:ss.SSSSSS')
{% endmacro %}
