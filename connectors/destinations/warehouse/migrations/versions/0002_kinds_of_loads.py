"""Kinds of loads (keys, replays, full refreshes), cursors that wait for open transactions, discarded values."""

from alembic import op

revision = "0002"
down_revision = "0001"

_CHANGES = """
alter table ops.loads
    add column kind text not null default 'rows' check (kind in ('rows', 'keys', 'replay')),
    add column full_refresh boolean not null default false,
    add column replay_of uuid references ops.loads,
    add check ((kind = 'replay') = (replay_of is not null));
comment on column ops.loads.kind is
    'rows of the source, its keys (to find deletions), or a replay of an earlier load from the landing';

alter table ops.watermarks
    alter column value drop not null,
    add column pending jsonb not null default '[]',
    add column source_state jsonb;
comment on column ops.watermarks.value is 'Every row below it is in raw; null until the first load is sure of it';
comment on column ops.watermarks.pending is
    'Later positions that count once the transactions that were open at the source, named with each, have ended';
comment on column ops.watermarks.source_state is 'What tells whether the source was put back to an earlier state';

alter table ops.schema_changes
    drop constraint schema_changes_change_check,
    add constraint schema_changes_change_check
        check (change in ('added', 'widened', 'removed', 'returned', 'discarded')),
    add column rows_discarded bigint;
comment on column ops.schema_changes.rows_discarded is
    'For `discarded`: rows of the load that came into raw without their value of this column';

alter table ops.quarantine add column replayed_by uuid references ops.loads;
comment on column ops.quarantine.replayed_by is 'The replay that took the row out of quarantine; null while it is in';
grant update (replayed_by) on ops.quarantine to headwater_loader;
"""


def upgrade() -> None:
    op.execute(_CHANGES)
