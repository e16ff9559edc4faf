{#
    An incremental model only ever adds and replaces; this is its other half. Used as a post-hook it runs in the same
    transaction as the model, so no reader sees the new rows without the deletions.

    render(), because under `dbt run --empty` a bare reference is an empty subquery, and everything would be missing from it.
#}
{% macro delete_rows_missing_from(relation, key) %}
    delete from {{ this }} as built
    where not exists (
        select 1
        from {{ relation.render() }} as present
        where present.{{ key }} = built.{{ key }}
    )
{% endmacro %}
