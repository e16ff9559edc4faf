{% macro text_type() %}
{{ return(adapter.dispatch('text_type')()) }}
{% endmacro %}

{% macro postgres__text_type() %}{{ return('text') }}{% endmacro %}

{% macro spark__text_type() %}{{ return('string') }}{% endmacro %}
