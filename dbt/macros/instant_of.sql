{% macro instant_of(local_time, time_zone) %}
{{ return(adapter.dispatch('instant_of')(local_time, time_zone)) }}
{% endmacro %}

{% macro postgres__instant_of(local_time, time_zone) %}
{{ local_time }} at time zone {{ time_zone }}
{% endmacro %}

{#
    Of the two instants that a clock shows 01:30 at when it is set back, PostgreSQL takes the later, Spark the earlier. So
    the clock's offset of three hours later is tried too: if it leads to the same reading, that is the later instant. For
    a reading that the clock skips when it is set forward, both take the offset from before.
#}
{% macro spark__instant_of(local_time, time_zone) %}
{% set earlier = 'to_utc_timestamp(' ~ local_time ~ ', ' ~ time_zone ~ ')' %}
{% set after = '(' ~ earlier ~ " + interval '3' hour)" %}
{% set later = '(' ~ local_time ~ ' - (from_utc_timestamp(' ~ after ~ ', ' ~ time_zone ~ ') - ' ~ after ~ '))' %}
case when from_utc_timestamp({{ later }}, {{ time_zone }}) = {{ local_time }} then {{ later }} else {{ earlier }} end
{% endmacro %}
