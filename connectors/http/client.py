"""One thin client over httpx: every request has a deadline, every retry a cap, and each status one meaning.

Retries happen here and nowhere else: a task or flow that retried as well would multiply them. httpx is used below its
own client, which writes every address to the log, with the keys that some of them hold.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

import httpx

from connectors.errors import HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.http.exchange import CredentialsRefusedError, Exchanges
from connectors.http.limits import Limits, RetryPolicy
from connectors.http.message import Answer, Request, Signature
from connectors.masking import Mask

__all__ = ["Answer", "Credentials", "FixedCredentials", "HttpClient", "Limits", "Request", "RetryPolicy", "Signature"]

T = TypeVar("T")

_log = logging.getLogger("headwater.http")


class Credentials(Protocol):
    """What requests to the source's own origin are signed with, from any thread; `http.auth` has the kinds."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may repeat."""
        ...

    def sign(self, client: HttpClient) -> Signature:
        """What the next request of this client carries; a token may be fetched by one made with `client.elsewhere`.

        Raises:
            HeadwaterError: there is nothing to sign with.
        """
        ...

    def renew(self, refused: Signature) -> bool:
        """The source has refused this signature: whether the next one is another."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """Credentials that stay as they are."""

    signature: Signature = field(default_factory=Signature)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def sign(self, client: HttpClient) -> Signature:  # noqa: ARG002 - part of the protocol, for tokens
        return self.signature

    def renew(self, refused: Signature) -> bool:  # noqa: ARG002 - part of the protocol, for tokens
        return False


class HttpClient:
    """Fetches whole bodies from one origin, and from those that it is allowed besides, for as many threads as ask.

    Use as a context manager: when it is left, whoever waits in it is given up, and an error on its way out is cleared
    of secrets. `transport` is the seam for tests.

    Args:
        quotes: whether messages may show what the source sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials | None = None,
        policy: RetryPolicy | None = None,
        limits: Limits | None = None,
        allowed_origins: tuple[str, ...] = (),
        allow_private_addresses: bool = False,
        transport: httpx.BaseTransport | None = None,
        quotes: bool = True,
    ) -> None:
        self._credentials = credentials or FixedCredentials()
        self._policy = policy or RetryPolicy()
        self._exchanges = Exchanges(
            base_url,
            self._policy,
            limits or Limits(),
            allowed_origins=allowed_origins,
            allow_private_addresses=allow_private_addresses,
            transport=transport,
            mask=self._mask,
            quotes=quotes,
        )
        self._like_this = partial(
            HttpClient,
            policy=policy,
            limits=limits,
            allow_private_addresses=allow_private_addresses,
            transport=transport,
            quotes=quotes,
        )
        self._others: list[HttpClient] = []
        self._lock = threading.Lock()
        self._requests = 0
        self._retries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, HeadwaterError):
            self._clear(error)
        self._exchanges.close()
        for other in self._others:
            other.__exit__(None, None, None)

    @property
    def requests(self) -> int:
        """How many requests were made so far, tries that failed included."""
        return self._requests + self._retries

    def elsewhere(self, url: str, credentials: Credentials | None = None) -> HttpClient:
        """A client by the same rules for another address that the operator has named; it is closed with this one."""
        other = self._like_this(url, credentials=credentials)
        self._others.append(other)
        return other

    def fetch(self, request: Request) -> Answer:
        """A successful answer; see `read`."""
        return self.read(request, lambda answer: answer)

    def read(self, request: Request, reader: Callable[[Answer], T]) -> T:
        """What a reader makes of a successful answer. One that it finds malformed is asked for again.

        Raises:
            SourceUnavailableError: no usable answer after all attempts.
            ConfigurationError: the source refused the request in a way that a retry cannot mend, or names an address
                that must not be gone to. NotFoundError: it has nothing there.
            MalformedResponseError: the last attempt brought something that is not what was asked for.
        """
        try:
            return self._read(request, reader)
        except HeadwaterError as error:
            self._clear(error)
            raise

    def _read(self, request: Request, reader: Callable[[Answer], T]) -> T:
        url = self._exchanges.address(request)
        with self._lock:
            self._requests += 1
        attempt = 0
        is_renewed = False
        while True:
            attempt += 1
            signature = self._credentials.sign(self)
            try:
                return reader(self._exchanges.answer(request, url, signature))
            except CredentialsRefusedError as refusal:
                if is_renewed or attempt >= self._policy.attempts or not self._credentials.renew(signature):
                    raise
                is_renewed = True
                self._check_budget(refusal)
            except (SourceUnavailableError, MalformedResponseError) as trouble:
                is_renewed = False  # what follows a wait may have run out again
                if attempt >= self._policy.attempts or self._exchanges.is_over:
                    raise
                self._check_budget(trouble)
                self._wait(attempt, trouble, url)

    def _check_budget(self, trouble: HeadwaterError) -> None:
        """Count a retry.

        Raises:
            The trouble itself: the load has had too many.
        """
        with self._lock:
            if self._retries >= self._policy.retries_of(self._requests):
                self._clear(trouble)
                trouble.what += f" It is one of {self._retries + 1} failures in {self._requests} requests of this load."
                raise trouble
            self._retries += 1

    def _wait(self, attempt: int, trouble: HeadwaterError, url: httpx.URL) -> None:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - it keeps threads from coming back together, and is no secret
        seconds = min(self._policy.wait_max, self._policy.wait_initial * 2 ** (attempt - 1) * jitter)
        self._clear(trouble)
        _log.info("%s Attempt %s of %s follows.", trouble.what, attempt + 1, self._policy.attempts)
        self._exchanges.wait(seconds, url)

    def _mask(self) -> Mask:
        return Mask(self._credentials.secrets)

    def _clear(self, error: HeadwaterError) -> None:
        """Take our secrets out of an error: a source may repeat them, and a link may hold them."""
        mask = self._mask()
        error.what, error.remedy = mask(error.what), mask(error.remedy)
        error.args = (error.what,)
