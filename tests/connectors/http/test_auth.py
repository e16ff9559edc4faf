"""How a source is let in: each kind of credentials, tokens that run out, and secrets that stay where they are."""

from __future__ import annotations

import html
import json
import logging
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections, Secret, Setting
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.http.auth import (
    ApiKeyHeader,
    ApiKeyQuery,
    Auth,
    BasicAuth,
    BearerToken,
    ClientAuthentication,
    OAuth2ClientCredentials,
)
from connectors.http.client import HttpClient, Request, RetryPolicy
from connectors.masking import Mask
from connectors.model import ExtractRequest
from connectors.rest import RestSource, RestStream
from tests.connectors.wire import Asked, Line, Wire, answer, wire

KEY = "canary/71+ü?"
"""A secret that looks different in each form."""
HEADER_KEY = "canary/71+~&"
QUICK = RetryPolicy(attempts=3, wait_initial=0.001, wait_max=0.01, connect_timeout=1, read_timeout=2)

OAUTH = OAuth2ClientCredentials(
    token_url=Setting("token_url"), client_id=Setting("client"), client_secret=Secret("client_secret")
)


def connections(source: Wire | None = None, key: str = HEADER_KEY) -> EnvironmentConnections:
    url = source.url if source else "http://127.0.0.1:1"
    return EnvironmentConnections(
        {
            "HEADWATER_API_URL": url,
            "HEADWATER_KEY": key,
            "HEADWATER_USER": "me",
            "HEADWATER_TOKEN_URL": f"{url}/token",
            "HEADWATER_CLIENT": "the client",
            "HEADWATER_CLIENT_SECRET": KEY,
        }
    )


def client(source: Wire, auth: Auth, key: str = HEADER_KEY) -> HttpClient:
    return HttpClient(source.url, credentials=auth.credentials(connections(source, key)), policy=QUICK)


def read(source: Wire, auth: Auth, key: str = HEADER_KEY) -> list[bytes]:
    """Records, through the public door."""
    stream = RestStream(name="things", path="/things", primary_key=("id",))
    api = RestSource(name="api", base_url=Setting("api_url"), auth=auth, streams=(stream,), retries=QUICK)
    extraction = api.extract(stream, ExtractRequest(), connections(source, key))
    return [chunk.data for chunk in extraction.chunks]


# Each kind.


@pytest.mark.parametrize(
    ("auth", "key", "headers"),
    [
        (ApiKeyHeader("X-Key", Secret("key")), HEADER_KEY, {"x-key": HEADER_KEY}),
        (ApiKeyHeader("Authorization", Secret("key"), "Token "), HEADER_KEY, {"authorization": f"Token {HEADER_KEY}"}),
        (BearerToken(Secret("key")), HEADER_KEY, {"authorization": f"Bearer {HEADER_KEY}"}),
        (
            BasicAuth(Setting("user"), Secret("key")),
            KEY,
            {"authorization": f"Basic {b64encode(f'me:{KEY}'.encode()).decode()}"},
        ),
        (BasicAuth(Secret("key")), KEY, {"authorization": f"Basic {b64encode(f'{KEY}:'.encode()).decode()}"}),
    ],
)
def test_credentials_go_into_a_header(auth: Auth, key: str, headers: dict[str, str]) -> None:
    with wire(lambda _, line: line.send(answer([{"id": 1}]))) as source:
        assert read(source, auth, key) == [b'{"id": 1}\n']
    assert source.asked[0].headers.items() >= headers.items()
    assert Secret("key") in auth.requirements


def test_a_key_goes_into_the_parameters() -> None:
    with (
        wire(lambda _, line: line.send(answer([]))) as source,
        client(source, ApiKeyQuery("key", Secret("key")), KEY) as ours,
    ):
        found = ours.fetch(Request("/things", {"a": "b"}))
    assert source.asked[0].parameters == {"a": "b", "key": KEY}
    assert found.url == f"{source.url}/things?a=b"


