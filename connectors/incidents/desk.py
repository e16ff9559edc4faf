"""Incidents for people: list them, read their story, let one be quiet for a while, close one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ConfigurationError, UnknownNameError
from connectors.incidents.journal import Journal
from connectors.incidents.observe import observation
from connectors.incidents.record import Announce, Incident, read_incidents
from connectors.incidents.signs import Severity

_MOST_OPEN = 50


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an incident's story."""

    at: datetime
    event: str
    detail: str
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Symptom:
    """A sign of an open incident, as it was last seen."""

    key: str
    kind: str
    severity: Severity
    title: str
    node: str | None
    run_id: str | None
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of an incident."""

    incident: Incident
    signs: tuple[Symptom, ...]
    """What shows it now; none once it is closed."""
    events: tuple[Event, ...]


def incidents(warehouse: URL, *, closed: int = 0) -> list[Incident]:
    """The open incidents, the worst and then the oldest first; after them so many that were closed last.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(warehouse, "list incidents") as connection:
        found = [
            incident_id
            for (incident_id,) in connection.execute("select incident_id from ops.incidents where closed_at is null")
        ]
        past = [
            incident_id
            for (incident_id,) in connection.execute(
                "select incident_id from ops.incidents where closed_at is not null"
                " order by closed_at desc, incident_id desc limit %s",
                [closed],
            )
        ]
        known = read_incidents(connection, [*found, *past])
    is_open = sorted((known[each] for each in found), key=lambda each: (-each.severity.rank, each.incident_id))
    return is_open + [known[each] for each in past]


def story(warehouse: URL, incident_id: int) -> Story:
    """An incident with its signs and its events, in their order.

    Raises:
        UnknownNameError: there is no such incident.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(warehouse, "read an incident") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        incident = _incident(connection, incident_id)
        with connection.cursor(row_factory=class_row(Symptom)) as cursor:
            signs = cursor.execute(
                "select key, kind, severity, title, node, run_id, first_seen_at, last_seen_at from ops.signs"
                " where incident_id = %s order by first_seen_at, key",
                [incident_id],
            ).fetchall()
        with connection.cursor(row_factory=class_row(Event)) as events:
            told = events.execute(
                "select at, event, detail, run_id from ops.incident_events where incident_id = %s order by id",
                [incident_id],
            ).fetchall()
        return Story(incident, tuple(signs), tuple(told))


def snooze(warehouse: URL, incident_id: int, *, span: timedelta, by: str, why: str) -> Incident:
    """Have no reminders of an incident for a while. It wakes up by itself, and at once if it gets worse.

    Raises:
        UnknownNameError: there is no such incident.
        ConfigurationError: it is closed.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with _open_incident(warehouse, incident_id) as connection:
        row = connection.execute(
            "update ops.incidents set snoozed_until = clock_timestamp() + %s::interval, snoozed_by = %s,"
            " snoozed_why = %s where incident_id = %s returning snoozed_until",
            [span, by, why, incident_id],
        ).fetchone()
        assert row is not None  # noqa: S101 - it is there
        until = f"{row[0]:%Y-%m-%d %H:%M} UTC"
        journal = Journal(connection, None)
        journal.note(incident_id, "snoozed", f"Until {until}, by {by}: {why}")
        journal.hand_over()
        return _incident(connection, incident_id)


def wake(warehouse: URL, incident_id: int, *, by: str) -> bool:
    """End a snooze; whether there was one. The next reminder comes when it is due.

    Raises:
        UnknownNameError: there is no such incident.
        ConfigurationError: it is closed.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with _open_incident(warehouse, incident_id) as connection:
        journal = Journal(connection, None)
        woken = journal.wake([incident_id], f"by {by}")
        journal.hand_over()
        return bool(woken)


def close(warehouse: URL, incident_id: int, *, by: str, why: str, announce: Announce | None = None) -> None:
    """Close an incident by hand, whatever its signs say. What is still seen afterwards opens another one.

    Args:
        announce: writes the message of it.

    Raises:
        UnknownNameError: there is no such incident.
        ConfigurationError: it is closed.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with _open_incident(warehouse, incident_id) as connection:
        connection.execute("delete from ops.signs where incident_id = %s", [incident_id])
        journal = Journal(connection, announce)
        journal.close_by_hand(incident_id, f"Closed by {by}: {why}")
        journal.hand_over()


@contextmanager
def _open_incident(warehouse: URL, incident_id: int) -> Iterator[psycopg.Connection]:
    with observation(warehouse) as connection:
        incident = _incident(connection, incident_id)
        if incident.closed_at is not None:
            raise ConfigurationError(
                f"Incident {incident_id} was closed at {incident.closed_at:%Y-%m-%d %H:%M} UTC: {incident.closed_why}",
                remedy="`headwater incidents` lists those that are open.",
            )
        yield connection


def _incident(connection: psycopg.Connection, incident_id: int) -> Incident:
    found = read_incidents(connection, [incident_id]).get(incident_id)
    if found is None:
        is_open = [
            str(number)
            for (number,) in connection.execute(
                "select incident_id from ops.incidents where closed_at is null order by incident_id limit %s",
                [_MOST_OPEN],
            )
        ]
        raise UnknownNameError("incident", str(incident_id), is_open, remedy=None if is_open else "None is open.")
    return found
