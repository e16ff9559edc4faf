{% test rows_equal_those_of(model, other, key, versions) %}

{% set own_names = adapter.get_columns_in_relation(model) | map(attribute='name') | list %}
{% set other_names = adapter.get_columns_in_relation(other) | map(attribute='name') | list %}
{% set shared_names = own_names | select('in', other_names) | list %}

with own as (

    select * from {{ model }}

),

other as (

    select * from {{ other }}

)

select own.{{ key }}
from own
inner join other on own.{{ key }} = other.{{ key }}
where
    {% for version in versions %}
    own.{{ version }} is not distinct from other.{{ version }} and
    {% endfor %}
    (
        false
        {% for name in shared_names %}
        or own.{{ name }} is distinct from other.{{ name }}
        {% endfor %}
    )

{% endtest %}
