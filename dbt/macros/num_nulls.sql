{% macro num_nulls() %}
{{ return(adapter.dispatch('null_count', 'headwater_tests')(varargs)) }}
{% endmacro %}

{% macro num_nonnulls() %}
{{ return(adapter.dispatch('num_nonnulls')(varargs)) }}
{% endmacro %}

{% macro postgres__num_nonnulls(columns) %}
num_nonnulls({{ columns | join(', ') }})
{% endmacro %}

{% macro spark__num_nonnulls(columns) %}
({% for column in columns %}({{ column }} is not null)::int{{ ' + ' if not loop.last }}{% endfor %})
{% endmacro %}
