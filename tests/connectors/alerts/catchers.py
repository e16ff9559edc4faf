"""What alerts are sent to in tests: a Slack, a webhook's receiver and a mail server, all on loopback, that answer as
told; and incidents to send them about, written as the part that watches over the pipeline writes them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import psycopg
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from connectors.alerts.compose import announce
from connectors.alerts.deliver import Delivery, deliver
from connectors.alerts.message import Kind
from connectors.alerts.routing import Routing, parse_routing
from tests.conftest import Warehouse
from tests.connectors.wire import Asked, Line, answer, wire

TOKEN = "T0CANARY/B0CANARY/canary5canary7canary"


@dataclass(slots=True)
class Receiver:
    """A server that takes JSON by POST, and answers 200 `ok` unless it is told otherwise."""

    url: str = ""
    says: Callable[[Asked, Line], None] = lambda _, line: line.send(answer(b"ok"))
    asked: list[Asked] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    """The bodies that were answered as delivered."""

    def refuse(self, status: int, words: bytes = b"no", **headers: str | int) -> None:
        self.says = lambda _, line: line.send(answer(words, status, **headers))

    def accept(self) -> None:
        def take(asked: Asked, line: Line) -> None:
            self.taken.append(json.loads(asked.body))
            line.send(answer(b"ok"))

        self.says = take

    @property
    def subjects(self) -> list[str]:
        return [body.get("subject") or body["text"] for body in self.taken]


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    found = Receiver()
    found.accept()
    with wire(lambda asked, line: found.says(asked, line), tls) as served:
        found.url = f"{'https' if tls else 'http'}://127.0.0.1:{served.port}/services/{TOKEN}"
        found.asked = served.asked
        yield found


@dataclass(slots=True)
class MailServer:
    """A mail server, and what it took."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    answer: str = "250 OK"
    """To the whole message."""
    refused: dict[str, str] = field(default_factory=dict)
    """Answer by recipient."""
    pause: float = 0.0
    """Seconds before the message is answered."""
    cuts: bool = False
    """Whether the connection is cut when the message is there."""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        await asyncio.sleep(self.pause)
        if self.cuts:
            assert server.transport is not None
            server.transport.abort()
        elif self.answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            mail = message_from_bytes(content, policy=policy.default)
            self.mails.append(mail)
            self.envelopes.append(envelope)
        return self.answer

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@contextmanager
def mail_server(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    login: tuple[str, str] | None = None,
) -> Iterator[MailServer]:
    """A mail server: in clear, with STARTTLS (which it insists on), or with TLS from the first byte; with a login."""

    def authenticator(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        return AuthResult(success=login == (given.login.decode(), given.password.decode()), handled=False)

    found = MailServer(free_port())
    controller = Controller(
        found,
        "127.0.0.1",
        found.port,
        tls_context=starttls,
        require_starttls=starttls is not None,
        ssl_context=tls,
        authenticator=authenticator if login else None,
        auth_required=login is not None,
        auth_require_tls=starttls is not None,
    )
    controller.start()
    try:
        yield found
    finally:
        controller.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


ROUTING = """
channels:
  slack: {kind: slack}
  hook: {kind: webhook}
routes:
  - channels: [slack, hook]
"""


@dataclass(slots=True)
class Desk:
    """A warehouse with incidents, and a Slack and a webhook that hear of them."""

    warehouse: Warehouse
    slack: Receiver
    hook: Receiver
    routing: Routing = field(default_factory=lambda: parse_routing(ROUTING, "alerts.yaml"))
    more_secrets: dict[str, str] = field(default_factory=dict)
    """By the names that other channels of the routing ask for."""

    def connect(self) -> psycopg.Connection:
        return self.warehouse.connect("watcher")

    def incident(self, title: str = "flights_api.flights cannot be loaded.", **columns: Any) -> int:
        """A new incident, which nobody was told of yet."""
        found = {"severity": "error", "title": title, "cause": "The source answers 503.", "next_command": "headwater x"}
        found |= columns
        with self.connect() as connection:
            row = connection.execute(
                f"insert into ops.incidents ({', '.join(found)}) values ({', '.join(['%s'] * len(found))})"
                " returning incident_id",
                list(found.values()),
            ).fetchone()
        assert row is not None
        return int(row[0])

    def say(self, incident_id: int, kind: Kind, number: int = 1, due_at: datetime | None = None) -> int:
        """Put a message about an incident into the outbox."""
        with self.connect() as connection, connection.transaction():
            if kind is Kind.CLOSED:
                connection.execute(
                    "update ops.incidents set closed_at = clock_timestamp(), closed_why = 'It loads again.',"
                    " closed_as = 'recovered'"
                    " where incident_id = %s and closed_at is null",
                    [incident_id],
                )
            return announce(connection, self.routing, incident_id, kind, number, due_at=due_at)

    def open(self, **columns: Any) -> int:
        incident_id = self.incident(**columns)
        self.say(incident_id, Kind.OPENED)
        return incident_id

    def secrets(self) -> dict[str, str]:
        return {"alerts_slack_url": self.slack.url, "alerts_hook_url": self.hook.url, **self.more_secrets}

    def deliver(self, seconds: float = 20.0, **options: Any) -> Delivery:
        values = self.secrets()
        channels = self.routing.open(lambda secret: values[secret.name])
        return deliver(self.warehouse.url("watcher"), channels, seconds, **options)

    def let_pass(self, interval: str) -> None:
        """Move all that is written down about alerts so far into the past."""
        for table, columns in {
            "alerts": ("created_at", "due_at", "claimed_until", "delivered_at", "given_up_at"),
            "alert_channels": ("failing_since", "retry_at", "last_delivered_at", "reported_since"),
            "incidents": ("opened_at", "last_seen_at", "closed_at"),
        }.items():
            moved = ", ".join(f"{column} = {column} - interval '{interval}'" for column in columns)
            self.warehouse.execute(f"update ops.{table} set {moved}")

    def state(self, channel: str, columns: str) -> tuple[Any, ...]:
        return self.warehouse.query(f"select {columns} from ops.alert_channels where channel = %s", [channel])[0]

    def pending(self, channel: str) -> int:
        found = self.warehouse.query(
            "select count(*) from ops.alerts where channel = %s"
            " and delivered_at is null and superseded_by is null and given_up_at is null",
            [channel],
        )
        return int(found[0][0])
