"""What channels make of each other side's answers, and what they send."""

from __future__ import annotations

import hmac
import json
import re
import socket
import ssl
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from connectors.alerts.message import Kind, Message, Outgoing, Severity
from connectors.alerts.slack import SlackChannel
from connectors.alerts.smtp import EmailChannel, MailServer, Security
from connectors.alerts.webhook import WebhookChannel
from connectors.errors import (
    ChannelBrokenError,
    ChannelUnavailableError,
    ConfigurationError,
    HeadwaterError,
    MessageRefusedError,
)
from tests.connectors.alerts.catchers import TOKEN, Receiver, free_port, mail_server, receiver
from tests.connectors.wire import answer

ALERT = UUID("01234567-89ab-7def-8123-456789abcdef")
MESSAGE = Message(
    kind=Kind.OPENED,
    severity=Severity.ERROR,
    title="flights_api.flights cannot be loaded.",
    cause="The source answers 503.",
    next_command="headwater incidents show 12",
    owner="flight-operations",
    incident_id=12,
    opened_at=datetime(2026, 3, 1, 4, 5, tzinfo=UTC),
    times_seen=3,
    affected_marts=("fct_flights", "dim_planes"),
    affected_dashboards=("Delays",),
    written_at=datetime(2026, 3, 1, 4, 15, tzinfo=UTC),
    links={"Status page": "https://status.example.com/", "Run": "https://prefect.example.com/runs/flow-run/1"},
)
OUTGOING = Outgoing(ALERT, MESSAGE)
UNAVAILABLE, BROKEN, REFUSED = ChannelUnavailableError, ChannelBrokenError, MessageRefusedError


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (500, "", UNAVAILABLE),
        (502, "", UNAVAILABLE),
        (503, "", UNAVAILABLE),
        (429, "rate_limited", UNAVAILABLE),
        (408, "", UNAVAILABLE),
        (400, "invalid_payload", REFUSED),
        (413, "", REFUSED),
        (403, "action_prohibited", BROKEN),
        (404, "no_service", BROKEN),
        (410, "channel_is_archived", BROKEN),
        (401, "", BROKEN),
        (302, "", BROKEN),
    ],
)
@pytest.mark.parametrize("kind", [SlackChannel, WebhookChannel])
def test_each_status_has_one_meaning(
    server: Receiver, kind: type[SlackChannel | WebhookChannel], status: int, words: str, error: type[HeadwaterError]
) -> None:
    server.refuse(status, words.encode(), Location="http://127.0.0.1:1/elsewhere")
    with pytest.raises(error, match=re.escape(f"answered {status}{f': {words}.' if words else '.'}")) as caught:
        kind("c", server.url).send(OUTGOING, 5)
    assert type(caught.value) is error
    assert len(server.asked) == 1, "a redirect is not followed, and nothing is asked twice"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_whatever_says_yes_has_taken_it(server: Receiver, status: int) -> None:
    server.says = lambda _, line: line.send(answer(b"", status))
    assert WebhookChannel("hook", server.url).send(OUTGOING, 5) == str(status)


def test_a_login_page_in_between_is_not_slack(server: Receiver) -> None:
    server.says = lambda _, line: line.send(answer(b"<!doctype html><title>Log in</title>"))
    with pytest.raises(UNAVAILABLE, match="web page"):
        SlackChannel("slack", server.url).send(OUTGOING, 5)


def test_how_long_to_wait_is_taken_from_the_answer(server: Receiver) -> None:
    server.refuse(429, Retry_After=37)
    with pytest.raises(UNAVAILABLE) as caught:
        SlackChannel("slack", server.url).send(OUTGOING, 5)
    assert caught.value.seconds == 37


@pytest.mark.parametrize("conduct", ["hang", "drip", "drip the body", "cut", "no server", "no host"])
def test_no_answer_is_waited_for_longer_than_it_may_take(server: Receiver, conduct: str) -> None:
    url = server.url
    match conduct:
        case "hang":
            server.says = lambda _, line: time.sleep(5)
        case "drip":
            server.says = lambda _, line: line.drip(answer(b"ok"), 0.1)
        case "drip the body":
            server.says = lambda _, line: (line.send(answer(b"x" * 50, 500)[:-50]), line.drip(b"x" * 50, 0.1))[1]
        case "cut":
            server.says = lambda _, line: line.reset()
        case "no server":
            url = f"http://127.0.0.1:{free_port()}/hook"
        case "no host":
            url = "http://nowhere.invalid/hook"
    begun = time.monotonic()
    with pytest.raises(UNAVAILABLE):
        SlackChannel("slack", url).send(OUTGOING, 0.6)
    assert time.monotonic() - begun < 2.5


