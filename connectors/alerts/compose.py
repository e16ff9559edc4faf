"""From a row of `ops.incidents` to messages in the outbox: what each says, and which channels it is for."""

from __future__ import annotations

import re
from datetime import datetime

import psycopg

from connectors.alerts.message import Kind, Message
from connectors.alerts.outbox import enqueue
from connectors.alerts.routing import Links, Routing
from connectors.errors import ConfigurationError

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def announce(
    connection: psycopg.Connection,
    routing: Routing,
    incident_id: int,
    kind: Kind | str,
    number: int = 1,
    *,
    due_at: datetime | None = None,
) -> int:
    """Put what is to be said of an incident into the outbox, within the caller's transaction.

    A channel hears that an incident is over if it was to hear of it; of anything else, if a route by the incident's
    owner and severity leads to it.

    Args:
        number: counts the messages of a kind of an incident; one that is there already is left as it is.
        due_at: not before that.

    Returns:
        How many messages are new.

    Raises:
        ConfigurationError: there is no such incident.
    """
    message = message_about(connection, incident_id, Kind(kind), routing.links)
    channels = routing.channels_for(message.owner, message.severity)
    if message.kind is Kind.CLOSED:
        told = connection.execute("select distinct channel from ops.alerts where incident_id = %s", [incident_id])
        channels = tuple(channel for (channel,) in told.fetchall())
    now = connection.execute("select greatest(clock_timestamp(), %s::timestamptz)", [due_at]).fetchone()
    assert now is not None  # noqa: S101 - a select without from has one row
    return enqueue(
        connection,
        incident_id=incident_id,
        kind=message.kind,
        number=number,
        subject=message.subject,
        body=message.as_json(),
        channels=channels,
        due_at={channel: routing.due_at(channel, message.severity, now[0]) for channel in channels},
    )


def message_about(connection: psycopg.Connection, incident_id: int, kind: Kind, links: Links) -> Message:
    """What is to be said of an incident now.

    Raises:
        ConfigurationError: there is no such incident.
    """
    found = connection.execute(
        """
        select severity, case when %s then coalesce(
                (
                    select detail from ops.incident_events as event
                    where event.incident_id = incident.incident_id and event.event in ('opened', 'reopened')
                    order by id desc limit 1
                ),
                title
            ) else title end, cause, next_command, owner, opened_at, closed_at, closed_why, times_seen,
            affected_marts, affected_dashboards, clock_timestamp(),
            (
                select run_id from ops.incident_events as event
                where event.incident_id = incident.incident_id and run_id is not null order by id desc limit 1
            )
        from ops.incidents as incident where incident_id = %s
        """,
        # That it is over is told by the name under which it was told to have begun: its signs may have gone since.
        [kind is Kind.CLOSED, incident_id],
    ).fetchone()
    if found is None:
        raise ConfigurationError(
            f"There is no incident {incident_id}.", remedy="`headwater incidents` lists those that there are."
        )
    severity, title, cause, command, owner, opened, closed, why, seen, marts, dashboards, now, run = found
    run_id = _RUN_ID.search(run or "")
    return Message(
        kind=kind,
        severity=severity,
        title=title,
        cause=cause,
        next_command=command,
        owner=owner,
        incident_id=incident_id,
        opened_at=opened,
        closed_at=closed if kind is Kind.CLOSED else None,
        closed_why=why if kind is Kind.CLOSED else None,
        times_seen=seen,
        affected_marts=tuple(marts),
        affected_dashboards=tuple(dashboards),
        written_at=now,
        links=links.of(run_id.group() if run_id else None),
    )
