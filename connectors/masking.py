"""Secrets out of texts, in whatever form they are repeated there."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
_TELLING = 4
"""Characters of a form from which on a part of it tells something."""


class Mask:
    """Replaces secrets in texts, also where they are percent-encoded, escaped, or inside something in base64."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        forms |= {form.lower() for form in forms}  # as in a host's name
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = len(self._forms[0]) if self._forms else 0
        self._by_beginning: dict[str, list[str]] = {}
        for form in self._forms:
            if len(form) > _TELLING:
                self._by_beginning.setdefault(form[:_TELLING], []).append(form)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        # A text that was cut may end inside one.
        for start in range(max(0, len(text) - self._longest), len(text) - _TELLING + 1):
            rest = text[start:]
            if any(form.startswith(rest) for form in self._by_beginning.get(rest[:_TELLING], ())):
                return text[:start] + MASK
        return text


_CREDENTIALS = re.compile(
    r"""
      (?P<url> \b [a-z][a-z0-9+.-]* :// [^\s/:@]* : ) [^\s@]+ (?= @ )           # user:password@ in an address
    | (?P<slack> \b hooks\.slack(?:-gov)?\.com/ ) [^\s"'<>|]+                  # all that lets one in is its path
    | (?P<bearer> \b (?:bearer|basic) \s+ ) [a-z0-9._~+/=-]{8,}
    | (?P<named> ["']? [a-z0-9_.-]* (?:passw(?:or)?d|secret|token|(?:api|access|private)[_-]?key|signature)
        [a-z0-9_.-]* (?: ["']\s*:\s* | \s*=\s* ) ) (?: "[^"]*" | '[^']*' | [^\s,;&"'<>]+ )
    | (?P<aws> \b ) (?:AKIA|ASIA)[0-9A-Z]{16} \b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def without_credentials(text: str) -> str:
    """A text without what looks like a password or key, for texts whose secrets nobody knows any more."""
    return _CREDENTIALS.sub(lambda found: next((kept for kept in found.groups() if kept), "") + MASK, text)


def _forms(secret: str) -> Iterator[str]:
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], repr(secret)[1:-1], ascii(secret)[1:-1], html.escape(secret))
    for form in _base64_forms(secret.encode()):
        yield from (form, form.replace("+", "-").replace("/", "_"), quote(form, safe=""))


def _base64_forms(data: bytes) -> Iterator[str]:
    """What base64 makes of the bytes wherever they stand in a longer text: less what depends on their neighbours."""
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        encoded = b64encode(bytes(before) + data).decode()
        form = encoded[shared : (before + len(data)) * 8 // 6]
        if len(form) >= _TELLING:
            yield form