@pytest.mark.parametrize("auth", [ApiKeyHeader("X-Key", Secret("key")), BearerToken(Secret("key"))])
@pytest.mark.parametrize("key", ["canary\n71", "canary-ü", "canary\x00"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(auth: Auth, key: str) -> None:
    with pytest.raises(ConfigurationError, match="no header can carry") as caught:
        auth.credentials(connections(key=key))
    assert "canary" not in str(caught.value)


def test_a_user_with_a_colon_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has a colon"):
        BasicAuth(Secret("key")).credentials(connections(key="a:b"))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="HEADWATER_CLIENT_SECRET"):
        OAUTH.credentials(EnvironmentConnections({"HEADWATER_CLIENT": "a", "HEADWATER_TOKEN_URL": "b"}))
    assert [need.name for need in OAUTH.requirements] == ["token_url", "client", "client_secret"]


# Tokens.


class Guarded:
    """An API behind tokens, each good for so many requests."""

    def __init__(self, uses: int = 1_000_000, **grant: Any) -> None:
        self.uses = uses
        self.grant = {"token_type": "Bearer", **grant}
        self.left: dict[str, int] = {}
        self.granted: list[Asked] = []
        self.token_pause = 0.0
        self.lock = threading.Lock()

    def __call__(self, asked: Asked, line: Line) -> None:
        if asked.path == "/token":
            time.sleep(self.token_pause)
            with self.lock:
                self.granted.append(asked)
                token = f"token-{len(self.granted)}"
                self.left[token] = self.uses
            line.send(answer({"access_token": token, **self.grant}))
            return
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        with self.lock:
            self.left[token] = self.left.get(token, 0) - 1
            is_good = self.left[token] >= 0
        line.send(answer([{"id": 1}]) if is_good else answer({"error": f"{token} has expired"}, 401))


@pytest.mark.parametrize("authentication", ClientAuthentication)
def test_a_token_is_fetched_with_the_first_request_and_used_for_all(authentication: ClientAuthentication) -> None:
    auth = OAuth2ClientCredentials(
        token_url=Setting("token_url"),
        client_id=Setting("client"),
        client_secret=Secret("client_secret"),
        scope="read all",
        audience="https://api.example.com",
        authentication=authentication,
    )
    guarded = Guarded(expires_in=3600)
    with wire(guarded) as source, client(source, auth) as ours:
        assert not source.asked
        for _ in range(3):
            ours.fetch(Request("/things"))
    [asked] = guarded.granted
    form = {"grant_type": "client_credentials", "scope": "read all", "audience": "https://api.example.com"}
    assert (asked.method, asked.target) == ("POST", "/token")
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    if authentication is ClientAuthentication.POST:
        assert asked.form == {**form, "client_id": "the client", "client_secret": KEY}
        assert "authorization" not in asked.headers
    else:
        assert asked.form == form
        shown = b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
        assert shown == f"the+client:{quote_plus(KEY)}"  # RFC 6749, 2.3.1


def test_a_token_is_renewed_before_it_expires() -> None:
    guarded = Guarded(expires_in="1")
    with wire(guarded) as source, client(source, OAUTH) as ours:
        ours.fetch(Request("/things"))
        ours.fetch(Request("/things"))
        time.sleep(0.92)  # nine tenths are over
        ours.fetch(Request("/things"))
    assert len(guarded.granted) == 2


def test_a_token_that_is_refused_is_renewed_once_and_the_request_repeated() -> None:
    guarded = Guarded(uses=2)
    with wire(guarded) as source, client(source, OAUTH) as ours:
        for _ in range(6):
            assert ours.fetch(Request("/things")).body == b'[{"id": 1}]'
    assert len(guarded.granted) == 3
    assert len(source.asked) == 6 + 3 + 2


def test_a_token_that_runs_out_while_its_request_is_retried_is_renewed_again() -> None:
    guarded = Guarded()
    statuses = [401, 500, 401, 200]

    def reply(asked: Asked, line: Line) -> None:
        if asked.path == "/token":
            guarded(asked, line)
        else:
            line.send(answer([], statuses.pop(0)))

    policy = RetryPolicy(attempts=4, wait_initial=0.001)
    with wire(reply) as source:
        credentials = OAUTH.credentials(connections(source))
        with HttpClient(source.url, credentials=credentials, policy=policy) as ours:
            ours.fetch(Request("/things"))
    assert [asked.path for asked in source.asked] == ["/token", "/things"] * 2 + ["/things", "/token", "/things"]


def test_a_new_token_that_is_refused_too_is_no_use() -> None:
    guarded = Guarded(uses=0)
    with wire(guarded) as source, pytest.raises(ConfigurationError, match="answered 401") as caught:
        read(source, OAUTH)
    assert [asked.path for asked in source.asked] == ["/token", "/things"] * 2
    assert "token-" not in str(caught.value)


@pytest.mark.parametrize("why", ["expired", "refused"])
def test_threads_that_find_a_token_gone_cause_one_request_for_another(why: str) -> None:
    guarded = Guarded(**({"expires_in": 0.3} if why == "expired" else {}))
    guarded.token_pause = 0.1
    threads = 12
    with wire(guarded) as source, client(source, OAUTH) as ours, ThreadPoolExecutor(threads) as pool:
        ours.fetch(Request("/things"))
        assert len(guarded.granted) == 1
        guarded.grant["expires_in"] = 3600
        if why == "expired":
            time.sleep(0.3)
        else:
            guarded.left["token-1"] = 0
        together = threading.Barrier(threads)

        def fetch(_: int) -> bytes:
            together.wait()
            return ours.fetch(Request("/things")).body

        assert set(pool.map(fetch, range(threads))) == {b'[{"id": 1}]'}
    assert len(guarded.granted) == 2


def test_a_token_endpoint_is_as_unreliable_as_any_other() -> None:
    guarded = Guarded()
    faults = [answer(status=503), answer(b"<html>"), answer({"error": "busy"}), answer(b'{"access_token": "x"')]

    def reply(asked: Asked, line: Line) -> None:
        if asked.path == "/token" and faults:
            line.send(faults.pop())
        else:
            guarded(asked, line)

    with (
        wire(reply) as source,
        HttpClient(
            source.url, credentials=OAUTH.credentials(connections(source)), policy=RetryPolicy(wait_initial=0.001)
        ) as ours,
    ):
        assert ours.fetch(Request("/things")).body == b'[{"id": 1}]'


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        (answer({"token_type": "Bearer"}), "is not one of RFC 6749"),
        (answer({"access_token": "canary", "token_type": "mac"}), "another type than Bearer"),
        (answer({"access_token": "canary\n", "token_type": "bearer"}), "no header can carry"),
        (answer({"access_token": "canary", "expires_in": "soon"}), "is not one of RFC 6749"),
        (answer(b'{"access_token": "canary"'), "is not one of RFC 6749"),
    ],
)
def test_an_answer_that_is_no_token_is_refused_and_not_repeated(grant: bytes, why: str) -> None:
    with wire(lambda _, line: line.send(grant)) as source, pytest.raises(MalformedResponseError, match=why) as caught:
        read(source, OAUTH)
    assert len(source.asked) == QUICK.attempts
    assert "canary" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("status", [400, 401])
