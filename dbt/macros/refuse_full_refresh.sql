{#
    dbt's own `full_refresh: false` ignores the flag: whoever gave it would believe that the rows were built anew.
#}
{% macro refuse_full_refresh() %}
{% if execute and flags.FULL_REFRESH and not var('allow_full_refresh', false) and load_relation(this) is not none %}
{{ exceptions.raise_compiler_error(
    this.identifier ~ " is not built from the beginning by --full-refresh alone: it is large. If that is what you want, add "
    ~ "--vars 'allow_full_refresh: true', or give the flow transform full_refresh=true; a selection says which models."
) }}
{% endif %}
{% endmacro %}
