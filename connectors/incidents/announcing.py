"""Incidents speak through alerts: what an observation has to tell becomes messages in the outbox."""

from __future__ import annotations

import psycopg

from connectors.alerts.compose import announce
from connectors.alerts.routing import Routing
from connectors.incidents.record import Announce, Announcement


def announcer(routing: Routing) -> Announce:
    """What writes messages for the channels that a routing names; see `connectors.incidents.observe.observe`."""

    def put_in_the_outbox(connection: psycopg.Connection, announcement: Announcement, /) -> None:
        announce(
            connection,
            routing,
            announcement.incident.incident_id,
            announcement.kind,
            announcement.number,
            due_at=announcement.due_at,
        )

    return put_in_the_outbox
