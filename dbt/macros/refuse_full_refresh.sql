{#
    dbt's own `full_refresh: false` ignores the flag: whoever gave it would believe that the rows were built anew. On an
    engine where the model is a table, every build is a full one, and there is nothing to refuse.
#}
{% macro refuse_full_refresh() %}
{% set is_large = execute and model.config.materialized == 'incremental' and load_relation(this) is not none %}
{% if is_large and flags.FULL_REFRESH and not var('allow_full_refresh', false) %}
{{ exceptions.raise_compiler_error(
    this.identifier ~ " is not built from the beginning by --full-refresh alone: it is large. If that is what you want, add "
    ~ "--vars 'allow_full_refresh: true', or give the flow transform full_refresh=true; a selection says which models."
) }}
{% endif %}
{% endmacro %}
