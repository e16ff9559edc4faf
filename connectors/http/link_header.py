"""The header Link: where else a source says that there is something (RFC 8288)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from connectors.errors import MalformedResponseError

_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(
    r"""\s*;\s*(?P<name>[^\s;,="<>]*)\s*(?:=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s;,"]*)))?"""
)
_ANCHOR = "anchor"


def links(header: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The targets in a Link header, each with its relations in lower case (RFC 8288, 3 and B.2).

    A link with an anchor is about something else than the page, and left out.

    Raises:
        MalformedResponseError: it cannot be read: the next page might be in it.
    """
    position = 0
    while header[position:].strip(" \t,"):
        target = _TARGET.match(header, position)
        if target is None:
            raise _no_links(header)
        position = target.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, position)) is not None:
            position = parameter.end()
            value = re.sub(r"\\(.)", r"\1", parameter["quoted"]) if parameter["quoted"] else parameter["plain"] or ""
            parameters.setdefault(parameter["name"].lower(), value)  # of several, the first counts
        rest = header[position:].lstrip(" \t")
        if rest and not rest.startswith(","):
            raise _no_links(header)
        if _ANCHOR not in parameters:
            yield target[1].strip(), frozenset(parameters.get("rel", "").lower().split())


def _no_links(header: str) -> MalformedResponseError:
    return MalformedResponseError(
        f"The header Link cannot be read: {header[:200]}", remedy="Ask the source's owner to write it by RFC 8288."
    )
