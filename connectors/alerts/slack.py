"""Slack, by an incoming webhook; so do Mattermost and others that take Slack's format.

Whoever writes into an error message must not be able to call a whole channel, or show a link as another: everything
from outside is escaped as Slack says, and nothing of it is taken for markup (`verbatim`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from connectors.alerts.message import Kind, Message, Outgoing, Severity
from connectors.alerts.post import post, secrets_of_address
from connectors.errors import ChannelUnavailableError

_TEXT_LENGTH = 2900
"""Slack takes 3,000 characters a block, counted after escaping."""
_LINE_LENGTH = 1000
_SIGNS = {Severity.WARNING: ":large_yellow_circle:", Severity.ERROR: ":red_circle:", Severity.CRITICAL: ":fire:"}


@dataclass(frozen=True, slots=True)
class SlackChannel:
    """One incoming webhook, which leads to one Slack channel."""

    name: str
    url: str = field(repr=False)
    """Whoever has it may post: it is a secret as a whole."""

    @property
    def secrets(self) -> tuple[str, ...]:
        return secrets_of_address(self.url)

    def send(self, outgoing: Outgoing, seconds: float) -> str:
        """See `Channel.send`. Slack has no way to recognise a message that it gets twice."""
        body = json.dumps(payload(outgoing)).encode()
        posted = post(self.url, body, {"Accept": "text/plain, */*"}, seconds, secrets=self.secrets)
        if posted.words.startswith("<"):
            raise ChannelUnavailableError(
                "Instead of Slack a web page answered (of a login, of a proxy in between?).",
                remedy="It is tried again; if it lasts, look at what is between Slack and this machine.",
            )
        return f"{posted.status} {posted.words}".strip()


def payload(outgoing: Outgoing) -> dict[str, Any]:
    """The message as Slack takes it: blocks, and one line for notifications."""
    message = outgoing.message
    blocks = [_section(f"{_sign(message)} *{_escaped(outgoing.subject, _LINE_LENGTH)}*")]
    if message.title not in outgoing.subject:
        blocks.append(_section(_escaped(message.title, _TEXT_LENGTH)))
    # Each fact has a block of its own: fields would be cut at 2,000 characters, and are read badly on a phone.
    blocks += [_section(f"*{label}:* {_escaped(said, _TEXT_LENGTH)}") for label, said in message.facts()]
    if message.command:
        blocks.append(_section(f"*Next:*\n```\n{_escaped(message.command, _LINE_LENGTH)}\n```"))
    if links := [f"<{_escaped(link, _LINE_LENGTH)}|{name}>" for name, link in message.links.items()]:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(links)}]})
    return {
        "text": _escaped(outgoing.subject, _LINE_LENGTH),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _sign(message: Message) -> str:
    if message.kind is Kind.CLOSED:
        return ":large_green_circle:"
    return ":wave:" if message.kind is Kind.CANARY else _SIGNS[message.severity]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _escaped(text: str, most: int) -> str:
    """The three characters that mean something to Slack, as text; cut between characters, not within one."""
    text = text.replace("```", "'''")  # it would begin or end a block of code
    pieces = [{"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character) for character in text]
    if sum(map(len, pieces)) <= most:
        return "".join(pieces)
    kept: list[str] = []
    left = most - 1
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…"
