{% macro default__current_instant() %}
{% set given = var('now', none) %}
{% if given %}
{{ return("'" ~ given ~ "'::timestamptz") }}
{% else %}
{{ return("coalesce(nullif(current_setting('headwater.now', true), '')::timestamptz, current_timestamp)") }}
{% endif %}
{% endmacro %}

{% macro spark__current_instant() %}
{% set given = var('now', none) %}
{{ return("'" ~ given ~ "'::timestamp" if given else 'current_timestamp()') }}
{% endmacro %}
