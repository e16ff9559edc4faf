with source as (

    select * from {{ source('operations_db', 'planes') }}
    where _deleted_at is null

),

renamed as (

    select
        tailnum as tail_number,
        year as manufacture_year,
        type as plane_type,
        manufacturer as manufacturer_name,
        model as model_name,
        engines as engine_count,
        engine as engine_type,
        seats as seat_count,
        speed as cruising_speed_mph,
        updated_at as source_updated_at,
        _load_id as load_id,
        _loaded_at as loaded_at
    from source

)

select * from renamed
