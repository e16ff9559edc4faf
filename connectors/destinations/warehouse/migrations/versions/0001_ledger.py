"""The first released shape: ledger, loading area, published tables, serving views, and who may do what with them."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
create schema ops;
create schema loading;
create schema published;
create schema serving;

create table ops.streams (
    source text not null,
    stream text not null,
    epoch bigint not null,
    holder text,
    lease_until timestamptz not null,
    holder_pid integer,
    holder_session_start timestamptz,
    primary key (source, stream)
);
comment on table ops.streams is 'Who works on a stream: a lease, and the epoch that fences its predecessors';

create table ops.loads (
    load_id uuid primary key,
    source text not null,
    stream text not null,
    window_start timestamptz,
    window_end timestamptz,
    cursor_from text,
    cursor_to text,
    status text not null check (status in ('extracting', 'landed', 'loaded', 'failed')),
    attempt integer not null,
    manifest_key text,
    started_at timestamptz not null default clock_timestamp(),
    landed_at timestamptz,
    loaded_at timestamptz,
    raw_loaded_at timestamptz,
    rows_extracted bigint,
    rows_inserted bigint,
    rows_updated bigint,
    rows_unchanged bigint,
    rows_duplicate bigint,
    rows_quarantined bigint,
    rows_deleted bigint,
    bytes_landed bigint,
    error text,
    run_id text,
    check ((window_start is null) = (window_end is null)),
    check (window_start < window_end),
    check (status <> 'loaded' or rows_extracted
        = rows_inserted + rows_updated + rows_unchanged + rows_duplicate + rows_quarantined)
);
comment on table ops.loads is 'One row a load; a loaded one accounts for every row that was extracted';
create index on ops.loads (source, stream, started_at desc);
create index on ops.loads (source, stream) where status in ('extracting', 'landed', 'failed');

create table ops.watermarks (
    source text not null,
    stream text not null,
    cursor_field text not null,
    value text not null,
    load_id uuid not null references ops.loads,
    committed_at timestamptz not null default clock_timestamp(),
    primary key (source, stream)
);
comment on table ops.watermarks is 'The committed position of each cursor, moved with the rows it stands for';

create table ops.files (
    source text not null,
    stream text not null,
    path text not null,
    version text not null,
    bytes bigint not null,
    load_id uuid not null references ops.loads,
    primary key (source, stream, path)
);
comment on table ops.files is 'The version of each source file that raw holds';

create table ops.schema_changes (
    id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    load_id uuid not null references ops.loads,
    column_name text not null,
    change text not null check (change in ('added', 'widened', 'removed', 'returned')),
    from_type text,
    to_type text,
    changed_at timestamptz not null default clock_timestamp()
);
create index on ops.schema_changes (source, stream, column_name, id desc);

create table ops.quarantine (
    id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    load_id uuid not null references ops.loads,
    row_in_load bigint not null,
    reason text not null,
    payload text not null,
    quarantined_at timestamptz not null default clock_timestamp()
);
comment on table ops.quarantine is 'Rows that broke their contract; the landing of their load has them as they came';
create index on ops.quarantine (source, stream, load_id);

create table ops.publishes (
    generation bigint primary key,
    published_at timestamptz not null default clock_timestamp(),
    invocation_id text not null,
    run_id text
);
comment on table ops.publishes is 'One row a generation of the serving schema';

create table ops.published_marts (
    generation bigint not null references ops.publishes,
    mart text not null,
    rows_inserted bigint not null,
    rows_updated bigint not null,
    rows_deleted bigint not null,
    rows_total bigint not null,
    primary key (generation, mart)
);
"""

_GRANTS = """
do $$
begin
    -- raw_<source>, the layers of dbt; dbt's incremental models and unit tests use temporary tables.
    execute format('grant create on database %I to headwater_loader, headwater_transformer', current_database());
    execute format('grant temporary on database %I to headwater_transformer', current_database());
end
$$;

revoke all on schema ops, loading, published, serving from public;

grant usage on schema ops to headwater_loader, headwater_transformer, headwater_publisher;
grant select on all tables in schema ops to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.streams to headwater_transformer;
grant insert, update on ops.streams, ops.loads, ops.watermarks, ops.files to headwater_loader;
grant insert on ops.schema_changes, ops.quarantine to headwater_loader;
grant insert on ops.publishes, ops.published_marts to headwater_publisher;

grant usage, create on schema loading to headwater_loader;
grant usage, create on schema published, serving to headwater_publisher;
grant usage on schema serving to headwater_reader;
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_GRANTS)
