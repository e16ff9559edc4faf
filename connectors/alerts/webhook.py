"""A webhook: JSON to any address, signed as Standard Webhooks says (standardwebhooks.com) where a key is set.

The body is documented in docs/alerts.md; `version` counts changes of it that a receiver would notice.
"""

from __future__ import annotations

import binascii
import hmac
import json
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any

from connectors.alerts.message import Outgoing
from connectors.alerts.post import post, secrets_of_address
from connectors.errors import ConfigurationError

VERSION = 1
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """An address that takes JSON."""

    name: str
    url: str = field(repr=False)
    """It may hold a token."""
    key: str | None = field(default=None, repr=False)
    """What bodies are signed with: any text, or bytes as `whsec_` and base64."""

    def __post_init__(self) -> None:
        if self.key is not None:
            _key_bytes(self.key)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*secrets_of_address(self.url), *((self.key, self.key.removeprefix(_PREFIX)) if self.key else ()))

    def send(self, outgoing: Outgoing, seconds: float) -> str:
        """See `Channel.send`. Every attempt has the same body and Idempotency-Key."""
        body = json.dumps(payload(outgoing), ensure_ascii=False).encode()
        posted = post(self.url, body, self._headers(outgoing, body), seconds, secrets=self.secrets)
        return f"{posted.status} {posted.words}".strip()

    def _headers(self, outgoing: Outgoing, body: bytes) -> dict[str, str]:
        number = str(outgoing.alert_id)
        headers = {"Idempotency-Key": number, "webhook-id": number, "webhook-timestamp": str(int(time.time()))}
        if self.key is not None:
            signed = f"{number}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.digest(_key_bytes(self.key), signed, "sha256")
            headers["webhook-signature"] = f"v1,{b64encode(digest).decode()}"
        return headers


def payload(outgoing: Outgoing) -> dict[str, Any]:
    """The message as JSON: texts as they are, times as ISO 8601 with offset."""
    message = outgoing.message
    incident = message.as_json()
    kind, links = incident.pop("kind"), incident.pop("links")
    return {
        "version": VERSION,
        "alert_id": str(outgoing.alert_id),
        "kind": kind,
        "is_first": outgoing.is_first,
        "subject": outgoing.subject,
        "text": message.text,
        "incident": incident,
        "links": links,
    }


def _key_bytes(key: str) -> bytes:
    if not key.startswith(_PREFIX):
        return key.encode()
    try:
        return b64decode(key.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ConfigurationError(
            "The key of a webhook begins with `whsec_`, and what follows is no base64.",
            remedy="Copy it again as a whole; a key of your own may be any other text.",
        ) from None
