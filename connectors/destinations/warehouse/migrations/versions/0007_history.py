"""History of dbt and of freshness, and the lineage that the latest build had."""

from alembic import op

revision = "0007"
down_revision = "0006"

_TABLES = """
create table ops.dbt_invocations (
    invocation_id text primary key,
    command text not null,
    selection text,
    is_full_refresh boolean not null default false,
    dbt_version text not null,
    is_success boolean not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    generation bigint references ops.publishes,
    run_id text,
    error text,
    collected_at timestamptz not null default clock_timestamp()
);
comment on table ops.dbt_invocations is 'One row a build, whether it passed or not';
comment on column ops.dbt_invocations.selection is 'What was selected; null is the whole project';
comment on column ops.dbt_invocations.error is
    'Why it has no results, or ended before all nodes had: dbt did not start, or was cut short; null otherwise';
comment on column ops.dbt_invocations.generation is 'What was published of it; null: nothing';
create index on ops.dbt_invocations (started_at desc);

create table ops.dbt_results (
    invocation_id text not null references ops.dbt_invocations on delete cascade,
    node text not null,
    name text not null,
    resource_type text not null,
    layer text,
    materialized text,
    status text not null,
    severity text,
    message text,
    failures bigint,
    rows_affected bigint,
    started_at timestamptz,
    ended_at timestamptz,
    compiled_sha256 text,
    relation text,
    tests text[] not null default '{}',
    primary key (invocation_id, node)
);
comment on table ops.dbt_results is 'What became of each node in each invocation; tests are nodes too';
comment on column ops.dbt_results.node is 'dbt''s unique_id';
comment on column ops.dbt_results.status is 'In dbt''s words: success, pass, warn, fail, error, skipped';
comment on column ops.dbt_results.failures is 'Of a test: rows that failed';
comment on column ops.dbt_results.compiled_sha256 is 'Of the compiled SQL: whether a model is still the same';
comment on column ops.dbt_results.tests is 'Of a test: the nodes that it is declared on, or that it names';
create index on ops.dbt_results (node, started_at desc);

create table ops.freshness (
    checked_at timestamptz not null,
    source text not null,
    stream text not null,
    as_of timestamptz,
    late_at timestamptz,
    stale_at timestamptz,
    status text not null check (status in ('fresh', 'late', 'stale', 'never loaded', 'not watched')),
    run_id text,
    primary key (source, stream, checked_at)
);
comment on table ops.freshness is 'How far each stream was, whenever it was looked at, and how old it may be';
comment on column ops.freshness.as_of is 'Up to when raw was complete; null if nothing of it was ever loaded';
comment on column ops.freshness.late_at is 'When it is late by its warn_after; null if without, or never loaded';
comment on column ops.freshness.stale_at is 'When it is stale by its error_after; likewise';
create index on ops.freshness (checked_at);

create table ops.lineage_nodes (
    node text primary key,
    kind text not null check (kind in ('stream', 'source', 'seed', 'model', 'snapshot', 'test', 'exposure')),
    name text not null,
    label text,
    layer text,
    mart_group text,
    owner text,
    relation text,
    url text,
    description text,
    materialized text
);
comment on table ops.lineage_nodes is 'The graph as the latest build of the whole project had it';
comment on column ops.lineage_nodes.node is 'dbt''s unique_id; of a stream: `stream.<source>.<stream>`';
comment on column ops.lineage_nodes.owner is 'Who hears of its troubles: of its group, exposure or source';

create table ops.lineage_edges (
    parent text not null references ops.lineage_nodes,
    child text not null references ops.lineage_nodes,
    primary key (parent, child)
);
create index on ops.lineage_edges (child);
comment on table ops.lineage_edges is 'The child is made from the parent: from streams through models to dashboards';

grant select on ops.dbt_invocations, ops.dbt_results, ops.freshness, ops.lineage_nodes, ops.lineage_edges
    to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update, delete
    on ops.dbt_invocations, ops.dbt_results, ops.freshness, ops.lineage_nodes, ops.lineage_edges
    to headwater_watcher;
grant usage on schema ops to headwater_watcher;
grant select on all tables in schema ops to headwater_watcher;
alter default privileges in schema ops grant select on tables to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_TABLES)
