-- A ledger as a bad night leaves it: a source that fails since hours, marts that are held back, tests that fail.

insert into ops.loads
    (load_id, source, stream, status, attempt, manifest_key, started_at, landed_at, loaded_at, raw_loaded_at,
     rows_extracted, rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined, rows_deleted,
     bytes_landed, run_id, error, cursor_from)
select
    ('019' || lpad(to_hex(s.number), 5, '0') || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, s.source, s.stream,
    case when failed then 'failed' else 'loaded' end, case when failed then 3 else 1 end,
    case when not failed then s.source || '/' || s.stream || '/' || n end,
    at, case when not failed then at + interval '8 seconds' end, case when not failed then at + interval '20 seconds' end,
    case when not failed then at + interval '20 seconds' end,
    case when not failed then s.rows + s.rows * (n * 7 % 11) / 20 end,
    case when not failed then s.rows + s.rows * (n * 7 % 11) / 20 - n % 3 - 2 end,
    case when not failed then 2 end, case when not failed then 0 end, case when not failed then 0 end,
    case when not failed then n % 3 end, 0,
    case when not failed then s.rows * 213 end, 'flow run amber-otter-' || n,
    case when failed then 'The API answered 503 to GET /v1/flights [source flights_api, stream flights]' end,
    case when s.number = 2 then 'not from the beginning' end
from (values
    (1, 'flights_api', 'flights', 900, interval '1 hour'), (2, 'weather_files', 'weather', 72, interval '1 day'),
    (3, 'operations_db', 'planes', 120, interval '2 hours'), (4, 'operations_db', 'airports', 30, interval '2 hours'),
    (5, 'operations_db', 'airlines', 16, interval '2 hours')
) as s (number, source, stream, rows, every)
cross join generate_series(0, 34) as n
cross join lateral (
    select now() - interval '7 minutes' - n * s.every as at, s.number = 1 and n < 4 as failed
) as t;

insert into ops.publishes (generation, published_at, invocation_id, run_id)
select 40 - n, now() - interval '5 hours' - n * interval '1 hour', 'build-' || (20 - n), 'flow run bold-heron-' || n
from generate_series(0, 12) as n;
insert into ops.publishes (generation, published_at, invocation_id) values (41, now() - interval '4 hours', 'build-21');
insert into ops.published_groups (generation, mart_group, base, undone_at, undone_by)
select generation, 'flight_operations', generation - 1, case when generation = 39 then now() end, null
from ops.publishes where generation > 28;
insert into ops.published_marts (generation, mart, mart_group, rows_inserted, rows_updated, rows_deleted, rows_total)
select generation, mart, 'flight_operations', generation * 3, 5, generation % 2, 1000
from ops.publishes cross join unnest(array['fct_flights', 'dim_planes', 'fct_weather_impact']) as mart;
insert into ops.serving_groups (mart_group, generation, held_back_since, held_back_why) values
    ('flight_operations', 41, now() - interval '3 hours', 'flights_are_recent: Got 1 result, configured to fail if != 0'),
    ('crew', 40, null, null), ('billing', null, now() - interval '9 days', 'never passed');
insert into ops.serving_marts (mart, mart_group, generation, rows, tests_passed, tests_failed, tests_warned, invocation_id)
values ('fct_flights', 'flight_operations', 41, 336776, 41, 1, 0, 'build-24'),
       ('fct_weather_impact', 'flight_operations', 41, 21, 52, 1, 1, 'build-24'),
       ('fct_daily_airport_operations', 'flight_operations', 41, 38000, 44, 1, 0, 'build-24'),
       ('dim_planes', 'flight_operations', 41, 4044, 20, 0, 0, 'build-24'),
       ('crew_rosters', 'crew', 40, 1200, 8, 0, 0, 'build-24'), ('crew_bases', 'crew', 40, 31, 4, 0, 0, 'build-24'),
       ('invoices', 'billing', null, null, 0, 3, 0, 'build-24');
insert into ops.published_sources (generation, mart, source, stream, as_of, late_at, stale_at)
select 41, mart, 'flights_api', 'flights', now() - interval '5 hours', now() - interval '1 hour', now() + interval '3 hours'
from unnest(array['fct_flights', 'fct_weather_impact', 'fct_daily_airport_operations']) as mart;
insert into ops.published_sources (generation, mart, source, stream, as_of, late_at, stale_at) values
    (40, 'crew_rosters', 'operations_db', 'planes', now() - interval '30 minutes', now() - interval '1 minute', null),
    (40, 'crew_bases', 'operations_db', 'airports', now() - interval '10 minutes', now() + interval '4 hours', null);
insert into ops.freshness (checked_at, source, stream, as_of, late_at, stale_at, status) values
    (now() - interval '9 hours', 'flights_api', 'flights', now() - interval '9 hours', now(), now(), 'fresh'),
    (now() - interval '5 minutes', 'flights_api', 'flights', now() - interval '5 hours', now() - interval '1 hour',
     now() + interval '3 hours', 'fresh'),
    (now() - interval '5 minutes', 'operations_db', 'planes', now() - interval '30 minutes', now() + interval '20 hours',
     now() + interval '40 hours', 'fresh'),
    (now() - interval '5 minutes', 'operations_db', 'airports', now() - interval '30 minutes', null, null, 'not watched'),
    (now() - interval '5 minutes', 'weather_files', 'weather', now() - interval '3 days', now() - interval '1 day',
     now() - interval '2 hours', 'late');
insert into ops.reconciliations (reconciliation_id, source, stream, compared_by, status, windows, started_at, ended_at)
values (gen_random_uuid(), 'flights_api', 'flights', 'rows', 'equal', 31, now() - interval '9 hours', now()),
       (gen_random_uuid(), 'operations_db', 'planes', 'digests', 'different', 1, now() - interval '8 hours', now());
insert into ops.watermarks (source, stream, cursor_field, value, load_id)
select 'flights_api', 'flights', 'updated_at', '2013-12-31 16:45:00+00', load_id
from ops.loads where source = 'flights_api' and status = 'loaded' limit 1;

insert into ops.loads
    (load_id, source, stream, status, attempt, manifest_key, started_at, landed_at, loaded_at, raw_loaded_at,
     rows_extracted, rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined, rows_deleted,
     bytes_landed, run_id, error, window_start, window_end)
select ('0190f000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'weather_files', 'weather',
       case when failed then 'failed' else 'loaded' end, 1, case when not failed then 'weather_files/weather/w' || n end,
       at, case when not failed then at end, case when not failed then at end, case when not failed then at end,
       case when not failed then 72 end, case when not failed then 72 end, case when not failed then 0 end,
       case when not failed then 0 end, case when not failed then 0 end, case when not failed then 0 end, 0, 4000, 'backfill',
       case when failed then 'weather-2013-06-' || n || '.csv: invalid input syntax for type numeric: "secret reading"' end,
       start, next
from (
    select n, day at time zone 'America/New_York' as start, (day + interval '1 day') at time zone 'America/New_York' as next,
           now() - interval '40 days' as at, n in (160, 161) as failed
    from generate_series('2013-01-01'::timestamp, '2013-12-28', '1 day') with ordinality as d (day, n)
    where n not in (70, 71, 72, 200)
) as w;

insert into ops.windows (source, stream, window_start, window_end, rows, changed_by, changed_at, read_by, read_at, is_stale,
                         built_by)
select source, stream, window_start, window_end, rows_inserted, load_id, loaded_at, load_id, loaded_at,
       window_start >= '2013-12-20', 41
from ops.loads where source = 'weather_files' and window_start is not null and status = 'loaded';

insert into ops.windows (source, stream, window_start, window_end, rows, changed_by, changed_at, built_by)
select 'flights_api', 'flights', day at time zone 'America/New_York',
       (day + interval '1 day') at time zone 'America/New_York', 850 + (extract(doy from day)::int * 13) % 90,
       (select load_id from ops.loads where source = 'flights_api' and status = 'loaded' limit 1), now() - interval '2 days', 41
from generate_series('2013-01-01'::timestamp, '2013-12-31', '1 day') as day;

insert into ops.dbt_invocations
    (invocation_id, command, selection, dbt_version, is_success, started_at, ended_at, generation, run_id)
select 'build-' || n, 'build', case when n = 12 then 'fct_flights+' end, '1.11.16', n < 22,
       now() - interval '1 hour' * (24 - n) - interval '40 minutes',
       now() - interval '1 hour' * (24 - n) - interval '38 minutes', case when n < 22 and n <> 12 then 20 + n end,
       'flow run bold-heron-' || n
from generate_series(8, 24) as n;
insert into ops.dbt_results
    (invocation_id, node, name, resource_type, layer, materialized, status, severity, message, failures, rows_affected,
     started_at, ended_at, tests)
select i.invocation_id, 'model.headwater.' || m.name, m.name, 'model', m.layer, m.materialized,
       case when m.name = 'fct_weather_impact' and not is_success then 'skipped' else 'success' end, null, null, null,
       m.rows, i.started_at,
       i.started_at + make_interval(secs => m.seconds * (0.8 + (extract(hour from i.started_at)::int % 5) / 10.0)), '{}'
from ops.dbt_invocations i
cross join (values
    ('fct_flights', 'marts', 'incremental', 2210, 14.2), ('fct_daily_airport_operations', 'marts', 'table', 38000, 3.1),
    ('fct_weather_impact', 'marts', 'table', 21, 1.4), ('dim_planes', 'marts', 'table', 4044, 0.9),
    ('stg_flights_api__flights', 'staging', 'view', null, 0.2), ('int_flights_localized', 'intermediate', 'view', null, 0.15)
) as m (name, layer, materialized, rows, seconds)
where i.selection is null or m.name = 'fct_flights';
insert into ops.dbt_results
    (invocation_id, node, name, resource_type, status, severity, message, failures, started_at, ended_at, tests)
select invocation_id, 'test.headwater.' || t.name, t.name, 'test',
       case when t.bad is null or is_success and n % t.every <> 0 then 'pass' else t.bad end, t.severity,
       case when t.bad is not null and not (is_success and n % t.every <> 0) then t.message end,
       case when t.bad is not null and not (is_success and n % t.every <> 0) then 3 else 0 end,
       started_at + interval '1 minute', started_at + interval '61 seconds', array['model.headwater.' || t.model]
from (select *, substr(invocation_id, 7)::int as n from ops.dbt_invocations where selection is null) i
cross join (values
    ('flights_are_recent', 'stg_flights_api__flights', 'fail', 'error', 1000,
     'Got 1 result, configured to fail if != 0'),
    ('planes_are_known', 'fct_flights', 'warn', 'warn', 3, 'Got 3 results, configured to warn if != 0'),
    ('flight_ids_are_unique', 'fct_flights', null, 'error', 1, null),
    ('distances_are_positive', 'fct_flights', null, 'error', 1, null),
    ('carriers_are_known', 'dim_planes', 'error', 'error', 1000,
     'Database Error invalid input syntax for type integer: "0041 79 secret" Key (tail_number)=(N12345) is there twice.')
) as t (name, model, bad, severity, every, message);

insert into ops.incidents
    (severity, title, cause, next_command, owner, root, affected_marts, affected_dashboards, opened_at, last_seen_at,
     times_seen)
values
    ('error', 'flights_api.flights has not been loaded since 15:38 UTC', 'The API answers 503 to every request since then.',
     'headwater backfill run flights_api.flights --mode failed', 'Data platform', 'stream.flights_api.flights',
     '{fct_flights,fct_weather_impact,fct_daily_airport_operations}', '{Airport and weather board}',
     now() - interval '4 hours', now() - interval '7 minutes', 16),
    ('warning', 'weather_files.weather is stale', 'No file newer than three days.', 'headwater windows weather_files.weather',
     'Flight operations analytics', 'stream.weather_files.weather', '{fct_weather_impact}', '{}',
     now() - interval '2 hours', now() - interval '5 minutes', 4);
update ops.incidents set snoozed_until = now() + interval '5 hours', snoozed_by = 'mara', snoozed_why = 'Files come at noon'
where severity = 'warning';
insert into ops.incidents (severity, title, cause, next_command, opened_at, closed_at, closed_as, closed_why)
values ('critical', 'The worker was silent', 'It was killed.', 'prefect worker start --pool headwater',
        now() - interval '2 days', now() - interval '47 hours', 'recovered', 'It works again.');
insert into ops.signs (key, scope, kind, incident_id, severity, title, cause, next_command, node, first_seen_at)
select 'load:flights', 'loads', 'load failed', incident_id, 'error', 'Load failed', cause, next_command, root, opened_at
from ops.incidents where root = 'stream.flights_api.flights';
insert into ops.signs (key, scope, kind, incident_id, severity, title, cause, next_command, node, first_seen_at)
select 'test:recent', 'dbt', 'test failed', incident_id, 'error', 'The test flights_are_recent fails', cause, next_command,
       'test.headwater.flights_are_recent', opened_at + interval '1 hour'
from ops.incidents where root = 'stream.flights_api.flights';
insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload, quarantined_at)
select 'flights_api', 'flights', (select load_id from ops.loads where source = 'flights_api' and status = 'loaded' limit 1),
       n, 'column dep_time: invalid input syntax for type integer: "secret ' || n || '"', '{"who": "payload canary"}',
       now() - n * interval '1 hour'
from generate_series(1, 40) as n;
insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload)
select 'operations_db', 'planes', (select load_id from ops.loads where stream = 'planes' limit 1), 1,
       'column tailnum: the key is null', '{}';
insert into ops.schema_changes (source, stream, load_id, column_name, change, from_type, to_type, changed_at)
select 'flights_api', 'flights', load_id, 'gate', 'added', null, 'text', now() - interval '3 days'
from ops.loads where source = 'flights_api' and status = 'loaded' limit 1;
insert into ops.schema_changes (source, stream, load_id, column_name, change, from_type, to_type, changed_at)
select 'operations_db', 'planes', load_id, 'seats', 'widened', 'integer', 'bigint', now() - interval '30 hours'
from ops.loads where stream = 'planes' limit 1;
insert into ops.alerts (alert_id, incident_id, channel, kind, subject, body, created_at, attempts, last_error)
select gen_random_uuid(), incident_id, 'slack', 'opened', title, '{}', now() - interval '50 minutes', 4, 'HTTP 500'
from ops.incidents where closed_at is null;
insert into ops.heartbeats (name, beat_at) values ('watcher', now() - interval '40 seconds');
