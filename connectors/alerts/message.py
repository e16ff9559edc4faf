"""What a message says, whatever channel carries it.

Texts come from sources, databases and dbt, and so does whatever they were made to say: here they lose control
characters, what looks like a credential, and what is beyond a sensible length. Escaping is each channel's own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from connectors.masking import without_credentials

SUBJECT_LENGTH = 100
_LINE_LENGTH = 300
_TEXT_LENGTH = 1500
_NAMES = 20
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make what follows look like something else."""


class Severity(StrEnum):
    """How bad it is, in order."""

    WARNING = "warning"
    """Nothing is lost, wrong or old yet; someone should look at it."""
    ERROR = "error"
    """Something does not work; readers have what was good before."""
    CRITICAL = "critical"
    """Someone looks at a dashboard whose data is older than was promised."""

    @property
    def rank(self) -> int:
        """The higher, the worse."""
        return list(Severity).index(self)

    def is_at_least(self, other: Severity) -> bool:
        """A route that wants `error` gets `critical` too."""
        return self.rank >= other.rank


class Kind(StrEnum):
    """Why a message is sent."""

    OPENED = "opened"
    WORSE = "worse"
    REMINDER = "reminder"
    CLOSED = "closed"
    CANARY = "canary"
    """Of no incident: whether the channel carries anything at all."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message about one incident, as of when it was written."""

    kind: Kind
    severity: Severity
    title: str
    """What it is, in a sentence."""
    cause: str = ""
    next_command: str = ""
    owner: str | None = None
    incident_id: int | None = None
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    closed_why: str | None = None
    times_seen: int = 1
    affected_marts: tuple[str, ...] = ()
    affected_dashboards: tuple[str, ...] = ()
    written_at: datetime | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    """Address by name: the status page, the run."""

    def __post_init__(self) -> None:
        cleaned = {
            "kind": Kind(self.kind),
            "severity": Severity(self.severity),
            "title": _clean_line(self.title, _LINE_LENGTH) or "Something is wrong, and nothing says what.",
            "cause": _clean(self.cause, _TEXT_LENGTH),
            "next_command": _clean(self.next_command, _LINE_LENGTH),
            "owner": _clean_line(self.owner or "", _LINE_LENGTH) or None,
            "closed_why": _clean_line(self.closed_why or "", _LINE_LENGTH) or None,
            "affected_marts": tuple(_clean_line(name, _LINE_LENGTH) for name in self.affected_marts),
            "affected_dashboards": tuple(_clean_line(name, _LINE_LENGTH) for name in self.affected_dashboards),
            "links": {_clean_line(name, _LINE_LENGTH): _clean_line(link, 2000) for name, link in self.links.items()},
        }
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)

    @property
    def subject(self) -> str:
        """One line of at most 100 characters."""
        return _cut(f"[{self.state}] {self.title}", SUBJECT_LENGTH)

    @property
    def lasted(self) -> timedelta | None:
        """From opening to closing, or to when this was written."""
        end = self.closed_at or self.written_at
        return end - self.opened_at if self.opened_at and end else None

    @property
    def state(self) -> str:
        """How it stands, in a few words."""
        lasted = f" after {how_long(self.lasted)}" if self.lasted is not None else ""
        match self.kind:
            case Kind.CLOSED:
                return f"recovered{lasted}"
            case Kind.REMINDER:
                return f"{self.severity}, still{lasted}"
            case Kind.WORSE:
                return f"{self.severity}, worse"
            case Kind.CANARY:
                return "test"
            case _:
                return str(self.severity)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Label and text of all that there is to say beside the title."""
        if self.opened_at is not None and self.closed_at is not None:
            end = _at(self.closed_at)
            yield "Was open", f"from {_at(self.opened_at)} to {end}, for {how_long(self.closed_at - self.opened_at)}"
        elif self.opened_at is not None:
            times = f", seen {self.times_seen} times" if self.times_seen > 1 else ""
            yield "Since", f"{_at(self.opened_at)}{times}"
        if self.closed_why:
            yield "Recovered", self.closed_why
        if self.cause:
            yield "Likely cause", self.cause
        if self.affected_marts:
            yield "Marts", _listed(self.affected_marts)
        if self.affected_dashboards:
            yield "Dashboards", _listed(self.affected_dashboards)
        if self.owner:
            yield "Owner", self.owner

    @property
    def command(self) -> str:
        """What to type next; nothing, once it is over."""
        return "" if self.closed_at else self.next_command

    @property
    def text(self) -> str:
        """All of it as plain text."""
        lines = [self.title, ""]
        lines += [f"{label}: {said}" for label, said in self.facts()]
        if self.command:
            lines += ["", "Next:", f"  {self.command}"]
        if self.links:
            lines += ["", *(f"{name}: {link}" for name, link in self.links.items())]
        return "\n".join(lines).rstrip() + "\n"

    def as_json(self) -> dict[str, Any]:
        """As the outbox keeps it."""
        found = asdict(self)
        for name in ("opened_at", "closed_at", "written_at"):
            found[name] = found[name].isoformat() if found[name] else None
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """As it was kept; what a newer version wrote beside it is left out."""
        known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        for name in ("opened_at", "closed_at", "written_at"):
            known[name] = datetime.fromisoformat(known[name]) if known.get(name) else None
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to one channel."""

    alert_id: UUID
    """The same for every attempt: who gets it twice can tell."""
    message: Message
    opening_id: UUID | None = None
    """The first message of the same incident on the channel, where that is another one."""
    is_first: bool = True
    """Nothing of the incident was delivered on the channel before."""

    @property
    def subject(self) -> str:
        """The message's own; of an incident that nobody here has heard of and that is over, one that says so."""
        if self.message.kind is Kind.CLOSED and self.is_first:
            return _cut(f"[was {self.message.severity}, {self.message.state}] {self.message.title}", SUBJECT_LENGTH)
        return self.message.subject


def how_long(span: timedelta) -> str:
    """A time span in words: 45 s, 12 min, 2 h 5 min, 3 d 4 h."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _at(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M %Z}"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _clean(text: str, most: int) -> str:
    """Without control characters and credentials, and cut: lines stay."""
    text = "".join(
        character if character == "\n" or not _is_control(character) else " "
        for character in text.replace("\r\n", "\n")
    )
    return _cut(without_credentials(text).strip(), most)


def _clean_line(text: str, most: int) -> str:
    return _cut(" ".join(_clean(text, 10 * most).split()), most)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
