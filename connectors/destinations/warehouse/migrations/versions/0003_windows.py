"""Windows: which of a stream's windows raw has, how many rows each, and the backfills that fill them."""

from alembic import op

revision = "0003"
down_revision = "0002"

_CHANGES = """
alter table ops.streams
    add column scope text not null default '',
    drop constraint streams_pkey,
    add primary key (source, stream, scope);
comment on column ops.streams.scope is
    'Empty for the stream as a whole; else the window that a run reads beside others. Their commits take turns';

alter table ops.loads
    drop constraint loads_status_check,
    add constraint loads_status_check
        check (status in ('extracting', 'landed', 'loaded', 'failed', 'superseded'));
comment on column ops.loads.status is
    'A window load that was left behind is superseded when another has read all of its window';
create index on ops.loads (source, stream, window_start) where window_start is not null;

create table ops.windows (
    source text not null,
    stream text not null,
    window_start timestamptz not null,
    window_end timestamptz not null check (window_start < window_end),
    rows bigint not null,
    changed_by uuid references ops.loads,
    changed_at timestamptz,
    read_by uuid references ops.loads,
    read_at timestamptz,
    built_by bigint references ops.publishes,
    is_stale boolean not null default false,
    primary key (source, stream, window_start)
);
comment on table ops.windows is 'Windows that loads have read or changed; which are missing is computed';
comment on column ops.windows.rows is 'How many rows raw should have of it, those marked as deleted too';
comment on column ops.windows.changed_by is 'The load that last brought or changed a row of it';
comment on column ops.windows.read_by is 'The load that last read the window as a whole, and nothing but windows';
comment on column ops.windows.built_by is 'The generation of the serving schema that was last built with it';
comment on column ops.windows.is_stale is 'Whether rows of it changed after it was built';
create index on ops.windows (source, stream) where is_stale or built_by is null;

create table ops.window_changes (
    source text not null,
    stream text not null,
    window_start timestamptz not null,
    load_id uuid not null references ops.loads,
    rows_inserted bigint not null,
    rows_updated bigint not null,
    primary key (source, stream, window_start, load_id)
);
comment on table ops.window_changes is 'Which windows each load brought rows of, or changed';

create table ops.backfills (
    backfill_id uuid primary key,
    source text not null,
    stream text not null,
    window_start timestamptz not null,
    window_end timestamptz not null check (window_start < window_end),
    mode text not null check (mode in ('missing', 'failed', 'stale', 'all')),
    is_backward boolean not null default false,
    rows_at_once bigint not null check (rows_at_once > 0),
    at_once integer not null check (at_once > 0),
    state text not null default 'running' check (state in ('running', 'paused', 'cancelled', 'ended')),
    run_id text,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);
comment on table ops.backfills is 'Backfills that were begun; their windows are in ops.backfill_windows';
create index on ops.backfills (source, stream, started_at desc);

create table ops.backfill_windows (
    backfill_id uuid not null references ops.backfills,
    window_start timestamptz not null,
    window_end timestamptz not null,
    state text not null default 'waiting' check (state in ('waiting', 'running', 'loaded', 'failed')),
    most_beside integer,
    attempts integer not null default 0,
    rows_estimated bigint,
    rows_loaded bigint,
    load_id uuid,
    error text,
    from_landing uuid[] not null default '{}',
    batch_start timestamptz,
    holder text,
    holder_pid integer,
    holder_session_start timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    primary key (backfill_id, window_start)
);
comment on column ops.backfill_windows.most_beside is
    'How many windows it may be read with, itself included; less each time that a batch with it failed';

grant insert, update on ops.windows, ops.window_changes, ops.backfills, ops.backfill_windows to headwater_loader;
grant select on ops.windows, ops.window_changes, ops.backfills, ops.backfill_windows
    to headwater_loader, headwater_transformer, headwater_publisher;
grant update (built_by, is_stale) on ops.windows to headwater_publisher;
"""


def upgrade() -> None:
    op.execute(_CHANGES)
