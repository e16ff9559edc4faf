"""Secrets out of texts, in whatever form they are repeated there."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "***"


class Mask:
    """Replaces secrets in texts, also where they are percent-encoded, escaped, or inside something in base64."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        by_length = sorted(forms, key=len, reverse=True)
        # Percent-encoding may use either case; what is masked beyond need does no harm.
        self._pattern = re.compile("|".join(map(re.escape, by_length)), re.IGNORECASE) if forms else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern is not None else text


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
        if len(form) >= 4:
            yield form
