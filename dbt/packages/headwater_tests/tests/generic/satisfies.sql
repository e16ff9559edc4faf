{% test satisfies(model, condition, tolerated_share=0) %}

{{ adapter.dispatch('rows_breaking', 'headwater_tests')(model, condition, tolerated_share) }}

{% endtest %}
