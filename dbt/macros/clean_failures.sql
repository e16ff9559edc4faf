{#
    Only what this run has seen pass is dropped: a selection says nothing about other tests.
#}
{% macro clean_failures(results) %}
{% if execute %}

{% set kept = [] %}
{% set passed = [] %}
{% for node in graph.nodes.values() if node.resource_type == 'test' %}
{% do kept.append(node.alias) %}
{% endfor %}
{% for result in results if result.node.resource_type == 'test' and result.status == 'pass' %}
{% do passed.append(result.node.alias) %}
{% endfor %}

{{ adapter.dispatch('clean_failures_in')(generate_schema_name('failures', none), passed, kept) }}

{% endif %}
{% endmacro %}

{% macro postgres__clean_failures_in(schema, passed, kept) %}

{% set tables = run_query(
    "select tablename from pg_tables where schemaname = '" ~ schema ~ "'"
) %}
{% for row in tables if row['tablename'] in passed or row['tablename'] not in kept %}
drop table if exists {{ adapter.quote(schema) }}.{{ adapter.quote(row['tablename']) }};
{% endfor %}

{% if run_query("select from pg_namespace where nspname = '" ~ schema ~ "'") | length > 0 %}
{% set readers = run_query(
    "select rolname from pg_roles where rolname in ('" ~ var('failures_readers') | join("', '") ~ "')"
) %}
{% for row in readers %}
grant usage on schema {{ adapter.quote(schema) }} to {{ adapter.quote(row['rolname']) }};
grant select on all tables in schema {{ adapter.quote(schema) }} to {{ adapter.quote(row['rolname']) }};
{% endfor %}
{% endif %}

{% endmacro %}

{# Who may read what is the catalogue's business there. #}
{% macro spark__clean_failures_in(schema, passed, kept) %}
{% if adapter.check_schema_exists(none, schema) %}
{% for row in run_query('show tables in ' ~ schema) if row['tableName'] in passed or row['tableName'] not in kept %}
{% do run_query('drop table if exists ' ~ schema ~ '.' ~ row['tableName']) %}
{% endfor %}
{% endif %}
{% endmacro %}
