{#
    Written as a list of dates, because an empty `in ()` is no SQL.
#}
{% macro default__tolerated_days(days) %}
{{ return("array['" ~ days | join("', '") ~ "']::date[]" if days else 'array[]::date[]') }}
{% endmacro %}
