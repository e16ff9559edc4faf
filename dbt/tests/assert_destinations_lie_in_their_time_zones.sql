-- Between leaving the gate and arriving at the other one a flight is in the air, or taxiing. Taxiing takes half an hour
-- on average, wherever one goes (20 to 41 minutes by destination); a destination put an hour off is far outside.

with ground_times as (

    select
        destination_airport_code,
        destination_time_zone,
        {{ minutes_between('actual_departure_at', 'actual_arrival_at') }} - air_time_minutes as ground_minutes
    from {{ ref('fct_flights') }}
    where actual_arrival_at is not null

)

select
    destination_airport_code,
    destination_time_zone,
    count(*) as landed_flights,
    avg(ground_minutes) as average_ground_minutes
from ground_times
group by destination_airport_code, destination_time_zone
-- With few flights one bad day would do it.
having count(*) >= 100 and avg(ground_minutes) not between 5 and 75
