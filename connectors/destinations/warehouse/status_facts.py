"""What the status page shows, as the warehouse has it now: marts, incidents, streams, loads, builds, tests.

Read in one transaction, so that the parts agree with each other, by the watcher, who may read `ops` and the trust
record and nothing else: no row of anybody's data is within reach. Every statement has a bound in time, and every list
one in length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors

STATEMENT_SECONDS = 10
"""How long one question may take."""

Facts = dict[str, list[dict[str, Any]]]

_QUERIES = {
    "now": "select now() as at, current_database() as warehouse",
    "marts": """
        select mart, mart_group, status, why, data_as_of, published_at, generation, rows, tests_passed, tests_failed,
               tests_warned, quarantined_rows
        from serving.data_status
        order by array_position(array['held back', 'stale', 'late', 'fresh'], status), mart
    """,
    "incidents": """
        select incident_id, severity, title, cause, next_command, owner, root, affected_marts, affected_dashboards,
               opened_at, last_seen_at, times_seen, snoozed_until, snoozed_by, snoozed_why
        from ops.incidents
        where closed_at is null
        order by array_position(array['critical', 'error', 'warning'], severity), opened_at, incident_id
        limit 200
    """,
    "signs": """
        select incident_id, kind, title, node, first_seen_at, last_seen_at
        from ops.signs order by first_seen_at, key limit 2000
    """,
    "closed_incidents": """
        select incident_id, severity, title, owner, opened_at, closed_at, closed_why
        from ops.incidents
        where closed_at > now() - interval '14 days'
        order by closed_at desc, incident_id desc
        limit 50
    """,
    "streams": """
        select s.source, s.stream, f.as_of, f.late_at, f.stale_at, f.checked_at, f.status as checked_status,
               w.value as watermark, l.loaded_at, l.tried_at, l.status as tried_status, l.error,
               q.rows as quarantined_rows, r.status as reconciled, r.started_at as reconciled_at
        from unnest(%(sources)s::text[], %(streams)s::text[]) as s (source, stream)
        left join lateral (
            select as_of, late_at, stale_at, checked_at, status
            from ops.freshness f where f.source = s.source and f.stream = s.stream
            order by checked_at desc limit 1
        ) f on true
        left join ops.watermarks w on w.source = s.source and w.stream = s.stream
        left join lateral (
            select started_at as tried_at, status, error,
                   (
                       select max(loaded_at) from ops.loads d
                       where d.source = s.source and d.stream = s.stream and d.kind = 'rows' and d.status = 'loaded'
                   ) as loaded_at
            from ops.loads l where l.source = s.source and l.stream = s.stream and l.kind = 'rows'
            order by started_at desc limit 1
        ) l on true
        left join lateral (
            select count(*) as rows
            from ops.quarantine q where q.source = s.source and q.stream = s.stream and q.replayed_by is null
        ) q on true
        left join lateral (
            select status, started_at from ops.reconciliations r
            where r.source = s.source and r.stream = s.stream order by started_at desc limit 1
        ) r on true
        order by s.source, s.stream
    """,
    "loads": """
        select s.source, s.stream, l.load_id, l.kind, l.status, l.window_start, l.window_end, l.started_at, l.loaded_at,
               l.attempt, l.rows_extracted, l.rows_inserted, l.rows_updated, l.rows_unchanged, l.rows_duplicate,
               l.rows_quarantined, l.rows_deleted, l.bytes_landed, l.error, l.run_id
        from unnest(%(sources)s::text[], %(streams)s::text[]) as s (source, stream)
        cross join lateral (
            select * from ops.loads l
            where l.source = s.source and l.stream = s.stream
            order by l.started_at desc limit 30
        ) l
        order by l.started_at desc, l.load_id
    """,
    "builds": """
        select i.invocation_id, i.command, i.selection, i.is_full_refresh, i.is_success, i.started_at, i.ended_at,
               i.generation, i.run_id, i.error, r.*
        from (select * from ops.dbt_invocations order by started_at desc limit 30) i
        cross join lateral (
            select count(*) filter (where resource_type in ('model', 'seed', 'snapshot') and status = 'success')
                       as built,
                   count(*) filter (where status = 'pass') as passed,
                   count(*) filter (where status = 'warn') as warned,
                   count(*) filter (where status in ('fail', 'error', 'runtime error', 'partial success')) as failed,
                   count(*) filter (where status = 'skipped') as skipped
            from ops.dbt_results d where d.invocation_id = i.invocation_id
        ) r
        order by i.started_at desc
    """,
    "failed_nodes": """
        select d.node, d.name, d.resource_type, d.status, d.message, d.failures, d.relation
        from ops.dbt_results d
        where d.invocation_id = (select invocation_id from ops.dbt_invocations order by started_at desc limit 1)
          and d.status in ('fail', 'error', 'runtime error', 'partial success', 'warn')
        order by d.status = 'warn', d.resource_type in ('test', 'unit_test'), d.name
        limit 200
    """,
    "publishes": """
        select p.generation, p.published_at, p.invocation_id, p.run_id, g.groups, g.undone, m.*
        from (select * from ops.publishes order by generation desc limit 30) p
        left join lateral (
            select array_agg(mart_group order by mart_group) as groups, bool_or(undone_at is not null) as undone
            from ops.published_groups g where g.generation = p.generation
        ) g on true
        left join lateral (
            select count(*) as marts, sum(rows_inserted)::bigint as rows_inserted,
                   sum(rows_updated)::bigint as rows_updated, sum(rows_deleted)::bigint as rows_deleted
            from ops.published_marts m where m.generation = p.generation
        ) m on true
        order by p.generation desc
    """,
    "slowest": """
        with recent as (
            select invocation_id, started_at, row_number() over (order by started_at desc) as place
            from ops.dbt_invocations where selection is null order by started_at desc limit 14
        ),

        runs as (
            select d.node, d.name, d.layer, d.materialized, d.rows_affected, r.place,
                   extract(epoch from d.ended_at - d.started_at)::float8 as seconds
            from ops.dbt_results d join recent r using (invocation_id)
            where d.resource_type in ('model', 'seed', 'snapshot') and d.ended_at is not null
        )

        select node, max(name) as name, max(layer) as layer, max(materialized) as materialized,
               (array_agg(rows_affected order by place))[1] as rows_affected,
               (array_agg(seconds order by place))[1] as seconds,
               percentile_cont(0.5) within group (order by seconds) as median_seconds,
               array_agg(seconds order by place desc) as history
        from runs group by node
        having min(place) = 1
        order by seconds desc, node
        limit 25
    """,
    "test_builds": """
        select i.invocation_id, i.started_at, i.is_success
        from (select * from ops.dbt_invocations where selection is null order by started_at desc limit 14) i
        order by i.started_at
    """,
    "tests": """
        with recent as (
            select invocation_id, started_at
            from ops.dbt_invocations where selection is null order by started_at desc limit 14
        ),

        results as (
            select d.node, d.name, d.severity, d.status, d.failures, d.message, d.tests, d.invocation_id, r.started_at
            from ops.dbt_results d join recent r using (invocation_id)
            where d.resource_type in ('test', 'unit_test')
        )

        select node, max(name) as name, (array_agg(severity order by started_at desc))[1] as severity,
               (array_agg(status order by started_at desc))[1] as status,
               (array_agg(failures order by started_at desc))[1] as failures,
               (array_agg(message order by started_at desc))[1] as message,
               (array_agg(tests::text order by started_at desc))[1]::text[] as tests,
               jsonb_object_agg(invocation_id, status) as history,
               max(started_at) filter (where status = 'pass') as passed_at
        from results group by node
        having bool_or(status <> 'pass')
        order by array_position(array['error', 'fail', 'warn', 'skipped', 'pass'],
                                (array_agg(status order by started_at desc))[1]), node
        limit 200
    """,
    "test_counts": """
        select status, count(*) as tests
        from ops.dbt_results
        where resource_type in ('test', 'unit_test') and invocation_id = (
            select invocation_id from ops.dbt_invocations where selection is null order by started_at desc limit 1
        )
        group by status order by status
    """,
    # A reason can quote the value that did not fit: what is in quotes is left out, and so is which record it was.
    "quarantine": """
        select source, stream, reason, count(*) as rows, count(distinct load_id) as loads,
               min(quarantined_at) as first_at, max(quarantined_at) as last_at
        from (
            select source, stream, quarantined_at, load_id,
                   regexp_replace(regexp_replace(left(reason, 300), '"[^"]*("|$)', '"…"', 'g'),
                                  'record [0-9]+', 'record …') as reason
            from ops.quarantine where replayed_by is null
        ) q
        group by source, stream, reason
        order by rows desc, source, stream, reason
        limit 100
    """,
    "schema_changes": """
        select source, stream, column_name, change, from_type, to_type, rows_discarded, changed_at
        from ops.schema_changes order by id desc limit 100
    """,
    "alerts": """
        select channel, count(*) filter (where delivered_at is null and given_up_at is null) as waiting,
               count(*) filter (where given_up_at is not null) as given_up,
               min(created_at) filter (where delivered_at is null and given_up_at is null) as waiting_since,
               max(delivered_at) as delivered_at,
               (array_agg(last_error order by created_at desc)
                   filter (where last_error is not null and delivered_at is null))[1] as last_error
        from ops.alerts where created_at > now() - interval '14 days' or (delivered_at is null and given_up_at is null)
        group by channel order by channel
    """,
    "heartbeats": "select name, beat_at from ops.heartbeats order by name",
}


def read_facts(connection: psycopg.Connection, streams: Sequence[tuple[str, str]]) -> Facts:
    """All that the page shows of the warehouse, by section; each a list of rows by column.

    Args:
        streams: those that are registered, by source and stream; those that only the ledger knows come with them.
    """
    names = sorted({*streams, *_known_streams(connection)})
    parameters = {"sources": [source for source, _ in names], "streams": [stream for _, stream in names]}
    with connection.cursor(row_factory=dict_row) as cursor:
        return {
            section: [
                {name: without_values(value) if isinstance(value, str) else value for name, value in row.items()}
                for row in cursor.execute(statement.encode(), parameters).fetchall()
            ]
            for section, statement in _QUERIES.items()
        }


def columns_by_relation(connection: psycopg.Connection, schemas: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The columns of all tables and views in schemas, in their order, by schema and name."""
    rows = connection.execute(
        """
        select n.nspname, c.relname, array_agg(a.attname::text order by a.attnum)
        from pg_catalog.pg_attribute a
        join pg_catalog.pg_class c on c.oid = a.attrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = any (%s) and c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum > 0 and not a.attisdropped
        group by n.nspname, c.relname
        """,
        [list(schemas)],
    ).fetchall()
    return {(schema, relation): columns for schema, relation, columns in rows}


@contextmanager
def one_look(watcher: URL) -> Iterator[psycopg.Connection]:
    """A connection to ask with: read-only, as of one instant, with a bound for each question.

    Raises:
        ConfigurationError: the warehouse refuses this user.
        DestinationUnavailableError: it does not answer, or not in time.
    """
    with translated_errors(), connect(watcher, "status page") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(f"{STATEMENT_SECONDS}s")))
        yield connection


def _known_streams(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return [
        (source, stream)
        for source, stream in connection.execute("select distinct source, stream from ops.streams").fetchall()
        if source != "dbt"  # whose lease is the transform's
    ]


_PRIVATE = (
    (re.compile(r'(invalid (?:input )?(?:syntax|value) for [^:]{1,80}: )".*?(?:"|$)', re.DOTALL), r'\1"…"'),
    (re.compile(r"(Key \([^)]*\))=\(.*?\)(?= |\.|$)", re.DOTALL), r"\1=(…)"),
    (re.compile(r"(Failing row contains )\(.*\)", re.DOTALL), r"\1(…)"),
)


def without_values(text: str) -> str:
    """A message as the page may show it: PostgreSQL's quote values of rows, which are left out."""
    for pattern, without in _PRIVATE:
        text = pattern.sub(without, text)
    return text
