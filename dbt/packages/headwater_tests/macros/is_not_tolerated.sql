{#
    Written as a list of dates, because an empty `in ()` is no SQL.
#}
{% macro default__is_not_tolerated(day, days) %}
{{ return(day ~ ' <> all(' ~ ("array['" ~ days | join("', '") ~ "']::date[]" if days else 'array[]::date[]') ~ ')') }}
{% endmacro %}

{% macro spark__is_not_tolerated(day, days) %}
{{ return(day ~ " not in ('" ~ days | join("'::date, '") ~ "'::date)" if days else 'true') }}
{% endmacro %}