def test_a_client_that_is_refused_is_named_at_once(status: int) -> None:
    def reply(asked: Asked, line: Line) -> None:
        line.send(answer({"error": "invalid_client", "sent": f"{asked.headers} {KEY}"}, status))

    with wire(reply) as source, pytest.raises(ConfigurationError, match="invalid_client") as caught:
        read(source, OAUTH)
    assert len(source.asked) == 1
    assert f"/token answered {status}" in str(caught.value)
    assert _forms_in(str(caught.value), KEY) == []


def test_a_token_endpoint_that_redirects_gets_no_secret_to_anywhere() -> None:
    with (
        wire(lambda _, line: line.send(answer([]))) as stranger,
        wire(lambda _, line: line.send(answer({}, 307, Location=stranger.url))) as source,
        pytest.raises(ConfigurationError, match="answered 307"),
    ):
        read(source, OAUTH)
    assert not stranger.asked


def test_a_source_that_wants_to_be_left_alone_is_not_asked_for_tokens_either() -> None:
    guarded = Guarded(uses=1)
    held: list[float] = []

    def reply(asked: Asked, line: Line) -> None:
        if asked.path != "/token" and not held:
            held.append(time.monotonic() + 0.5)
            line.send(answer({}, 429, Retry_After="0.5"))
        else:
            guarded(asked, line)

    with (
        wire(reply) as source,
        HttpClient(
            source.url,
            credentials=OAuth2ClientCredentials(
                Setting("token_url"), Setting("client"), Secret("client_secret")
            ).credentials(connections(source)),
            policy=RetryPolicy(attempts=4, wait_initial=0.001, read_timeout=2),
        ) as ours,
    ):
        guarded.grant["expires_in"] = 0.01  # gone as soon as it is there
        ours.fetch(Request("/things"))
    assert all(asked.at >= held[0] for asked in source.asked[2:])


# Secrets.


def _forms_in(text: str, secret: str) -> list[str]:
    """In which forms a secret is in a text."""
    forms = {
        "as it is": secret,
        "percent-encoded": quote(secret, safe=""),
        "percent-encoded, slashes not": quote(secret),
        "as in a form": quote_plus(secret),
        "base64": b64encode(secret.encode()).decode().rstrip("=")[:-1],
        "base64 for addresses": urlsafe_b64encode(secret.encode()).decode().rstrip("=")[:-1],
        "JSON": json.dumps(secret)[1:-1],
        "HTML": html.escape(secret),
    }
    return [name for name, form in forms.items() if form in text]


