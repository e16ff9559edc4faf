with source as (

    select * from {{ source('operations_db', 'airlines') }}
    where _deleted_at is null

),

renamed as (

    select
        carrier as carrier_code,
        name as airline_name,
        _load_id as load_id,
        _loaded_at as loaded_at
    from source

)

select * from renamed
