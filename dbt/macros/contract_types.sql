{#
    Contracts name PostgreSQL's types. Spark has another name for some, and texts for what it has no type for.
#}
{% macro spark__get_empty_schema_sql(columns) %}
{% set names = {
    'text': 'string',
    'uuid': 'string',
    'double precision': 'double',
    'timestamp with time zone': 'timestamp',
} %}
{% set renamed = {} %}
{% for name, column in columns.items() %}
{% do renamed.update({name: dict(column, data_type=names.get(column['data_type'], column['data_type']))}) %}
{% endfor %}
{{ return(default__get_empty_schema_sql(renamed)) }}
{% endmacro %}
