{% macro minutes_between(earlier, later) %}
{{ return(adapter.dispatch('minutes_between')(earlier, later)) }}
{% endmacro %}

{% macro postgres__minutes_between(earlier, later) %}
extract(epoch from {{ later }} - {{ earlier }}) / 60
{% endmacro %}

{% macro spark__minutes_between(earlier, later) %}
(unix_micros({{ later }}) - unix_micros({{ earlier }})) / 60000000
{% endmacro %}
