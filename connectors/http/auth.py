"""Ways to be let in by an API: what a source's definition names, and what requests are signed with.

A definition names its secrets (`connectors.connections`); their values never reach a message or a log. They go to the
source's own origin and nowhere else.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol
from urllib.parse import quote_plus, urlencode

import msgspec

from connectors.connections import Connections, Requirement, Secret, Setting
from connectors.errors import ConfigurationError, MalformedResponseError
from connectors.http.client import Credentials, FixedCredentials, HttpClient
from connectors.http.message import Answer, Request, Signature
from connectors.unsaid import UNSAID

_FORM = "application/x-www-form-urlencoded"
_RENEWED_BEFORE_SECONDS = 60.0
_TOKENS_REMEMBERED = 3


class Auth(Protocol):
    """A way to be let in, as a source's definition has it."""

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What it needs to be told."""
        ...

    def credentials(self, connections: Connections) -> Credentials:
        """What the requests of one client are signed with.

        Raises:
            ConfigurationError: a value is not set, or cannot be sent.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiKeyHeader:
    """A key in a header of its own, or in `Authorization` behind a prefix."""

    header: str
    key: Secret
    prefix: str = ""
    """What stands before the key, its space included: `Token `."""

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.key,)

    def credentials(self, connections: Connections) -> FixedCredentials:
        """See `Auth`."""
        key = _in_header(connections, self.key)
        return FixedCredentials(Signature({self.header: self.prefix + key}), (key,))


@dataclass(frozen=True, slots=True)
class ApiKeyQuery:
    """A key among the parameters. Where an API takes it in a header too, that is better: addresses end up in logs,
    those of proxies and of the source if not ours."""

    parameter: str
    key: Secret

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.key,)

    def credentials(self, connections: Connections) -> FixedCredentials:
        """See `Auth`."""
        key = connections.secret(self.key)
        return FixedCredentials(Signature(parameters={self.parameter: key}), (key,))


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that somebody made by hand, and that lasts (RFC 6750)."""

    token: Secret

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.token,)

    def credentials(self, connections: Connections) -> FixedCredentials:
        """See `Auth`."""
        token = _in_header(connections, self.token)
        return FixedCredentials(_bearer(token), (token,))


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """User and password (RFC 7617). Some APIs take a key as the user, and no password."""

    user: Setting | Secret
    password: Secret | None = None

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.user, self.password) if self.password else (self.user,)

    def credentials(self, connections: Connections) -> FixedCredentials:
        """See `Auth`."""
        user, secrets = self._user(connections)
        password = connections.secret(self.password) if self.password else ""
        if ":" in user:
            raise ConfigurationError(
                f"The user `{self.user.name}` has a colon, which would end it.", remedy="Give the name alone."
            )
        return _basic(user, password, (*secrets, password))

    def _user(self, connections: Connections) -> tuple[str, tuple[str, ...]]:
        if isinstance(self.user, Setting):
            return connections.setting(self.user), ()
        key = connections.secret(self.user)
        return key, (key,)


class ClientAuthentication(Enum):
    """How a client shows its secret to a token endpoint (RFC 6749, 2.3.1)."""

    BASIC = auto()
    """In the Authorization header: client_secret_basic."""
    POST = auto()
    """In the body: client_secret_post."""


@dataclass(frozen=True, slots=True)
class OAuth2ClientCredentials:
    """Tokens from a token endpoint, for a client that acts for itself (RFC 6749, 4.4)."""

    token_url: Setting
    client_id: Setting
    client_secret: Secret
    scope: str = ""
    """Names with spaces between them."""
    audience: str = ""
    """Not of the RFC, but wanted by some."""
    authentication: ClientAuthentication = ClientAuthentication.BASIC

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.token_url, self.client_id, self.client_secret)

    def credentials(self, connections: Connections) -> TokenCredentials:
        """See `Auth`. The first token is fetched with the first request."""
        client, secret = connections.setting(self.client_id), connections.secret(self.client_secret)
        form = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        basic = _basic(quote_plus(client), quote_plus(secret), (secret,))
        if self.authentication is ClientAuthentication.POST:
            form |= {"client_id": client, "client_secret": secret}
            basic = FixedCredentials(secrets=(secret,))
        body = urlencode({name: value for name, value in form.items() if value}).encode()
        return TokenCredentials(connections.setting(self.token_url), body, basic)


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    """Of the monotonic clock."""


class TokenCredentials:
    """A token, fetched when it is needed and renewed before it expires: once, however many threads find it expired."""

    def __init__(self, url: str, form: bytes, client: FixedCredentials) -> None:
        self._url = url
        self._form = form
        self._client = client
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._endpoint: HttpClient | None = None
        self._seen: deque[str] = deque(maxlen=_TOKENS_REMEMBERED)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The client's, and the tokens that may still be under way."""
        return (*self._client.secrets, *self._seen)

    def sign(self, client: HttpClient) -> Signature:
        """See `http.client.Credentials`. Whoever comes first fetches the token; the others wait for it here."""
        with self._lock:
            if self._token is None or time.monotonic() >= self._token.renew_at:
                self._endpoint = self._endpoint or client.elsewhere(self._url, self._client)
                self._token = self._fetched(self._endpoint)
                self._seen.append(self._token.value)
                UNSAID.add(self._token.value)
            return _bearer(self._token.value)

    def renew(self, refused: Signature) -> bool:
        """See `connectors.http.client.Credentials`. A token that another thread has renewed already stays."""
        with self._lock:
            if self._token is not None and _bearer(self._token.value) == refused:
                self._token = None
        return True

    def _fetched(self, endpoint: HttpClient) -> _Token:
        asked_at = time.monotonic()
        value, seconds = endpoint.read(Request("", method="POST", body=self._form, content_type=_FORM), _granted)
        return _Token(value, asked_at + seconds - min(_RENEWED_BEFORE_SECONDS, seconds / 10))


