"""The outbox: each message to each channel, until it is delivered; and the signs of life of what watches."""

from alembic import op

revision = "0009"
down_revision = "0008"

_TABLES = """
create table ops.alerts (
    alert_id uuid primary key,
    incident_id bigint references ops.incidents,
    channel text not null,
    kind text not null check (kind in ('opened', 'worse', 'reminder', 'closed', 'canary')),
    number integer not null default 1,
    subject text not null,
    body jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    due_at timestamptz not null default clock_timestamp(),
    attempts integer not null default 0,
    claimed_until timestamptz,
    last_error text,
    delivered_at timestamptz,
    given_up_at timestamptz,
    unique (incident_id, channel, kind, number)
);
comment on table ops.alerts is 'One row a message and channel; without delivered_at it is still to be delivered';
comment on column ops.alerts.channel is 'The name of a channel in the routing: slack, email, webhook …';
comment on column ops.alerts.number is 'Counts the messages of a kind of an incident: there is one of each number';
create index on ops.alerts (due_at) where delivered_at is null and given_up_at is null;

create table ops.heartbeats (
    name text primary key,
    beat_at timestamptz not null default clock_timestamp(),
    detail jsonb not null default '{}'
);
comment on table ops.heartbeats is 'When each thing that watches last gave a sign of life: `watcher` …';

grant select on ops.alerts, ops.heartbeats to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.alerts, ops.heartbeats to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_TABLES)
