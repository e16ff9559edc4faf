"""No secret is in a byte that is sent, kept or logged, wherever an error has repeated it."""

from __future__ import annotations

import logging

import pytest

from connectors.alerts.known_secrets import known_secrets
from connectors.alerts.message import Kind
from connectors.alerts.routing import parse_routing
from connectors.connections import EnvironmentConnections
from tests.connectors.alerts.catchers import Desk, mail_server
from tests.telling import heard, tables_telling

WAREHOUSE, LANDING, SOURCE, MAIL, KEY = (f"{name}5canary7secret" for name in ("wh", "s3", "source", "mail", "key"))


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # on loopback
def test_secrets_are_in_no_byte_that_is_sent_kept_or_logged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = EnvironmentConnections(
        {
            "HEADWATER_WAREHOUSE_LOADER_URL": f"postgresql+psycopg://loader:{WAREHOUSE}@127.0.0.1/x",
            "HEADWATER_OPERATIONS_DB_URL": f"postgresql+psycopg://reader:{SOURCE}@127.0.0.1/x",
            "HEADWATER_LANDING_URL": "s3://bucket/x",
            "AWS_SECRET_ACCESS_KEY": LANDING,
        }
    )
    assert set(known_secrets(environment)) == {WAREHOUSE, SOURCE, LANDING}
    repeated = f"loader {WAREHOUSE}; {SOURCE}; {LANDING}; {MAIL}; {KEY}; "
    monkeypatch.setattr(logging.getLogger("mail.log"), "propagate", False)  # the mail server's own
    with mail_server(login=("headwater", MAIL)) as server, heard() as said:
        desk.routing = parse_routing(
            f"""
            channels:
              slack: {{kind: slack}}
              hook: {{kind: webhook, signed: true}}
              mail: {{kind: email, host: 127.0.0.1, port: {server.port}, security: none, user: headwater,
                      sender: h@example.com, to: [a@example.com]}}
            routes: [{{channels: [slack, hook, mail]}}]
            """,
            "f",
        )
        desk.more_secrets = {"alerts_hook_key": KEY, "alerts_mail_password": MAIL}
        token = desk.slack.url.rpartition("/")[2]
        # Errors of channels that repeat what they were sent, or were called by.
        desk.slack.refuse(500, f"no: {desk.slack.url} {token} {repeated}".encode())
        desk.hook.refuse(403, f"no: {KEY} {token}".encode())
        server.answer = f"451 not now, {MAIL}"
        told = f"flights_api.flights cannot be loaded: {repeated}"
        incident = desk.open(title=told, cause=f"{repeated} {token}", next_command=f"psql {WAREHOUSE}")
        options = {"secrets": lambda: known_secrets(environment)}
        outcome = desk.deliver(**options)
        assert set(outcome.failures) == {"slack", "hook", "mail"}
        kept = desk.warehouse.query("select last_error from ops.alerts union select last_error from ops.alert_channels")
        desk.slack.accept()
        desk.hook.accept()
        server.answer = "250 OK"
        desk.let_pass("2 hours")
        desk.say(incident, Kind.CLOSED)
        assert desk.deliver(**options).delivered >= 3
    assert len(server.mails) >= 1
    canaries = (WAREHOUSE, SOURCE, LANDING, MAIL, KEY, token)
    sent = [str(body) for body in (*desk.slack.taken, *desk.hook.taken)] + [mail.as_string() for mail in server.mails]
    sent += [asked.body.decode() for asked in (*desk.slack.asked, *desk.hook.asked)]
    for canary in canaries:
        assert not [text for text in [*sent, *said, str(outcome), *(why for (why,) in kept if why)] if canary in text]
    # What was written into the incident is its writer's matter; the outbox's texts of it are masked as they are sent.
    assert not [table for table in tables_telling(desk.warehouse, canaries) if table.endswith("alert_channels")]
