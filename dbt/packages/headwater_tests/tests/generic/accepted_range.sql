{% test accepted_range(model, column_name, minimum, maximum, tolerated_share=0) %}

{{ adapter.dispatch('rows_breaking', 'headwater_tests')(
    model,
    column_name ~ ' is null or ' ~ column_name ~ ' between ' ~ minimum ~ ' and ' ~ maximum,
    tolerated_share
) }}

{% endtest %}
