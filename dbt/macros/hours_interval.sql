{% macro hours_interval(hours) %}
{{ return(adapter.dispatch('hours_interval')(hours)) }}
{% endmacro %}

{% macro postgres__hours_interval(hours) %}
make_interval(hours => {{ hours }})
{% endmacro %}

{% macro spark__hours_interval(hours) %}
make_dt_interval(0, {{ hours }}, 0, 0)
{% endmacro %}
