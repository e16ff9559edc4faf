"""How each channel is, `ops.alert_channels`: when it may be tried again, and whether others should hear of it.

A channel that fails is left alone for a while, by all deliverers: from 15 seconds to 5 minutes while it may come back
by itself, from 5 minutes to an hour where someone has to mend it. It is reported on the other channels at once if it is
broken, and otherwise when it has taken nothing for 15 minutes; and again when it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from connectors.alerts.message import Kind, Message, Severity
from connectors.alerts.outbox import enqueue

REPORTED_AFTER = timedelta(minutes=15)
_WAITS = {False: (15.0, 300.0), True: (300.0, 3600.0)}
"""Seconds to leave a channel alone, at first and at most; by whether it is broken."""
_LONGEST_WISH = 3600.0
"""Seconds that a channel may ask to be left alone."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """One channel as its last messages found it."""

    channel: str
    failures: int
    failing_since: datetime | None
    is_broken: bool
    retry_at: datetime | None
    last_error: str | None
    last_delivered_at: datetime | None


def channel_states(connection: psycopg.Connection) -> dict[str, ChannelState]:
    """By name, of those that ever took or refused something."""
    rows = connection.execute(
        """
        select channel, failures, failing_since, is_broken, retry_at, last_error, last_delivered_at
        from ops.alert_channels order by channel
        """
    ).fetchall()
    return {row[0]: ChannelState(*row) for row in rows}


def note_success(connection: psycopg.Connection, channel: str) -> None:
    """A channel took a message."""
    connection.execute(
        """
        insert into ops.alert_channels as states (channel, last_delivered_at) values (%s, clock_timestamp())
        on conflict (channel) do update set failures = 0, failing_since = null, is_broken = false, retry_at = null,
            last_error = null, last_delivered_at = excluded.last_delivered_at
        """,
        [channel],
    )


def note_failure(
    connection: psycopg.Connection,
    channel: str,
    why: str,
    *,
    is_broken: bool = False,
    is_held: bool = True,
    wish: float | None = None,
) -> None:
    """A channel did not take a message.

    Args:
        is_held: whether it is left alone for a while; not where only that one message was refused.
        wish: seconds for which it asked to be left alone.
    """
    first, longest = _WAITS[is_broken]
    connection.execute(
        """
        insert into ops.alert_channels as states (channel, failures, failing_since, is_broken, last_error, retry_at)
        values (
            %(channel)s, 1, clock_timestamp(), %(is_broken)s, %(why)s,
            case when %(is_held)s then clock_timestamp() + make_interval(secs => greatest(%(first)s, %(wish)s)) end
        )
        on conflict (channel) do update set
            failures = states.failures + 1,
            failing_since = coalesce(states.failing_since, excluded.failing_since),
            is_broken = excluded.is_broken,
            last_error = excluded.last_error,
            retry_at = case when %(is_held)s then clock_timestamp() + make_interval(secs => greatest(
                -- Jitter: what failed together does not come back together.
                least(%(longest)s, %(first)s * 2.0 ^ least(states.failures, 20)) * (0.75 + random() / 2), %(wish)s
            )) end
        """,
        {
            "channel": channel,
            "is_broken": is_broken,
            "why": why,
            "is_held": is_held,
            "first": first,
            "longest": longest,
            "wish": min(wish or 0.0, _LONGEST_WISH),
        },
    )


def try_again_now(connection: psycopg.Connection, channel: str) -> None:
    """What waits for a channel need not wait any longer: someone has seen that it takes messages."""
    connection.execute("update ops.alert_channels set retry_at = null where channel = %s", [channel])
    connection.execute(
        """
        update ops.alerts set due_at = clock_timestamp()
        where channel = %s and delivered_at is null and superseded_by is null and given_up_at is null and attempts > 0
        """,
        [channel],
    )


def report_troubles(connection: psycopg.Connection, channels: Sequence[str]) -> int:
    """Put into the outbox of the others which channel fails, once, and that it is back, once.

    Returns:
        How many messages are new.
    """
    new = 0
    with connection.transaction():
        failing = connection.execute(
            """
            update ops.alert_channels set reported_since = failing_since
            where channel = any(%s) and reported_since is null
                and (is_broken or failing_since < clock_timestamp() - %s)
            returning channel, failing_since, last_error, clock_timestamp()
            """,
            [list(channels), REPORTED_AFTER],
        ).fetchall()
        for channel, since, error, now in failing:
            new += _tell_others(
                connection,
                channels,
                channel,
                Message(
                    kind=Kind.OPENED,
                    severity=Severity.ERROR,
                    title=f"The alert channel `{channel}` takes no messages.",
                    cause=error or "",
                    next_command=f"headwater alerts test --channel {channel}",
                    opened_at=since,
                    written_at=now,
                ),
            )
        back = connection.execute(
            """
            with back as (
                select channel, reported_since from ops.alert_channels
                where channel = any(%s) and reported_since is not null and failing_since is null
                for update
            )
            update ops.alert_channels as states set reported_since = null from back
            where states.channel = back.channel and states.reported_since is not null
            returning states.channel, back.reported_since, clock_timestamp()
            """,
            [list(channels)],
        ).fetchall()
        for channel, since, now in back:
            new += _tell_others(
                connection,
                channels,
                channel,
                Message(
                    kind=Kind.CLOSED,
                    severity=Severity.ERROR,
                    title=f"The alert channel `{channel}` takes no messages.",
                    closed_why="It takes messages again; those that waited for it are on their way.",
                    opened_at=since,
                    closed_at=now,
                    written_at=now,
                ),
            )
    return new


def _tell_others(connection: psycopg.Connection, channels: Sequence[str], channel: str, message: Message) -> int:
    return enqueue(
        connection,
        incident_id=None,
        kind=message.kind,
        number=1,
        subject=message.subject,
        body=message.as_json(),
        channels=[each for each in channels if each != channel],
    )
