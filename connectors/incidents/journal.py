"""The story of each incident, and the messages that it asks for: written together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg

from connectors.incidents.record import Announce, Announcement, Kind, read_incidents, withdraw_recovery
from connectors.incidents.signs import Severity, Sign

_EVENT = {
    Kind.OPENED: "opened",
    Kind.WORSE: "worse",
    Kind.REMINDER: "reminded",
    Kind.CLOSED: "closed",
}
"""The event that stands in the story for a message of each kind."""


@dataclass(slots=True)
class Journal:
    """Writes events and hands over messages, within the transaction of an observation.

    Args:
        announce: None: no messages.
        run_id: who looks, where the sign does not say which run met it.
    """

    connection: psycopg.Connection
    announce: Announce | None
    run_id: str | None = None
    opened: list[int] = field(default_factory=list)
    worse: list[int] = field(default_factory=list)
    reopened: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    reminded: list[int] = field(default_factory=list)
    _noted: list[list[object]] = field(default_factory=list)
    _due: list[tuple[int, Kind, datetime | None]] = field(default_factory=list)

    def note(self, incident_id: int, event: str, detail: str, run_id: str | None = None) -> None:
        """Add an event to an incident's story; it is written with the next `hand_over`."""
        self._noted.append([incident_id, event, detail, run_id or self.run_id])

    def open(self, incident_id: int, lead: Sign) -> None:
        self.note(incident_id, "opened", lead.title, lead.run_id)
        self.opened.append(incident_id)
        self._due.append((incident_id, Kind.OPENED, None))

    def reopen(self, incident_id: int, sign: Sign) -> None:
        """It is the same trouble, of which was told before: no message, and none of its recovery."""
        self.connection.execute(
            "update ops.incidents set closed_at = null, closed_why = null, closed_as = null where incident_id = %s",
            [incident_id],
        )
        withdraw_recovery(self.connection, incident_id)
        self.note(incident_id, "reopened", sign.title, sign.run_id)
        self.reopened.append(incident_id)

    def worsen(self, incident_id: int, detail: str, run_id: str | None) -> None:
        """What gets worse is told, also if it is snoozed."""
        self.wake([incident_id], "it got worse")
        self.note(incident_id, "worse", detail, run_id)
        self.worse.append(incident_id)
        self._due.append((incident_id, Kind.WORSE, None))

    def recover(self, incident_id: int, settle: timedelta) -> None:
        """All of its signs are gone."""
        self._close(incident_id, "recovered", "All of its signs are gone.")
        row = self.connection.execute("select clock_timestamp() + %s::interval", [settle]).fetchone()
        assert row is not None  # noqa: S101 - a query without a table has one row
        self._due.append((incident_id, Kind.CLOSED, row[0] if settle else None))

    def join(self, incident_id: int, other: int) -> None:
        """It is the same trouble as another one, whose recovery will stand for both."""
        self._close(incident_id, "part of another", f"part of #{other}", other)

    def close_by_hand(self, incident_id: int, why: str) -> None:
        self._close(incident_id, "by hand", why)
        self._due.append((incident_id, Kind.CLOSED, None))

    def _close(self, incident_id: int, how: str, why: str, part_of: int | None = None) -> None:
        self.connection.execute(
            "update ops.incidents set closed_at = clock_timestamp(), closed_why = %s, closed_as = %s, part_of = %s,"
            " snoozed_until = null, snoozed_by = null, snoozed_why = null where incident_id = %s",
            [why, how, part_of, incident_id],
        )
        self.note(incident_id, "closed", why)
        self.closed.append(incident_id)

    def wake(self, incident_ids: list[int], why: str) -> list[int]:
        """End the snooze of those that have one; which these were."""
        woken = [
            incident_id
            for (incident_id,) in self.connection.execute(
                "update ops.incidents set snoozed_until = null, snoozed_by = null, snoozed_why = null"
                " where incident_id = any(%s) and snoozed_until is not null returning incident_id",
                [incident_ids],
            )
        ]
        for incident_id in woken:
            self.note(incident_id, "woken", why)
        return woken

    def remind(self, after: Mapping[Severity, timedelta | None]) -> None:
        """Say again what has been open for long, and what was snoozed until now."""
        self._write_events()
        over = [
            incident_id
            for (incident_id,) in self.connection.execute(
                "select incident_id from ops.incidents where closed_at is null and snoozed_until <= clock_timestamp()"
            )
        ]
        due = set(self.wake(over, "its time was up"))
        for severity, span in after.items():
            if span is not None:
                due |= {
                    incident_id
                    for (incident_id,) in self.connection.execute(
                        """
                        select i.incident_id from ops.incidents i
                        where i.closed_at is null and i.snoozed_until is null and i.severity = %s and (
                            select max(e.at) from ops.incident_events e
                            where e.incident_id = i.incident_id and e.event in ('opened', 'worse', 'reminded')
                        ) <= clock_timestamp() - %s::interval
                        """,
                        [severity, span],
                    )
                }
        for incident_id in sorted(due):
            self.note(incident_id, "reminded", "It is still there.")
            self.reminded.append(incident_id)
            self._due.append((incident_id, Kind.REMINDER, None))

    def hand_over(self) -> None:
        """Write the events, and have the messages written that are due, each with the incident as it is now."""
        self._write_events()
        if self.announce is not None:
            incidents = read_incidents(self.connection, {incident_id for incident_id, *_ in self._due})
            for incident_id, kind, due_at in self._due:
                row = self.connection.execute(
                    "select count(*) from ops.incident_events where incident_id = %s and event = %s",
                    [incident_id, _EVENT[kind]],
                ).fetchone()
                number = row[0] if row else 1
                self.announce(self.connection, Announcement(incidents[incident_id], kind, number, due_at))
        self._due.clear()

    def _write_events(self) -> None:
        with self.connection.cursor() as cursor:  # hundreds in one go: the warehouse may be far away
            cursor.executemany(
                "insert into ops.incident_events (incident_id, event, detail, run_id) values (%s, %s, %s, %s)",
                self._noted,
            )
        self._noted.clear()
