"""One thin client over httpx: every request has a deadline, every retry a cap, and each status one meaning.

Retries happen here and nowhere else: a task or flow that retried as well would multiply them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from types import TracebackType
from typing import Self

import httpx
import stamina

from connectors.errors import (
    ConfigurationError,
    HeadwaterError,
    MalformedResponseError,
    NotFoundError,
    SourceUnavailableError,
)


class Action(Enum):
    """What to do about a status."""

    ACCEPT = auto()
    RETRY = auto()
    WAIT = auto()
    """Retry, but not before the time that the answer's Retry-After names."""
    FAIL = auto()


_BY_STATUS = {
    401: (
        Action.FAIL,
        "The credentials were refused.",
        "Check the key or token in its block or environment variable.",
    ),
    403: (
        Action.FAIL,
        "The credentials do not allow this.",
        "Ask the source's owner for access to this path.",
    ),
    404: (Action.FAIL, "The path does not exist.", "Check base_url and the stream's path."),
    408: (Action.RETRY, "The source took too long.", "It is retried; if it lasts, ask for smaller pages."),
    425: (Action.RETRY, "The source is not ready.", "It is retried."),
    429: (
        Action.WAIT,
        "The source limits the rate.",
        "It is obeyed; if it lasts, schedule the stream less often.",
    ),
    503: (Action.WAIT, "The source is unavailable.", "It is retried; look at the source's status."),
}
"""Status → (action, what it means, what to do). Other 4xx fail, other 5xx are retried, 3xx fail."""


def action_for(status: int) -> tuple[Action, str, str]:
    """What a status means: the action, a sentence, and what to do."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 200 <= status < 300:
        return Action.ACCEPT, "", ""
    if 300 <= status < 400:
        return (
            Action.FAIL,
            "The source redirects; credentials are never sent on to another address.",
            "Put the final address into base_url.",
        )
    if status >= 500:
        return (
            Action.RETRY,
            "The source failed.",
            "It is retried; if it lasts, report it to the source's owner.",
        )
    return (
        Action.FAIL,
        "The source refused the request.",
        "Check the stream's parameters against the source's manual.",
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient the client is."""

    attempts: int = 6
    wait_initial: float = 0.2
    """Seconds; doubles with each attempt, with jitter on top."""
    wait_max: float = 30.0
    """Seconds between two attempts at most; a longer Retry-After is not waited for but fails at once."""
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    """Seconds without a byte."""
    total_timeout: float = 300.0
    """Seconds for one whole answer: a source that sends a byte now and then is given up too."""


class _RetryAfterError(SourceUnavailableError):
    """Carries the seconds that the source asked to wait."""

    seconds: float = 0.0


def retry_after_seconds(value: str | None, now: datetime) -> float:
    """Seconds to wait by a Retry-After header in either of its forms (RFC 9110, 10.2.3): seconds or a date."""
    if not value:
        return 0.0
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a source."""

    url: str
    """A path below the client's base address, or a whole address of the same origin."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes | None = None
    """For POST: JSON."""
    accept: str = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, whole."""

    body: bytes
    """Decompressed."""
    headers: Mapping[str, str]
    """By name in lower case."""
    url: str
    """What was asked, parameters included: relative links start from it."""


class HttpClient:
    """Fetches whole bodies from one origin.

    Use as a context manager. `credentials` are headers that no message may repeat; `transport` is the seam for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Mapping[str, str] | None = None,
        policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._credentials = dict(credentials or {})
        url = httpx.URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError(
                f"`{base_url}` is not the address of an HTTP API.",
                remedy="Write it with http:// or https:// and a host.",
            )
        self._origin = f"{url.scheme}://{url.netloc.decode()}"
        self._client = httpx.Client(
            base_url=url,
            headers={"User-Agent": "headwater", **self._credentials},
            timeout=httpx.Timeout(self._policy.read_timeout, connect=self._policy.connect_timeout),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def fetch(self, request: Request) -> Answer:
        """A successful answer.

        Raises:
            SourceUnavailableError: no usable answer after all attempts.
            ConfigurationError: the source refused the request in a way that a retry cannot mend.
            MalformedResponseError: the body broke off in every attempt.
        """
        policy = self._policy

        def backoff(error: Exception) -> bool | float:
            if isinstance(error, _RetryAfterError):
                return error.seconds or True
            return isinstance(error, SourceUnavailableError | MalformedResponseError)

        for attempt in stamina.retry_context(
            on=backoff,
            attempts=policy.attempts,
            timeout=None,
            wait_initial=policy.wait_initial,
            wait_jitter=policy.wait_initial,
            wait_max=policy.wait_max,
        ):
            with attempt:
                return self._once(request)
        raise AssertionError("stamina always returns or raises")

    def _once(self, request: Request) -> Answer:
        started = time.monotonic()
        body = bytearray()
        path = request.url
        try:
            with self._client.stream(
                request.method,
                request.url,
                # httpx replaces the query of a whole address by what it is given, also by nothing.
                params=dict(request.parameters) or None,
                content=request.body,
                headers={"Accept": request.accept, **({"Content-Type": "application/json"} if request.body else {})},
            ) as response:
                for block in response.iter_bytes():
                    body += block
                    if time.monotonic() - started > (limit := self._policy.total_timeout):
                        raise SourceUnavailableError(
                            f"{self._origin}{path} did not finish its answer within {limit:.0f} s.",
                            remedy="It is retried; if it lasts, ask for smaller pages.",
                        )
        except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
            raise MalformedResponseError(
                f"The answer of {self._origin}{path} broke off: {error}.",
                remedy="It is retried; if it lasts, ask for smaller pages.",
            ) from error
        except httpx.TransportError as error:
            waited = time.monotonic() - started
            raise SourceUnavailableError(
                f"{self._origin} did not answer within {waited:.1f} s ({type(error).__name__}: {error}).",
                remedy="Check that the source runs and that its address is right.",
            ) from error
        action, meaning, remedy = action_for(response.status_code)
        if action is Action.ACCEPT:
            return Answer(
                bytes(body), {name.lower(): value for name, value in response.headers.items()}, str(response.url)
            )
        what = f"{self._origin}{path} answered {response.status_code}. {meaning}{self._own_words(body)}"
        raise self._refusal(action, what, remedy, response)

    def _refusal(self, action: Action, what: str, remedy: str, response: httpx.Response) -> HeadwaterError:
        if action is Action.FAIL:
            kind = NotFoundError if response.status_code in (404, 410) else ConfigurationError
            return kind(what, remedy=remedy)
        if action is Action.RETRY:
            return SourceUnavailableError(what, remedy=remedy)
        seconds = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        if seconds > self._policy.wait_max:
            return ConfigurationError(
                f"{what} It asks to be left alone for {seconds:.0f} s, longer than the {self._policy.wait_max:.0f} s "
                "that a run waits.",
                remedy="The next scheduled run tries again.",
            )
        waiting = _RetryAfterError(what, remedy=remedy)
        waiting.seconds = seconds
        return waiting

    def _own_words(self, body: bytes | bytearray) -> str:
        """The first words of a refusal, on one line, less our credentials: it usually names the parameter at fault."""
        text = body.decode("utf-8", "replace")
        for value in self._credentials.values():
            text = text.replace(value, "***")
        text = " ".join(text[:300].split())
        return f" It says: {text}" if text else ""
