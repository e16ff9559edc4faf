"""Reconciliations: what was compared with the source, what differed, and which windows are due."""

from alembic import op

revision = "0005"
down_revision = "0004"

_CHANGES = """
create table ops.reconciliations (
    reconciliation_id uuid primary key,
    source text not null,
    stream text not null,
    compared_by text not null check (compared_by in ('digests', 'rows')),
    status text not null default 'running' check (status in ('running', 'equal', 'different', 'healed', 'failed')),
    windows integer not null default 0,
    key_from text,
    key_to text,
    rows_at_source bigint,
    rows_in_raw bigint,
    missing bigint,
    different bigint,
    deleted bigint,
    is_at_least boolean not null default false,
    uncertain bigint,
    quarantined bigint,
    changed_since bigint,
    questions integer,
    error text,
    run_id text,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    check ((status = 'running') = (ended_at is null))
);
comment on table ops.reconciliations is
    'One row a stream and run: raw held against the source, within some windows or keys';
comment on column ops.reconciliations.compared_by is
    'digests: counts and checksums that the source computes; rows: they were read again';
comment on column ops.reconciliations.key_from is
    'Of a stream without windows: from which value of the key on; null is from the lowest';
comment on column ops.reconciliations.key_to is 'Where the next one begins, exclusive; null is up to the highest';
comment on column ops.reconciliations.missing is 'Rows of the source that raw lacks; before anything was healed';
comment on column ops.reconciliations.different is 'Rows that raw has otherwise than the source';
comment on column ops.reconciliations.deleted is 'Live rows of raw that the source no longer has';
comment on column ops.reconciliations.is_at_least is 'Whether there are more than were looked at';
comment on column ops.reconciliations.uncertain is
    'Of these, rows that may have changed since the last load: the stream has no cursor to tell';
comment on column ops.reconciliations.quarantined is 'Rows that raw does not have because they are in quarantine';
comment on column ops.reconciliations.changed_since is 'Rows that the next load brings: changed after the watermark';
comment on column ops.reconciliations.questions is 'Queries to the source, or records that were read';
create index on ops.reconciliations (source, stream, started_at desc);

create table ops.differences (
    id bigint generated always as identity primary key,
    reconciliation_id uuid not null references ops.reconciliations,
    source text not null,
    stream text not null,
    window_start timestamptz,
    window_end timestamptz,
    key jsonb not null,
    kind text not null check (kind in ('missing', 'different', 'deleted')),
    columns text[] not null default '{}',
    is_certain boolean not null,
    healed_at timestamptz
);
comment on table ops.differences is 'Rows that raw and the source did not agree on, by key; never their values';
comment on column ops.differences.columns is
    'Of a row that both have: what differs; `_deleted_at` if raw has it as deleted';
comment on column ops.differences.healed_at is 'When a comparison after the healing found them alike';
create index on ops.differences (reconciliation_id);
create index on ops.differences (source, stream) where healed_at is null;

create table ops.reconciled_windows (
    source text not null,
    stream text not null,
    window_start timestamptz not null,
    reconciliation_id uuid not null references ops.reconciliations,
    reconciled_at timestamptz not null,
    primary key (source, stream, window_start)
);
comment on table ops.reconciled_windows is 'When each window was last compared: those that are longest ago come first';

grant select on ops.reconciliations, ops.differences, ops.reconciled_windows
    to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.reconciliations, ops.reconciled_windows to headwater_loader;
grant insert, update (healed_at) on ops.differences to headwater_loader;
"""


def upgrade() -> None:
    op.execute(_CHANGES)
