{#
    In place of dbt's own, which makes a table for each test, passed or not, and counts its rows: a hundred tables an hour
    that hold nothing, and no parallel plan for the queries behind them. Here the rows are asked for once more, and only by
    a test that did not pass. A load that commits in between may have changed them.
#}
{% materialization test, adapter='postgres' %}
{{ return({'relations': run_data_test(sql)}) }}
{% endmaterialization %}

{% materialization test, adapter='spark' %}
{{ return({'relations': run_data_test(sql)}) }}
{% endmaterialization %}

{% macro run_data_test(sql) %}

{% set failing_rows %}
{{ get_limit_subquery_sql(sql, config.get('limit')) }}
{% endset %}

{% call statement('main', fetch_result=True) %}
{{ get_test_sql(failing_rows, config.get('fail_calc'), config.get('warn_if'), config.get('error_if'), limit=none) }}
{% endcall %}

{% set outcome = load_result('main')['table'].rows[0] %}
{% set relations = [] %}
{% if should_store_failures() and (outcome['should_warn'] or outcome['should_error']) %}
{% set kept = api.Relation.create(database=database, schema=schema, identifier=model['alias'], type='table') %}
{% do adapter.dispatch('keep_rows')(kept, failing_rows) %}
{% do relations.append(kept) %}
{% endif %}

{{ return(relations) }}

{% endmacro %}

{% macro postgres__keep_rows(kept, rows) %}
{% call statement('keep') %}
drop table if exists {{ kept }};
create table {{ kept }} as
{{ rows }};
{% endcall %}
{% do adapter.commit() %}
{% endmacro %}

{% macro spark__keep_rows(kept, rows) %}
{% do run_query('drop table if exists ' ~ kept) %}
{% do run_query('create table ' ~ kept ~ ' as ' ~ rows) %}
{% endmacro %}
