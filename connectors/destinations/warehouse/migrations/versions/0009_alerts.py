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
    answer text,
    delivered_at timestamptz,
    superseded_by uuid references ops.alerts,
    given_up_at timestamptz,
    unique (incident_id, channel, kind, number)
);
comment on table ops.alerts is 'One row a message and channel; it ends as delivered, superseded or given up';
comment on column ops.alerts.channel is 'The name of a channel in the routing: slack, email, webhook …';
comment on column ops.alerts.number is 'Counts the messages of a kind of an incident: there is one of each number';
comment on column ops.alerts.answer is 'What the other side said when it took it';
comment on column ops.alerts.claimed_until is 'Someone is sending it, and is taken for dead after that';
comment on column ops.alerts.superseded_by is 'A later message of the incident was delivered instead';
create index on ops.alerts (channel, created_at)
    where delivered_at is null and superseded_by is null and given_up_at is null;

create table ops.alert_channels (
    channel text primary key,
    failures integer not null default 0,
    failing_since timestamptz,
    is_broken boolean not null default false,
    retry_at timestamptz,
    last_error text,
    last_delivered_at timestamptz,
    reported_since timestamptz
);
comment on table ops.alert_channels is 'How each channel is; failing_since is null where its last message passed';
comment on column ops.alert_channels.is_broken is 'It will not come back by itself: it is gone, or lets us in no more';
comment on column ops.alert_channels.reported_since is 'The others know that it fails, and not yet that it is back';
comment on column ops.alert_channels.retry_at is 'Nothing is sent to it before that';

create table ops.heartbeats (
    name text primary key,
    beat_at timestamptz not null default clock_timestamp(),
    detail jsonb not null default '{}'
);
comment on table ops.heartbeats is 'When each thing that watches last gave a sign of life: `watcher` …';

grant select on ops.alerts, ops.alert_channels, ops.heartbeats
    to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.alerts, ops.alert_channels, ops.heartbeats to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_TABLES)
