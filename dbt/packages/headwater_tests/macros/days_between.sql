{% macro default__days_between(earlier, later) %}
{{ return(later ~ ' - ' ~ earlier) }}
{% endmacro %}

{% macro spark__days_between(earlier, later) %}
{{ return('datediff(' ~ later ~ ', ' ~ earlier ~ ')') }}
{% endmacro %}
