"""The outbox, `ops.alerts`: each message to each channel, from the transaction that decided on it to its end.

A message ends in one of three ways: it is delivered; a later one of the same incident is delivered instead
(`superseded`); or nobody took it for three days (`given up`). All times are the database's own.

Of an incident and channel, one deliverer at a time works on all that is pending: it locks the oldest row, so that no
other gets between, and sends only the newest that is due, which says it all. Whoever dies within that is waited for
until its lease ends; what it may have sent is then sent once more, under the same alert_id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from connectors.alerts.message import Kind, Message, Outgoing, Severity

GIVEN_UP_AFTER = timedelta(days=3)
_PENDING = "delivered_at is null and superseded_by is null and given_up_at is null"
_REFUSED_SECONDS = (60.0, 3600.0)
"""After a message was refused: the first wait, and the longest."""


def enqueue(
    connection: psycopg.Connection,
    *,
    incident_id: int | None,
    kind: Kind | str,
    number: int,
    subject: str,
    body: Mapping[str, Any],
    channels: Iterable[str],
    due_at: Mapping[str, datetime] | None = None,
) -> int:
    """Put a message for some channels into the outbox, within the caller's transaction.

    Args:
        number: counts the messages of a kind of an incident; what is there already is left as it is.
        body: `Message.as_json`.
        due_at: by channel, where it is not now.

    Returns:
        How many rows are new.
    """
    new = 0
    for channel in channels:
        cursor = connection.execute(
            """
            insert into ops.alerts (alert_id, incident_id, channel, kind, number, subject, body, due_at)
            values (%s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))
            on conflict (incident_id, channel, kind, number) do nothing
            """,
            [
                uuid7(),
                incident_id,
                channel,
                str(Kind(kind)),
                number,
                subject,
                Jsonb(dict(body)),
                (due_at or {}).get(channel),
            ],
        )
        new += cursor.rowcount
    return new


@dataclass(frozen=True, slots=True)
class Claim:
    """All that is pending of one incident on one channel, held by one deliverer until its lease ends.

    The end of the lease is also what tells this claim from the next one on the same messages.
    """

    channel: str
    alert_ids: tuple[UUID, ...]
    """The newest last: it is the one that is sent."""
    until: datetime
    outgoing: Outgoing


def channels_with_work(connection: psycopg.Connection, channels: Sequence[str]) -> list[str]:
    """Those of the channels that may be sent something now."""
    found = connection.execute(
        f"""
        select distinct channel from ops.alerts
        where channel = any(%s) and {_PENDING} and due_at <= clock_timestamp()
            and (claimed_until is null or claimed_until <= clock_timestamp())
            and not exists (
                select from ops.alert_channels as states
                where states.channel = alerts.channel and states.retry_at > clock_timestamp()
            )
        """,  # noqa: S608 - a condition of our own
        [list(channels)],
    )
    return [channel for (channel,) in found.fetchall()]


def claim(connection: psycopg.Connection, channel: str, seconds: float) -> Claim | None:
    """Take what is to be sent next on a channel, for so many seconds; None if there is nothing, or not now."""
    with connection.transaction():
        oldest = connection.execute(
            f"""
            select alert_id, incident_id from ops.alerts as alert
            where channel = %(channel)s and {_PENDING}
                and (claimed_until is null or claimed_until <= clock_timestamp())
                and not exists (
                    select from ops.alert_channels as states
                    where states.channel = alert.channel and states.retry_at > clock_timestamp()
                )
                and not exists (
                    select from ops.alerts as earlier
                    where earlier.incident_id = alert.incident_id and earlier.channel = alert.channel and {_PENDING}
                        and (earlier.created_at, earlier.alert_id) < (alert.created_at, alert.alert_id)
                )
                and (
                    due_at <= clock_timestamp()
                    or exists (
                        select from ops.alerts as later
                        where later.incident_id = alert.incident_id and later.channel = alert.channel and {_PENDING}
                            and later.due_at <= clock_timestamp()
                    )
                )
            order by created_at, alert_id
            limit 1
            for update of alert skip locked
            """,  # noqa: S608 - a condition of our own
            {"channel": channel},
        ).fetchone()
        if oldest is None:
            return None
        alert_id, incident_id = oldest
        # Seen after the lock was taken, so with all that was committed until then.
        claimed = connection.execute(
            f"""
            with lease as materialized (select clock_timestamp() + make_interval(secs => %(seconds)s) as until),
            newest as (
                select created_at, alert_id from ops.alerts
                where channel = %(channel)s and {_PENDING} and due_at <= clock_timestamp()
                    and (alert_id = %(alert_id)s or incident_id = %(incident_id)s)
                order by created_at desc, alert_id desc limit 1
            )
            update ops.alerts as alert set claimed_until = until, attempts = attempts + 1 from lease, newest
            where channel = %(channel)s and {_PENDING}
                and (alert.alert_id = %(alert_id)s or incident_id = %(incident_id)s)
                and (alert.created_at, alert.alert_id) <= (newest.created_at, newest.alert_id)
            returning alert.alert_id, alert.created_at, until, kind, subject, body
            """,  # noqa: S608 - a condition of our own
            {"seconds": seconds, "channel": channel, "alert_id": alert_id, "incident_id": incident_id},
        ).fetchall()
        if not claimed:  # what was due has been taken back meanwhile
            return None
        claimed.sort(key=lambda row: (row[1], row[0]))
        newest_id, _, until, kind, subject, body = claimed[-1]
        first = connection.execute(
            """
            select alert_id from ops.alerts
            where incident_id = %s and channel = %s and delivered_at is not null order by delivered_at limit 1
            """,
            [incident_id, channel],
        ).fetchone()
    message = _read(kind, subject, body)
    is_first = first is None and (incident_id is not None or message.kind is not Kind.CLOSED)
    outgoing = Outgoing(newest_id, message, first[0] if first else None, is_first)
    return Claim(channel, tuple(row[0] for row in claimed), until, outgoing)


def _read(kind: str, subject: str, body: Mapping[str, Any]) -> Message:
    """A message as it was kept; where another version of Headwater has kept it otherwise, its subject has to do."""
    try:
        return Message.from_json(body)
    except (TypeError, ValueError):
        return Message(kind=Kind(kind), severity=Severity.ERROR, title=subject)


def settle(connection: psycopg.Connection, claim: Claim, answer: str) -> None:
    """The newest message of a claim is delivered, and those before it need not be.

    It was sent, so it is marked even where the lease has run out.
    """
    *older, newest = claim.alert_ids
    connection.execute(
        """
        update ops.alerts set delivered_at = clock_timestamp(), claimed_until = null, last_error = null, answer = %s
        where alert_id = %s and delivered_at is null
        """,
        [answer, newest],
    )
    connection.execute(
        """
        update ops.alerts set superseded_by = %s, claimed_until = null
        where alert_id = any(%s) and delivered_at is null and superseded_by is null
        """,
        [newest, older],
    )


def put_back(connection: psycopg.Connection, claim: Claim, why: str, *, refused: bool = False) -> int:
    """A claim could not be delivered: it waits for its channel, or, where it was refused itself, for a time of its own.

    Returns:
        How many messages were given up.
    """
    first, longest = _REFUSED_SECONDS
    rows = connection.execute(
        """
        update ops.alerts set
            claimed_until = null,
            last_error = %(why)s,
            due_at = case when %(refused)s
                then clock_timestamp()
                    + make_interval(secs => least(%(longest)s, %(first)s * 2.0 ^ least(attempts - 1, 20)))
                else due_at end,
            given_up_at = case when created_at < clock_timestamp() - %(patience)s then clock_timestamp() end
        where alert_id = any(%(alert_ids)s) and claimed_until = %(until)s and delivered_at is null
        returning given_up_at
        """,
        {
            "why": why,
            "refused": refused,
            "first": first,
            "longest": longest,
            "patience": GIVEN_UP_AFTER,
            "alert_ids": list(claim.alert_ids),
            "until": claim.until,
        },
    ).fetchall()
    return sum(given_up_at is not None for (given_up_at,) in rows)


def give_up_unknown(connection: psycopg.Connection, channels: Sequence[str]) -> int:
    """Give up what has waited for three days for channels that are not configured any more; returns how many."""
    return connection.execute(
        f"""
        update ops.alerts set given_up_at = clock_timestamp(), last_error = 'No channel of this name is configured.'
        where channel <> all(%s) and {_PENDING} and created_at < clock_timestamp() - %s
        """,  # noqa: S608 - a condition of our own
        [list(channels), GIVEN_UP_AFTER],
    ).rowcount


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A message that waits, or was given up lately."""

    alert_id: UUID
    incident_id: int | None
    channel: str
    kind: str
    subject: str
    created_at: datetime
    due_at: datetime
    attempts: int
    last_error: str | None
    given_up_at: datetime | None


def undelivered(connection: psycopg.Connection) -> list[Undelivered]:
    """What waits, and what was given up within the last seven days; the oldest first.

    Not what was taken back before it was due: the closing of an incident that has returned.
    """
    rows = connection.execute(
        """
        select alert_id, incident_id, channel, kind, subject, created_at, due_at, attempts, last_error, given_up_at
        from ops.alerts
        where delivered_at is null and superseded_by is null
            and (given_up_at is null or given_up_at > clock_timestamp() - interval '7 days')
            and not (kind = 'closed' and attempts = 0 and given_up_at is not null)
        order by created_at, alert_id
        """
    ).fetchall()
    return [Undelivered(*row) for row in rows]
