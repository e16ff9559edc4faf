{% test equals_a_rebuild_from(model, other, key, versions) %}

{% set own_names = adapter.get_columns_in_relation(model) | map(attribute='name') | list %}
{% set other_names = adapter.get_columns_in_relation(other) | map(attribute='name') | list %}
{% set shared_names = own_names | select('in', other_names) | list %}

with built as (

    select * from {{ model }}

),

computed as (

    select * from {{ other }}

),

newest as (

    select
        count(*) as row_count
        {% for version in versions %}
        , max({{ version }}) as {{ version }}
        {% endfor %}
    from {{ model }}

)

select
    built.{{ key }} as built_{{ key }},
    computed.{{ key }} as computed_{{ key }}
from built
full outer join computed on built.{{ key }} = computed.{{ key }}
cross join newest
where
    (
        false
        {% for name in shared_names %}
        or built.{{ name }} is distinct from computed.{{ name }}
        {% endfor %}
    )
    -- What was loaded after the model was built is the next run's work.
    {% for version in versions %}
    and (computed.{{ version }} > newest.{{ version }}) is not true
    {% endfor %}

{% endtest %}
