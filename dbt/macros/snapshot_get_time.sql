{% macro postgres__snapshot_get_time() %}
{{ current_timestamp() }}
{% endmacro %}
