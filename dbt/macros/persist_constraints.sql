{#
    PostgreSQL refuses a row that breaks a constraint of the contract; Parquet files take any. So the table is looked
    through once it is built, and a model that breaks its contract fails like one that cannot be built: nothing that
    depends on it is built then.
#}
{% macro spark__persist_constraints(relation, model) %}
{% if config.get('contract').enforced %}

{% set never_null = [] %}
{% for name, column in model.columns.items() %}
{% for constraint in column.constraints if constraint.type == 'not_null' %}
{% do never_null.append(name) %}
{% endfor %}
{% endfor %}
{% set keys = [] %}
{% for constraint in model.constraints if constraint.type == 'primary_key' %}
{% do keys.append(constraint.columns) %}
{% do never_null.extend(constraint.columns) %}
{% endfor %}

{% if never_null %}
{% set nulls = run_query(
    'select ' ~ 'count_if(' ~ never_null | join(' is null), count_if(') ~ ' is null) from ' ~ relation
).rows[0] %}
{% for name in never_null %}
{% if nulls[loop.index0] > 0 %}
{{ exceptions.raise_compiler_error(relation ~ ' has ' ~ nulls[loop.index0] ~ ' rows without ' ~ name ~ '.') }}
{% endif %}
{% endfor %}
{% endif %}

{% for key in keys %}
{% set twice = run_query(
    'select count(*) from (select 1 from ' ~ relation ~ ' group by ' ~ key | join(', ') ~ ' having count(*) > 1) as twice'
).rows[0][0] %}
{% if twice > 0 %}
{{ exceptions.raise_compiler_error(relation ~ ' has ' ~ twice ~ ' keys more than once: ' ~ key | join(', ') ~ '.') }}
{% endif %}
{% endfor %}

{% endif %}
{% endmacro %}