secrets = st.text(min_size=4, max_size=40)


@given(secrets, secrets, st.text(max_size=20), st.text(max_size=20), st.integers(0, 3))
def test_no_form_of_a_secret_is_left_in_a_text(secret: str, other: str, before: str, after: str, shift: int) -> None:
    assume("*" not in secret)
    hidden = "~" * shift + secret + "~"
    forms = [
        secret,
        quote(secret, safe=""),
        quote(secret, safe="").lower(),
        quote_plus(secret),
        json.dumps(secret),
        repr(secret),
        html.escape(secret),
        b64encode(hidden.encode()).decode(),
        urlsafe_b64encode(hidden.encode()).decode(),
    ]
    for form in forms:
        text = Mask([secret, other])(before + form + after)
        assert _forms_in(text, secret) == []
        assert "***" in text


@given(secrets, st.text(max_size=20), st.integers(1, 39))
def test_no_beginning_of_a_secret_is_left_at_the_end_of_a_text_that_was_cut(
    secret: str, before: str, kept: int
) -> None:
    assume("*" not in secret)
    text = Mask([secret])(before + "~" + secret[:kept])
    assert not any(text.endswith(secret[:length]) for length in range(4, len(secret) + 1))


def test_a_text_without_secrets_stays_as_it_is() -> None:
    assert Mask([])("a") == "a"
    assert Mask(["", "b"])("a") == "a"


@pytest.mark.parametrize(
    "auth",
    [
        ApiKeyHeader("X-Key", Secret("key")),
        ApiKeyQuery("key", Secret("key")),
        BearerToken(Secret("key")),
        BasicAuth(Setting("user"), Secret("key")),
        BasicAuth(Secret("key")),
        OAUTH,
        OAuth2ClientCredentials(
            Setting("token_url"), Setting("client"), Secret("client_secret"), authentication=ClientAuthentication.POST
        ),
    ],
)
@pytest.mark.parametrize("fails", ["refused", "unavailable", "redirected", "malformed", "link"])
def test_no_secret_is_in_any_message_or_log(auth: Auth, fails: str, caplog: pytest.LogCaptureFixture) -> None:
    """The source repeats everything it was sent, and everything that may be logged is."""
    guarded = Guarded()
    key = HEADER_KEY

    def reply(asked: Asked, line: Line) -> None:
        if asked.path == "/token":
            guarded(asked, line)
            return
        said = json.dumps([asked.target, asked.headers, dict(asked.parameters)])
        if fails == "refused":
            line.send(answer(said.encode(), 400))
        elif fails == "unavailable":
            line.send(answer(said.encode(), 500))
        elif fails == "redirected":
            line.send(answer(b"", 302, Location=f"http://{quote(key, safe='')}.example.com/{quote(said)}"))
        elif fails == "malformed":
            line.send(answer(b"no JSON: " + said.encode()))
        else:
            line.send(answer(b"x" + said.encode() + b"\r\nbroken"))

    caplog.set_level(logging.DEBUG)
    with wire(reply) as source, pytest.raises(HeadwaterError) as caught:
        read(source, auth)
    error = caught.value
    told = f"{error} {error!r} {error.__cause__!r} {auth!r} {auth.credentials(connections(source))!r}"
    for secret in (HEADER_KEY, KEY, "token-1"):
        assert _forms_in(told, secret) == []
        assert _forms_in(caplog.text, secret) == []


def test_credentials_show_nothing_of_themselves() -> None:
    token = OAUTH.credentials(connections())
    basic = BasicAuth(Setting("user"), Secret("key")).credentials(connections())
    assert _forms_in(f"{token!r} {basic!r} {basic.signature!r}", KEY) == []
    assert "Basic" not in f"{basic!r} {basic.signature!r}"


def test_a_source_that_refuses_credentials_is_not_asked_again() -> None:
    with wire(lambda _, line: line.send(answer({}, 401))) as source, pytest.raises(ConfigurationError):
        read(source, BearerToken(Secret("key")))
    assert len(source.asked) == 1


def test_a_token_endpoint_that_is_away_makes_the_source_unavailable() -> None:
    with (
        wire(lambda _, line: line.send(answer({}, 503))) as source,
        pytest.raises(SourceUnavailableError, match="/token"),
    ):
        read(source, OAUTH)
    assert len(source.asked) == QUICK.attempts