class _Grant(msgspec.Struct):
    """What a token endpoint answers (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - a kind of token, no token
    expires_in: float | str | None = None


_GRANT = msgspec.json.Decoder(_Grant)


def _granted(answer: Answer) -> tuple[str, float]:
    """The token, and for how many seconds it is good; one that does not say so, until it is refused.

    Raises:
        MalformedResponseError: it is no such answer. It is not quoted: a token may be in it.
    """
    try:
        grant = _GRANT.decode(answer.body)
        seconds = float(grant.expires_in) if grant.expires_in is not None else float("inf")
    except (msgspec.DecodeError, ValueError):
        raise _no_grant("is not one of RFC 6749") from None
    if grant.token_type.lower() != "bearer":
        raise _no_grant("is a token of another type than Bearer")
    if not _can_be_sent(grant.access_token):
        raise _no_grant("holds a token that no header can carry")
    return grant.access_token, seconds


def _no_grant(what: str) -> MalformedResponseError:
    return MalformedResponseError(
        f"The answer of the token endpoint {what}.", remedy="Check the address of the endpoint in the source's manual."
    )


def _bearer(token: str) -> Signature:
    return Signature({"Authorization": f"Bearer {token}"})


def _basic(user: str, password: str, secrets: tuple[str, ...]) -> FixedCredentials:
    encoded = b64encode(f"{user}:{password}".encode()).decode()
    return FixedCredentials(Signature({"Authorization": f"Basic {encoded}"}), (*secrets, encoded))


def _in_header(connections: Connections, secret: Secret) -> str:
    value = connections.secret(secret)
    if not _can_be_sent(value):
        raise ConfigurationError(
            f"The secret `{secret.name}` has a character that no header can carry: a line break, perhaps.",
            remedy=f"Set {secret.environment_variable} again, and run `headwater register`.",
        )
    return value


def _can_be_sent(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()
