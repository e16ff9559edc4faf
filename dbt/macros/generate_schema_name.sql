{#
    The built-in macro glues the profile's schema in front of every layer (scratch_staging). Here the layer is the
    schema, so that analysts and grants can rely on the name; only a pull request or a developer gets a prefix.
#}
{% macro generate_schema_name(custom_schema_name, node) %}
{% set layer = (custom_schema_name or target.schema) | trim %}
{% set prefix = var('schema_prefix', env_var('HEADWATER_SCHEMA_PREFIX', '')) | trim %}
{{ return(prefix ~ '_' ~ layer if prefix else layer) }}
{% endmacro %}
