{% macro default__day_series(first, last) %}
{{ return('generate_series(' ~ first ~ '::timestamp, ' ~ last ~ "::timestamp, interval '1 day')") }}
{% endmacro %}

{% macro spark__day_series(first, last) %}
{{ return('lateral explode(case when ' ~ first ~ ' <= ' ~ last ~ ' then sequence(' ~ first ~ ', ' ~ last ~ ') end)') }}
{% endmacro %}