def test_what_has_no_trusted_certificate_gets_nothing(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver(tls) as server:
        with pytest.raises(BROKEN, match="certificate"):
            SlackChannel("slack", server.url).send(OUTGOING, 5)
        assert not server.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert SlackChannel("slack", server.url).send(OUTGOING, 5) == "200 ok"


@pytest.mark.parametrize("url", ["", "hooks.slack.com/x", "ftp://x/y", "http://", "https://"])
def test_an_address_that_is_none_breaks_the_channel(url: str) -> None:
    with pytest.raises(BROKEN, match="address is none"):
        SlackChannel("slack", url).send(OUTGOING, 5)


def test_no_error_repeats_the_address_that_lets_one_in(server: Receiver) -> None:
    secret = TOKEN.rpartition("/")[2]
    server.refuse(404, f"no_service for {server.url} and {secret}".encode())
    with pytest.raises(BROKEN) as caught:
        SlackChannel("slack", server.url).send(OUTGOING, 5)
    assert "answered 404: no_service for http://127.0.0.1" in str(caught.value)
    assert secret not in str(caught.value) + repr(caught.value) + repr(SlackChannel("slack", server.url))
    server.refuse(403, b"token hidden7token5 refused")
    with pytest.raises(BROKEN) as caught:
        WebhookChannel("hook", f"{server.url}?token=hidden7token5").send(OUTGOING, 5)
    assert "hidden7token5" not in str(caught.value)


def test_slack_gets_all_that_there_is_to_say(server: Receiver) -> None:
    SlackChannel("slack", server.url).send(OUTGOING, 5)
    (body,) = server.taken
    assert body["text"] == "[error] flights_api.flights cannot be loaded."
    texts = [block["text"]["text"] for block in body["blocks"] if block["type"] == "section"]
    assert texts == [
        ":red_circle: *[error] flights_api.flights cannot be loaded.*",
        "*Since:* 2026-03-01 04:05 UTC, seen 3 times",
        "*Likely cause:* The source answers 503.",
        "*Marts:* fct_flights, dim_planes",
        "*Dashboards:* Delays",
        "*Owner:* flight-operations",
        "*Next:*\n```\nheadwater incidents show 12\n```",
    ]
    assert body["blocks"][-1]["elements"][0]["text"] == (
        "<https://status.example.com/|Status page> · <https://prefect.example.com/runs/flow-run/1|Run>"
    )


def test_a_webhook_gets_the_documented_json(server: Receiver) -> None:
    WebhookChannel("hook", server.url).send(OUTGOING, 5)
    (body,) = server.taken
    documented = (
        (Path(__file__).parents[3] / "docs/alerts.md").read_text().partition("```json\n")[2].partition("```")[0]
    )
    assert body == {**json.loads(documented), "text": MESSAGE.text}


@pytest.mark.parametrize("key", ["a key of the team's own", f"whsec_{b64encode(b'bytes of a key').decode()}"])
def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(server: Receiver, key: str) -> None:
    channel = WebhookChannel("hook", server.url, key)
    channel.send(OUTGOING, 5)
    channel.send(OUTGOING, 5)
    first, second = server.asked
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == str(ALERT)
    secret = b64decode(key.removeprefix("whsec_")) if key.startswith("whsec_") else key.encode()
    signed = f"{first.headers['webhook-id']}.{first.headers['webhook-timestamp']}.".encode() + first.body
    expected = b64encode(hmac.new(secret, signed, "sha256").digest()).decode()
    assert first.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 60


def test_a_key_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no base64") as caught:
        WebhookChannel("hook", "http://127.0.0.1", "whsec_canary!")
    assert "canary" not in str(caught.value)


def mail_channel(port: int, security: Security = Security.NONE, password: str | None = None) -> EmailChannel:
    user = "headwater" if password else None
    server = MailServer("127.0.0.1", port, security, user, password)
    return EmailChannel("mail", server, "Headwater <headwater@example.com>", ("a@example.com", "b@example.com"))


def test_mail_is_plain_text_and_html_beside_it() -> None:
    with mail_server() as server:
        assert mail_channel(server.port).send(OUTGOING, 5) == "taken"
    (mail,) = server.mails
    assert mail["Subject"] == "[error] flights_api.flights cannot be loaded."
    assert mail["From"] == "Headwater <headwater@example.com>"
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["Message-ID"] == f"<{ALERT}@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert server.envelopes[0].rcpt_tos == ["a@example.com", "b@example.com"]
    plain, page = (mail.get_body([kind]) for kind in ("plain", "html"))
    assert plain is not None
    assert page is not None
    assert plain.get_content().replace("\r\n", "\n") == MESSAGE.text
    assert "<td" in page.get_content()
    assert 'href="https://status.example.com/"' in page.get_content()


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # the server does not see that it speaks TLS all along
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_mail_goes_encrypted_with_a_login_to_whom_is_trusted(
    security: Security, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = {"starttls": tls} if security is Security.STARTTLS else {"tls": tls}
    with mail_server(**way, login=("headwater", "mail canary")) as server:
        channel = mail_channel(server.port, security, "mail canary")
        with pytest.raises(BROKEN, match="certificate that cannot be trusted"):
            channel.send(OUTGOING, 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert channel.send(OUTGOING, 5) == "taken"
        wrong = mail_channel(server.port, security, "wrong canary")
        with pytest.raises(BROKEN, match="535") as caught:
            wrong.send(OUTGOING, 5)
    assert len(server.mails) == 1
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(channel)


def test_what_was_to_be_encrypted_is_not_sent_in_clear() -> None:
    with mail_server() as server, pytest.raises(BROKEN, match="STARTTLS"):
        mail_channel(server.port, Security.STARTTLS).send(OUTGOING, 5)
    assert not server.mails


def test_a_password_is_not_sent_in_clear_to_another_machine() -> None:
    with pytest.raises(ConfigurationError, match="in clear"):
        MailServer("smtp.example.com", 25, Security.NONE, "headwater", "canary")


@pytest.mark.parametrize(
    ("words", "error"),
    [("451 try later", UNAVAILABLE), ("554 looks like spam", REFUSED), ("421 going down", UNAVAILABLE)],
)
def test_mail_that_is_refused_as_a_whole(words: str, error: type[HeadwaterError]) -> None:
    with mail_server() as server:
        server.answer = words
        with pytest.raises(error, match=words):
            mail_channel(server.port).send(OUTGOING, 5)


@pytest.mark.parametrize(("code", "error"), [("450 greylisted", UNAVAILABLE), ("550 no such user", BROKEN)])
def test_mail_that_is_refused_for_all_recipients(code: str, error: type[HeadwaterError]) -> None:
    with mail_server() as server:
        server.refused = {"a@example.com": code, "b@example.com": code}
        with pytest.raises(error, match=f"a@example.com: {code}"):
            mail_channel(server.port).send(OUTGOING, 5)


def test_mail_that_is_refused_for_one_recipient_is_delivered_and_says_so() -> None:
    with mail_server() as server:
        server.refused = {"a@example.com": "550 no such user"}
        said = mail_channel(server.port).send(OUTGOING, 5)
    assert said == "taken, but not for a@example.com: 550 no such user"
    assert len(server.mails) == 1


@pytest.mark.parametrize("conduct", ["hang", "slow", "drip", "cut", "no server"])
def test_no_mail_server_is_waited_for_longer_than_it_may_take(conduct: str) -> None:
    with mail_server() as server, socket.create_server(("127.0.0.1", 0)) as silent:
        port = {"hang": silent.getsockname()[1], "no server": free_port()}.get(conduct, server.port)
        if conduct == "drip":
            port = endless_greeter()
        server.pause = 3 if conduct == "slow" else 0
        server.cuts = conduct == "cut"
        begun = time.monotonic()
        with pytest.raises(UNAVAILABLE, match="did not take the message|said no"):
            mail_channel(port).send(OUTGOING, 0.6)
        assert time.monotonic() - begun < 2


def endless_greeter() -> int:
    """A port where someone begins to greet, byte by byte, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            try:
                while True:
                    connection.sendall(b"2")
                    time.sleep(0.05)
            except OSError:
                return

    threading.Thread(target=greet, daemon=True).start()
    return int(listener.getsockname()[1])


def test_the_closing_of_an_incident_says_how_long_it_lasted(server: Receiver) -> None:
    closed = replace(
        MESSAGE,
        kind=Kind.CLOSED,
        closed_at=datetime(2026, 3, 2, 6, 5, tzinfo=UTC),
        closed_why="The source answers again.",
    )
    channel = SlackChannel("slack", server.url)
    channel.send(Outgoing(ALERT, closed, opening_id=ALERT, is_first=False), 5)
    channel.send(Outgoing(ALERT, closed), 5)
    told, alone = server.taken
    assert told["text"] == "[recovered after 26 h] flights_api.flights cannot be loaded."
    assert alone["text"] == "[was error, recovered after 26 h] flights_api.flights cannot be loaded."
    assert "from 2026-03-01 04:05 UTC to 2026-03-02 06:05 UTC, for 26 h" in str(told)
    assert "headwater incidents show" not in str(told)
