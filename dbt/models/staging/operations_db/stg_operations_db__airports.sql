with source as (

    select * from {{ source('operations_db', 'airports') }}
    where _deleted_at is null

),

renamed as (

    select
        faa as airport_code,
        name as airport_name,
        lat as latitude_degrees,
        lon as longitude_degrees,
        -- The register is of the United States: the Aleutians are the only part of it east of the 180th meridian.
        (lat between 15 and 72 and (lon between -180 and -60 or lon > 170)) as has_plausible_location,
        alt as altitude_feet,
        tz as utc_offset_hours,
        dst as daylight_saving_code,
        nullif(tzone, '') as time_zone_name,
        updated_at as source_updated_at,
        _load_id as load_id,
        _loaded_at as loaded_at
    from source

)

select * from renamed
