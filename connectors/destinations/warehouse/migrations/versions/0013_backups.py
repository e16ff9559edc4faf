"""Backups and restores, in the ledger."""

from alembic import op

revision = "0013"
down_revision = "0012"

_CHANGES = """
create table ops.backups (
    backup_id uuid primary key,
    kind text not null check (kind in ('full', 'without raw')),
    status text not null default 'running' check (status in ('running', 'done', 'failed')),
    place text not null,
    started_at timestamptz not null default clock_timestamp(),
    as_of timestamptz,
    ended_at timestamptz,
    bytes bigint,
    tables bigint,
    rows bigint,
    error text,
    checked_at timestamptz,
    check_error text,
    deleted_at timestamptz,
    run_id text,
    check ((status = 'running') = (ended_at is null))
);
comment on table ops.backups is 'One row a backup of this warehouse, whether it came to an end or not';
comment on column ops.backups.place is 'Its folder in the store of backups';
comment on column ops.backups.as_of is 'The instant that it shows';
comment on column ops.backups.bytes is 'As stored';
comment on column ops.backups.checked_at is 'When it was last restored into another database and compared';
comment on column ops.backups.check_error is 'Why that check failed; null if it passed';
comment on column ops.backups.deleted_at is 'When it was deleted because newer ones are kept';
create index on ops.backups (started_at desc);

create table ops.restores (
    restore_id bigint generated always as identity primary key,
    backup_id uuid not null,
    as_of timestamptz not null,
    began_at timestamptz not null,
    ended_at timestamptz not null default clock_timestamp(),
    loads_adopted bigint not null,
    requests_repeated bigint not null,
    restored_by text not null
);
comment on table ops.restores is 'Each time that this warehouse was made anew from a backup';
comment on column ops.restores.as_of is 'The instant that the backup shows: all that is older comes from it';
comment on column ops.restores.loads_adopted is 'Loads that had landed after it, and were taken from the landing';
comment on column ops.restores.requests_repeated is 'Requests to forget that were made after it, and were repeated';

grant select on ops.backups, ops.restores to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.backups to headwater_watcher;

-- The watcher reads the ledger into a backup; the values that identity columns have come to are of sequences.
grant select on all sequences in schema ops to headwater_watcher;
alter default privileges in schema ops grant select on sequences to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_CHANGES)
