{% macro minutes_interval(minutes) %}
{{ return(adapter.dispatch('minutes_interval')(minutes)) }}
{% endmacro %}

{% macro postgres__minutes_interval(minutes) %}
make_interval(mins => {{ minutes }})
{% endmacro %}

{% macro spark__minutes_interval(minutes) %}
make_dt_interval(0, 0, {{ minutes }}, 0)
{% endmacro %}
