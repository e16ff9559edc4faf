"""Whatever a message is made of, it stays text, within bounds, and tells no secret."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.alerts import slack, webhook
from connectors.alerts.message import SUBJECT_LENGTH, Kind, Message, Outgoing, Severity, how_long
from connectors.alerts.smtp import EmailChannel, MailServer, parse_address
from connectors.errors import ConfigurationError
from connectors.masking import without_credentials

ALERT = UUID(int=1)
MAIL = EmailChannel("mail", MailServer("127.0.0.1", 25), "h@example.com", ("a@example.com",))
HOSTILE = [
    "<!channel> <!here> <@U123>",
    "<script>alert(1)</script>",
    "<https://evil.example|your status page>",
    "a\r\nBcc: everyone@example.com\r\n\r\nhello",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "```\n<!everyone>",
    "\u202egnp.exe",
    "\x00\x1b[31mred\x07",
    "=?utf-8?q?=0aBcc:_x?=",
    "é" * 5000,
    "<&>" * 3000,
    "\ud800 lone",
    "\"quoted\" & 'quoted' \\ back",
    ".\r\n.\r\nQUIT\r\n",
]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=200), st.text(alphabet="<>&|*`!@#\r\n.é😀", max_size=400))
times = st.timedeltas(timedelta(0), timedelta(days=3000)).map(lambda after: datetime(2020, 1, 1, tzinfo=UTC) + after)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    opened = draw(st.none() | times)
    return Message(
        kind=draw(st.sampled_from(Kind)),
        severity=draw(st.sampled_from(Severity)),
        title=draw(texts),
        cause=draw(texts),
        next_command=draw(texts),
        owner=draw(st.none() | texts),
        incident_id=draw(st.none() | st.integers(1, 9)),
        opened_at=opened,
        closed_at=opened + draw(st.timedeltas(timedelta(0), timedelta(days=90)))
        if opened and draw(st.booleans())
        else None,
        closed_why=draw(st.none() | texts),
        times_seen=draw(st.integers(1, 99)),
        affected_marts=tuple(draw(st.lists(texts, max_size=30))),
        affected_dashboards=tuple(draw(st.lists(texts, max_size=3))),
        written_at=draw(st.none() | times),
        links={"Status page": "https://status.example.com/?a=1&b=2"},
    )


class Page(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def of_slack(block: dict[str, Any]) -> str:
    return str(block["text"]["text"] if "text" in block else block["elements"][0]["text"])


def hostile(text: str) -> Message:
    """The same in each place."""
    return Message(
        kind=Kind.OPENED,
        severity=Severity.ERROR,
        title=text,
        cause=text,
        next_command=text,
        owner=text,
        affected_marts=(text,),
        affected_dashboards=(text,),
        links={"Status page": "https://status.example.com/?a=1&b=2"},
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts_in_every_channel(text: str) -> None:
    check_texts(hostile(text), is_first=True)


@given(messages(), st.booleans())
def test_any_text_stays_text_in_every_channel(message: Message, is_first: bool) -> None:
    check_texts(message, is_first=is_first)


def check_texts(message: Message, *, is_first: bool) -> None:
    outgoing = Outgoing(ALERT, message, is_first=is_first)
    assert len(outgoing.subject) <= SUBJECT_LENGTH
    assert not re.search(r"[\x00-\x1f\x7f\u202a-\u202e]", outgoing.subject)

    body = json.loads(json.dumps(slack.payload(outgoing)))
    for text in (body["text"], *map(of_slack, body["blocks"])):
        assert len(text) <= 3000
        ours = text.replace("<https://status.example.com/?a=1&amp;b=2|Status page>", "")
        assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", ours)
        assert text.count("```") in (0, 2)
    assert len(body["blocks"]) <= 50
    assert html.unescape(body["text"]) == outgoing.subject.replace("```", "'''")

    mail = message_from_bytes(bytes(MAIL.mail(outgoing)), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert set(mail.keys()) == {
        "From", "To", "Subject", "Date", "Auto-Submitted", "MIME-Version", "Content-Type", "Message-ID",
    }  # fmt: skip
    assert mail["To"] == "a@example.com"
    # Spaces at a fold are the only thing that may differ.
    assert "".join(mail["Subject"].split()) == "".join(outgoing.subject.split())
    plain, rich = mail.get_body(["plain"]), mail.get_body(["html"])
    assert plain is not None
    assert rich is not None
    assert plain.get_content().replace("\r\n", "\n") == message.text
    page = Page()
    page.feed(rich.get_content())
    assert page.tags <= {"html", "body", "p", "strong", "table", "tr", "td", "br", "pre", "a"}
    assert message.title in page.texts

    posted = json.loads(json.dumps(webhook.payload(outgoing)))
    assert posted["text"] == message.text
    assert Message.from_json(json.loads(json.dumps(message.as_json()))) == message


@given(messages())
def test_a_message_says_what_there_is_to_say(message: Message) -> None:
    if message.closed_at is not None:
        assert "Was open: from" in message.text
        assert not message.command
    for mart in message.affected_marts[:20]:
        assert mart in message.text
    if len(message.affected_marts) > 20:
        assert f"and {len(message.affected_marts) - 20} more" in message.text


@pytest.mark.parametrize(
    ("text", "cleared"),
    [
        (
            "cannot connect to postgresql://loader:hunter2@db:5432/x",
            "cannot connect to postgresql://loader:***@db:5432/x",
        ),
        ("smtp://:hunter2@mail refused", "smtp://:***@mail refused"),
        ("see https://hooks.slack.com/services/T1/B2/hunter2.", "see https://hooks.slack.com/***"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("url?api_key=hunter2&page=2", "url?api_key=***&page=2"),
        ("password = 'hunter2 hunter2', user = x", "password = ***, user = x"),
        ('{"client_secret": "hunter2", "a": 1}', '{"client_secret": ***, "a": 1}'),
        ("X-Amz-Signature=hunter2 is bad", "X-Amz-Signature=*** is bad"),
        ("AKIAIOSFODNN7EXAMPLE is unknown", "*** is unknown"),
        ("the token was refused", "the token was refused"),
        ("column token: expected text", "column token: expected text"),
        ("key (id)=(1) is there twice; basic types differ", "key (id)=(1) is there twice; basic types differ"),
    ],
)
def test_what_looks_like_a_credential_is_taken_out_before_it_is_kept(text: str, cleared: str) -> None:
    assert without_credentials(text) == cleared
    message = Message(kind=Kind.OPENED, severity=Severity.ERROR, title=text, cause=text, next_command=text)
    assert "hunter2" not in json.dumps(message.as_json())


def test_one_long_sentence_is_cut_in_the_subject_and_whole_in_the_text() -> None:
    title = "flights_api.flights cannot be loaded: " + "the source says something long. " * 6
    message = Message(kind=Kind.OPENED, severity=Severity.ERROR, title=title)
    assert len(message.subject) <= 100
    assert message.subject.endswith("…")
    assert title.strip() in message.text
    assert title.strip() in json.dumps(slack.payload(Outgoing(ALERT, message)))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (7500, "2 h 5 min"),
     (172_800, "2 d"), (273_600, "3 d 4 h"), (-5, "0 s")],
)  # fmt: skip
def test_time_spans_in_words(seconds: int, said: str) -> None:
    assert how_long(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize("text", ["", "a", "a@", "@b", "a@b\nBcc: c@d", "a b@c", "Name <>", "a@b, c@d"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not an email address"):
        parse_address(text)
