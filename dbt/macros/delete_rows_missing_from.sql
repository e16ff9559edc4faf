{#
    An incremental model only ever adds and replaces; this is its other half. Used as a post-hook it runs in the same
    transaction as the model, so no reader sees the new rows without the deletions.

    Where the model is a table there is nothing to delete: it was made anew.

    render(), because under `dbt run --empty` a bare reference is an empty subquery, and everything would be missing from it.
#}
{% macro delete_rows_missing_from(relation, key) %}
{% if model.config.materialized == 'incremental' %}
delete from {{ this }} as built
where not exists (
    select 1
    from {{ relation.render() }} as present
    where present.{{ key }} = built.{{ key }}
)
{% endif %}
{% endmacro %}
