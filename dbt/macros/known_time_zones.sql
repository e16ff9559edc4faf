{% macro known_time_zones() %}
{{ return(adapter.dispatch('known_time_zones')()) }}
{% endmacro %}

{% macro postgres__known_time_zones() %}
select name as time_zone_name
from pg_timezone_names
{% endmacro %}

{# Java's, by which Spark computes. #}
{% macro spark__known_time_zones() %}
select explode(split(trim(both '[]' from reflect('java.time.ZoneId', 'getAvailableZoneIds')), ', ')) as time_zone_name
{% endmacro %}
