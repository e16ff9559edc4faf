"""Incidents as `ops` has them, and what is handed to whoever writes messages about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import psycopg
from psycopg.rows import class_row

from connectors.alerts.message import Kind as Kind  # of an announcement, which becomes a message
from connectors.incidents.signs import Severity


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of `ops.incidents`."""

    incident_id: int
    severity: Severity
    """The worst that it has been."""
    title: str
    cause: str
    next_command: str
    owner: str | None
    root: str | None
    affected_marts: tuple[str, ...]
    affected_dashboards: tuple[str, ...]
    opened_at: datetime
    last_seen_at: datetime
    times_seen: int
    snoozed_until: datetime | None
    snoozed_by: str | None
    snoozed_why: str | None
    closed_at: datetime | None
    closed_why: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", Severity(self.severity))
        for name in ("affected_marts", "affected_dashboards"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


_COLUMNS = ", ".join(Incident.__dataclass_fields__)


def read_incidents(connection: psycopg.Connection, incident_ids: Iterable[int]) -> dict[int, Incident]:
    """Incidents by their number; those that there are not are left out."""
    with connection.cursor(row_factory=class_row(Incident)) as cursor:
        cursor.execute(
            f"select {_COLUMNS} from ops.incidents where incident_id = any(%s)".encode(),  # noqa: S608 - our own columns
            [list(incident_ids)],
        )
        return {each.incident_id: each for each in cursor}


@dataclass(frozen=True, slots=True)
class Announcement:
    """That a message is due, once for each incident, kind and number."""

    incident: Incident
    """As it is now."""
    kind: Kind
    number: int
    """Counts those of the kind, from 1."""
    due_at: datetime | None = None
    """Not before that; a recovery that is taken back until then was none. None: now."""


class Announce(Protocol):
    """Writes what is due into the outbox `ops.alerts`, in the transaction of its incident: both are there, or neither.

    It does not send anything.
    """

    def __call__(self, connection: psycopg.Connection, announcement: Announcement, /) -> None: ...


def withdraw_recovery(connection: psycopg.Connection, incident_id: int) -> None:
    """Take back the message of a recovery that is not due yet: the trouble has returned."""
    connection.execute(
        "update ops.alerts set given_up_at = clock_timestamp(), last_error = 'it returned before this was due'"
        " where incident_id = %s and kind = 'closed' and delivered_at is null and due_at > clock_timestamp()",
        [incident_id],
    )
