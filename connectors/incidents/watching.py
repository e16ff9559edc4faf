"""What the watcher reads and writes in the warehouse, beside signs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from connectors.incidents.record import Announce, Announcement, Kind, read_incidents
from connectors.incidents.signs import Sign

WATCHER = "watcher"


def beat(connection: psycopg.Connection, detail: Mapping[str, Any]) -> timedelta | None:
    """Note that the watcher is alive; returns how long it had been silent, or None if it never was heard before.

    Args:
        detail: where it runs and what it has found, for people.
    """
    row = connection.execute(
        "select clock_timestamp() - beat_at from ops.heartbeats where name = %s", [WATCHER]
    ).fetchone()
    connection.execute(
        """
        insert into ops.heartbeats (name, detail) values (%s, %s)
        on conflict (name) do update set beat_at = clock_timestamp(), detail = excluded.detail
        """,
        [WATCHER, Jsonb(dict(detail))],
    )
    return row[0] if row else None


def failed_nodes(connection: psycopg.Connection, flow_runs: Iterable[str]) -> dict[str, str]:
    """Where in the lineage runs have failed, by flow run id: a stream whose load failed, or the first node of dbt.

    Runs that failed otherwise, or that the ledger knows nothing of, are left out.
    """
    rows = connection.execute(
        """
        select run, node
        from unnest(%s::text[]) run
        cross join lateral (
            select coalesce(
                (
                    select 'stream.' || source || '.' || stream
                    from ops.loads
                    where run_id like '%%' || run || '%%' and status = 'failed'
                    order by started_at
                    limit 1
                ),
                (
                    select r.node
                    from ops.dbt_results r
                    join ops.dbt_invocations i using (invocation_id)
                    where i.run_id like '%%' || run || '%%' and r.status in ('error', 'fail', 'runtime error')
                    order by r.started_at
                    limit 1
                )
            ) as node
        ) failed
        where node is not null
        """,
        [list(flow_runs)],
    ).fetchall()
    return dict(rows)


def write_down(
    connection: psycopg.Connection,
    sign: Sign,
    announce: Announce,
    *,
    opened_at: datetime,
    closed_at: datetime,
    told: Iterable[str],
) -> int:
    """Note an incident that is over, of the time in which the warehouse could not be written to; one transaction.

    The channels that were told of it hear through the outbox that it is over.

    Args:
        told: names of the channels that took a message that it had begun.

    Returns:
        The incident's number.
    """
    with connection.transaction():
        row = connection.execute(
            """
            insert into ops.incidents
                (severity, title, cause, next_command, keys, opened_at, last_seen_at, closed_at, closed_why, closed_as)
            values (
                %(severity)s, %(title)s, %(cause)s, %(command)s, array[%(key)s], %(opened)s, %(closed)s, %(closed)s,
                'It answers again.', 'recovered'
            )
            returning incident_id
            """,
            {
                "key": sign.key,
                "severity": sign.severity,
                "title": sign.title,
                "cause": sign.cause,
                "command": sign.next_command,
                "opened": opened_at,
                "closed": closed_at,
            },
        ).fetchone()
        assert row is not None  # noqa: S101 - one row was inserted
        incident_id: int = row[0]
        for event, at, detail in (("opened", opened_at, sign.title), ("closed", closed_at, "It answers again.")):
            connection.execute(
                "insert into ops.incident_events (incident_id, at, event, detail) values (%s, %s, %s, %s)",
                [incident_id, at, event, detail],
            )
        for channel in told:
            connection.execute(
                """
                insert into ops.alerts
                    (alert_id, incident_id, channel, kind, subject, body, created_at, due_at, delivered_at)
                values (%s, %s, %s, 'opened', %s, '{}', %s, %s, %s)
                """,
                [uuid7(), incident_id, channel, sign.title, opened_at, opened_at, opened_at],
            )
        incident = read_incidents(connection, [incident_id])[incident_id]
        announce(connection, Announcement(incident, Kind.CLOSED, 1))
    return incident_id
