{#
    A relation that dbt has wrapped into a subquery (for `where`, `--empty`) is a string here, and has no columns to look up.
#}
{% macro default__load_id_column(model) %}
{% if execute and model is not string %}
{% for column in adapter.get_columns_in_relation(model) if column.name in ('load_id', '_load_id') %}
{{ return(column.name) }}
{% endfor %}
{% endif %}
{{ return(none) }}
{% endmacro %}
