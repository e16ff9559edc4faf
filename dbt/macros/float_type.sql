{% macro float_type() %}
{{ return(adapter.dispatch('float_type')()) }}
{% endmacro %}

{% macro postgres__float_type() %}{{ return('double precision') }}{% endmacro %}

{% macro spark__float_type() %}{{ return('double') }}{% endmacro %}
