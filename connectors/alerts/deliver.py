"""Delivery: what waits in the outbox goes to its channels, each at its own pace.

Promises: a channel that hangs or is down holds up no other; no call takes longer than it may; a message is sent once,
and at most once more if its sender died between sending it and saying so, under the same alert_id (Message-ID,
Idempotency-Key). Nothing that is sent or kept as an error holds a secret that the deliverer knows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import psycopg
from sqlalchemy.engine import URL

from connectors.alerts import outbox
from connectors.alerts.channel import Channel
from connectors.alerts.channel_states import note_failure, note_success, report_troubles
from connectors.alerts.message import Message
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import ChannelBrokenError, ChannelUnavailableError, HeadwaterError
from connectors.failpoints import reach
from connectors.masking import Mask

SEND_SECONDS = 10.0
"""One message at most, connecting included."""
_LEASE_SECONDS = SEND_SECONDS + 20.0
_LEAST_SECONDS = 1.0
"""With less left nothing is begun; half of it is kept to write down what came of the last message."""

_log = logging.getLogger("headwater.alerts")


@dataclass(slots=True)
class Delivery:
    """What came of it."""

    delivered: int = 0
    """Messages that were sent."""
    superseded: int = 0
    """Messages that need not be sent any more, because a later one was."""
    given_up: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Why the last message to each channel was not taken."""
    is_complete: bool = True
    """Whether all threads came to their end within the time."""

    def __str__(self) -> str:
        said = f"{self.delivered} sent"
        if self.superseded:
            said += f", {self.superseded} more covered by them"
        if self.given_up:
            said += f", {self.given_up} given up"
        return said + "".join(f"; {channel}: {why}" for channel, why in self.failures.items())


def deliver(
    warehouse: URL,
    channels: Mapping[str, Channel],
    seconds: float = 30.0,
    *,
    secrets: Callable[[], Iterable[str]] = tuple,
) -> Delivery:
    """Send what is due, within so many seconds.

    Any number of processes may do so at once.

    Args:
        warehouse: as the role `headwater_watcher`.
        channels: all that are configured, by name (`Routing.open`).
        secrets: tells what no message may say, besides the channels' own secrets; asked if there is something to send.

    Raises:
        HeadwaterError: the warehouse does not answer; nothing is lost.
    """
    ends = time.monotonic() + seconds
    delivery = Delivery()
    names = list(channels)
    with translated_errors(), closing(_connect(warehouse)) as connection:
        delivery.given_up += outbox.give_up_unknown(connection, names)
        # Twice: what is found out about a channel on the first round is told to the others on the second.
        for _ in range(2):
            if due := outbox.channels_with_work(connection, names):
                own = (secret for channel in channels.values() for secret in channel.secrets)
                mask = Mask([*secrets(), *own])
                _drain_all(warehouse, [channels[name] for name in due], ends, mask, delivery)
            if not report_troubles(connection, names):
                break
    return delivery


def _connect(warehouse: URL) -> psycopg.Connection:
    connection = connect(warehouse, "alerts", autocommit=True)
    connection.execute(f"set statement_timeout = '{SEND_SECONDS:.0f}s'")
    return connection


def _drain_all(warehouse: URL, channels: Sequence[Channel], ends: float, mask: Mask, delivery: Delivery) -> None:
    errors: list[Exception] = []
    lock = threading.Lock()

    def drain(channel: Channel) -> None:
        try:
            with translated_errors(), closing(_connect(warehouse)) as connection:
                _drain(connection, channel, ends, mask, delivery, lock)
        except Exception as error:  # noqa: BLE001 - it is raised where someone sees it
            errors.append(error)

    threads = [threading.Thread(target=drain, args=[channel], daemon=True) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    # One that is late goes on for as long as this process does, and leaves what it could not finish to the next.
    delivery.is_complete &= not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def _drain(
    connection: psycopg.Connection,
    channel: Channel,
    ends: float,
    mask: Mask,
    delivery: Delivery,
    lock: threading.Lock,
) -> None:
    while (left := ends - time.monotonic()) >= _LEAST_SECONDS:
        claim = outbox.claim(connection, channel.name, _LEASE_SECONDS)
        if claim is None:
            return
        reach("alert-claimed")
        try:
            outgoing = replace(claim.outgoing, message=_masked(claim.outgoing.message, mask))
            answer = channel.send(outgoing, min(SEND_SECONDS, left - _LEAST_SECONDS / 2))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not keep the messages behind this one
            given_up = _failed(connection, channel, claim, error, mask)
            with lock:
                delivery.given_up += given_up
                delivery.failures[channel.name] = mask(str(error))
            continue
        reach("alert-sent")
        with connection.transaction():
            outbox.settle(connection, claim, mask(answer))
            note_success(connection, channel.name)
        with lock:
            delivery.delivered += 1
            delivery.superseded += len(claim.alert_ids) - 1
            delivery.failures.pop(channel.name, None)


def _failed(connection: psycopg.Connection, channel: Channel, claim: outbox.Claim, error: Exception, mask: Mask) -> int:
    """Write down that a message was not taken; returns how many were given up."""
    why = mask(str(error))
    is_broken = isinstance(error, ChannelBrokenError)
    is_held = isinstance(error, ChannelBrokenError | ChannelUnavailableError)
    if not isinstance(error, HeadwaterError):
        _log.error("An alert could not be sent to %s, by a fault of Headwater's own (%s).", channel.name, why)
    with connection.transaction():
        given_up = outbox.put_back(connection, claim, why, refused=not is_held)
        note_failure(
            connection,
            channel.name,
            why,
            is_broken=is_broken,
            is_held=is_held,
            wish=error.seconds if isinstance(error, ChannelUnavailableError) else None,
        )
    if given_up:
        _log.error("Given up after three days: %s (%s: %s)", mask(claim.outgoing.subject), channel.name, why)
    return given_up


def _masked(message: Message, mask: Mask) -> Message:
    """A message without secrets that are known."""
    return replace(
        message,
        title=mask(message.title),
        cause=mask(message.cause),
        next_command=mask(message.next_command),
        owner=mask(message.owner) if message.owner else None,
        closed_why=mask(message.closed_why) if message.closed_why else None,
        affected_marts=tuple(map(mask, message.affected_marts)),
        affected_dashboards=tuple(map(mask, message.affected_dashboards)),
        links={name: mask(link) for name, link in message.links.items()},
    )
