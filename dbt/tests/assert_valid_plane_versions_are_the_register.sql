-- A version that was never ended, or a plane without one, would be believed for ever: nothing else reads the history
-- often enough to notice.

with valid_versions as (

    select *
    from {{ ref('snap_operations_db__planes') }}
    where valid_to is null

),

planes as (

    select * from {{ ref('stg_operations_db__planes') }}

)

select
    valid_versions.tail_number as valid_tail_number,
    planes.tail_number as registered_tail_number,
    planes.load_id
from valid_versions
full outer join planes on valid_versions.tail_number = planes.tail_number
where
    valid_versions.tail_number is null
    or planes.tail_number is null
