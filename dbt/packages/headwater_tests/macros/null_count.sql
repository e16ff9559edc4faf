{% macro default__null_count(columns) %}
{{ return('num_nulls(' ~ columns | join(', ') ~ ')') }}
{% endmacro %}

{% macro spark__null_count(columns) %}
{{ return('((' ~ columns | join(' is null)::int + (') ~ ' is null)::int)') }}
{% endmacro %}
