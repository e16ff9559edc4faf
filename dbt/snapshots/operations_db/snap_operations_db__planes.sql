-- Written here and not in yml: dbt 1.11 loses a snapshot of the short form when it parses only what has changed.

{% snapshot snap_operations_db__planes %}

{{
    config(
        unique_key='tail_number',
        strategy='check',
        check_cols=[
            'manufacture_year',
            'plane_type',
            'manufacturer_name',
            'model_name',
            'engine_count',
            'engine_type',
            'seat_count',
            'cruising_speed_mph',
        ],
        hard_deletes='invalidate',
        snapshot_meta_column_names={
            'dbt_valid_from': 'valid_from',
            'dbt_valid_to': 'valid_to',
            'dbt_scd_id': 'version_id',
            'dbt_updated_at': 'seen_at',
        },
    )
}}

select * from {{ ref('stg_operations_db__planes') }}

{% endsnapshot %}
