"""Forgetting: rows that were erased by their keys, and the hashes of these keys, so that no load brings them back."""

from alembic import op

revision = "0010"
down_revision = "0009"

_CHANGES = """
alter table ops.loads
    add column rows_forgotten bigint not null default 0,
    add column rows_erased bigint not null default 0;
comment on column ops.loads.rows_forgotten is
    'Rows that came although their key was forgotten: they were erased from the landing and not loaded';
comment on column ops.loads.rows_erased is
    'Rows that the landing has no more: their key was forgotten, before or after the load. What became of them at the
time of the load, the other counts say';

do $$
declare
    name text := (
        select conname from pg_constraint where conrelid = 'ops.loads'::regclass and contype = 'c'
            and pg_get_constraintdef(oid) like '%rows_duplicate%'
    );
begin
    execute format('alter table ops.loads drop constraint %I', name);
end
$$;
alter table ops.loads add constraint loads_rows_check check (
    status <> 'loaded' or rows_extracted
    = rows_inserted + rows_updated + rows_unchanged + rows_duplicate + rows_quarantined + rows_forgotten
);

create table ops.forget_requests (
    request_id uuid primary key,
    source text not null,
    stream text not null,
    kind text not null check (kind in ('forget', 'allow again')),
    columns text[] not null,
    keys bigint not null,
    status text not null check (status in ('running', 'to be built', 'done')),
    with_unreadable boolean not null default false,
    why text,
    requested_by text not null,
    requested_at timestamptz not null default clock_timestamp(),
    derived_at timestamptz,
    ended_at timestamptz,
    check ((status = 'done') = (ended_at is not null))
);
comment on table ops.forget_requests is 'Who had rows erased, of which stream and why; the keys are nowhere in it';
comment on column ops.forget_requests.columns is 'What the rows were told by: the primary key of the stream, or other';
comment on column ops.forget_requests.status is
    'to be built: all is erased but from tables that the next build makes anew; then `headwater forget --resume`';
comment on column ops.forget_requests.derived_at is 'When no build was under way and all models were erased';
create index on ops.forget_requests (source, stream) where status <> 'done';

create table ops.forget_places (
    request_id uuid not null references ops.forget_requests,
    place text not null,
    rows bigint not null,
    noted_at timestamptz not null default clock_timestamp(),
    primary key (request_id, place)
);
comment on table ops.forget_places is 'How many rows each request has erased, by where they were';

create table ops.forget_salts (
    salt_id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    columns text[] not null,
    salt bytea not null,
    secret text,
    unique nulls not distinct (source, stream, columns, secret)
);
comment on table ops.forget_salts is 'What the keys of a stream are hashed with';
comment on column ops.forget_salts.secret is
    'Tells by which secret beside the salt (HEADWATER_FORGET_KEY), without telling the secret; null: by the salt alone';

create table ops.forgotten (
    salt_id bigint not null references ops.forget_salts,
    key_hash bytea not null,
    request_id uuid not null references ops.forget_requests,
    primary key (salt_id, key_hash)
);
comment on table ops.forgotten is 'HMAC-SHA256 of the keys whose rows were erased: loads leave such rows out';

grant select on ops.forget_requests, ops.forget_places, ops.forget_salts, ops.forgotten
    to headwater_loader, headwater_transformer, headwater_publisher;
-- Each role notes what it has erased of its own, in the transaction that erases it.
grant insert, update on ops.forget_places to headwater_loader, headwater_transformer, headwater_publisher;
grant delete on ops.quarantine to headwater_loader;
"""


def upgrade() -> None:
    op.execute(_CHANGES)
