"""Incidents: one trouble from first sign to recovery, whatever shows it."""

from alembic import op

revision = "0008"
down_revision = "0007"

_TABLES = """
create table ops.incidents (
    incident_id bigint generated always as identity primary key,
    severity text not null check (severity in ('warning', 'error', 'critical')),
    title text not null,
    cause text not null,
    next_command text not null,
    owner text,
    root text,
    affected_marts text[] not null default '{}',
    affected_dashboards text[] not null default '{}',
    opened_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    times_seen bigint not null default 1,
    snoozed_until timestamptz,
    snoozed_by text,
    snoozed_why text,
    keys text[] not null default '{}',
    closed_at timestamptz,
    closed_why text,
    closed_as text check (closed_as in ('recovered', 'part of another', 'by hand')),
    part_of bigint references ops.incidents,
    check ((closed_at is null) = (closed_as is null)),
    check ((part_of is not null) = (closed_as is not distinct from 'part of another'))
);
comment on table ops.incidents is 'One row a trouble; those without closed_at are open';
comment on column ops.incidents.title is 'What it is, in a sentence, as its most upstream sign says it';
comment on column ops.incidents.cause is 'The likely cause';
comment on column ops.incidents.next_command is 'What to type next';
comment on column ops.incidents.root is
    'Where it begins: a node of ops.lineage_nodes, `destination`, `system.<source>`, `build` or `group.<group>`';
comment on column ops.incidents.severity is 'The worst that it has been';
comment on column ops.incidents.times_seen is 'How many times something has looked, and seen it';
comment on column ops.incidents.keys is 'Of all signs that it has had: one that returns soon opens it again';
create index on ops.incidents (opened_at desc);
create index on ops.incidents (closed_at desc nulls first);

create table ops.signs (
    key text primary key,
    scope text not null,
    kind text not null,
    incident_id bigint not null references ops.incidents,
    severity text not null check (severity in ('warning', 'error', 'critical')),
    title text not null,
    cause text not null,
    next_command text not null,
    node text,
    run_id text,
    owner text,
    first_seen_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp()
);
comment on table ops.signs is 'What shows each open incident now; a sign that is gone is deleted';
comment on column ops.signs.key is 'The same trouble has the same key, however often it is seen';
comment on column ops.signs.scope is 'The check that sees it, and that says when it is gone';
create index on ops.signs (incident_id);
create index on ops.signs (scope);

create table ops.incident_events (
    id bigint generated always as identity primary key,
    incident_id bigint not null references ops.incidents,
    at timestamptz not null default clock_timestamp(),
    event text not null check (event in
        ('opened', 'sign', 'sign gone', 'worse', 'reminded', 'snoozed', 'woken', 'closed', 'reopened')),
    detail text not null,
    run_id text
);
comment on table ops.incident_events is 'The story of each incident';
create index on ops.incident_events (incident_id, id);

alter table ops.loads add column error_kind text;
comment on column ops.loads.error_kind is 'The class of its error, see connectors/errors.py';

grant select on ops.incidents, ops.signs, ops.incident_events
    to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.incidents to headwater_watcher;
grant insert, update, delete on ops.signs to headwater_watcher;
grant insert on ops.incident_events to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_TABLES)
