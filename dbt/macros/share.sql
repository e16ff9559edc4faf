{% macro share(part, whole) %}
{{ return(adapter.dispatch('share')(part, whole)) }}
{% endmacro %}

{% macro postgres__share(part, whole) %}
({{ part }}::numeric / nullif({{ whole }}, 0))
{% endmacro %}

{# Spark's decimal without bounds has ten digits. #}
{% macro spark__share(part, whole) %}
({{ part }}::decimal(18, 0) / nullif({{ whole }}, 0)::decimal(18, 0))
{% endmacro %}
