"""What is asked, and what is answered, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a source."""

    url: str
    """A path below the client's base address, or a whole address of the same or an allowed origin."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """They join those that the address has, and win over those of the same name."""
    method: str = "GET"
    body: bytes | None = None
    accept: str = "application/json"
    content_type: str = "application/json"
    """Of the body, if there is one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, whole."""

    body: bytes
    """Decompressed."""
    headers: Mapping[str, str]
    """By name in lower case."""
    url: str
    """Where it came from, parameters included, credentials not: relative links start from it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request carries to be let in."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
