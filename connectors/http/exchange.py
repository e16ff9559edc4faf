"""One request and its answer: where it may go, how long it may take, what its status means. No retries here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import cast

import httpx

from connectors.errors import (
    ConfigurationError,
    HeadwaterError,
    MalformedResponseError,
    NotFoundError,
    SourceUnavailableError,
)
from connectors.http.addresses import origin_of, parse_origin
from connectors.http.body import ACCEPT_ENCODING, check_kind, take_in
from connectors.http.limits import Limits, RetryPolicy
from connectors.http.message import Answer, Request, Signature
from connectors.http.pace import PACES, Pace, Paces, left_alone
from connectors.http.status import Action, action_for, seconds_to_wait
from connectors.http.transport import deadline, open_transport
from connectors.masking import Mask

_REDIRECTS = 5
_WORDS_BYTES = 64 << 10
_WORDS_SECONDS = 5.0
_WORDS_SHOWN = 300


class CredentialsRefusedError(ConfigurationError):
    """The source does not take these credentials; newer ones perhaps."""


class Exchanges:
    """Requests to one origin, and to those that are allowed besides."""

    def __init__(
        self,
        base_url: str,
        policy: RetryPolicy,
        limits: Limits,
        *,
        allowed_origins: tuple[str, ...],
        allow_private_addresses: bool,
        transport: httpx.BaseTransport | None,
        mask: Callable[[], Mask],
        quotes: bool,
    ) -> None:
        self._base = _parse_base(base_url)
        self._origin = origin_of(self._base)
        self._origins = {self._origin, *map(parse_origin, allowed_origins)}
        self._policy = policy
        self._limits = limits
        self._allow_private_addresses = allow_private_addresses
        self._transport = transport
        # Behind a transport of their own hosts are not those of this name elsewhere.
        self._paces = PACES if transport is None else Paces()
        self._opened: dict[str, httpx.BaseTransport] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._mask = mask
        self._quotes = quotes

    def close(self) -> None:
        """Give up what waits, and what is under way."""
        self._is_over.set()
        for origin in self._origins:
            self._paces.of(origin).look_again()
        with self._lock:
            for transport in self._opened.values():
                transport.close()

    @property
    def is_over(self) -> bool:
        return self._is_over.is_set()

    def wait(self, seconds: float, url: httpx.URL) -> None:
        """Wait so long, after the time that the address's host has asked for; or until it is over."""
        self._is_over.wait(self._pace(url).seconds_held + seconds)

    def address(self, request: Request) -> httpx.URL:
        """Where a request goes.

        Raises:
            MalformedResponseError: it is no address, which only a link can be.
            ConfigurationError: it must not go there.
        """
        try:
            url = httpx.URL(request.url)
            if url.scheme or url.host:
                url = self._base.join(url)
            elif request.url:  # below the base's own path, also with a slash before it
                path = self._base.raw_path.rstrip(b"/") + b"/" + url.raw_path.lstrip(b"/")
                url = self._base.copy_with(raw_path=path)
            else:
                url = self._base
        except httpx.InvalidURL as error:
            raise MalformedResponseError(
                f"A link leads to what is no address ({error}).",
                remedy="Check what the stream's next page is taken from.",
            ) from None
        self._check_origin(url, f"A link leads to {origin_of(url)}")
        return _with_parameters(url, request.parameters)

    def answer(self, request: Request, url: httpx.URL, signature: Signature) -> Answer:
        """The answer to a request.

        Raises:
            CredentialsRefusedError: by status 401.
            HeadwaterError: as `HttpClient.read`.
        """
        for _ in range(_REDIRECTS + 1):
            answer = self._ask(request, url, signature)
            if isinstance(answer, Answer):
                return answer
            url = answer
        raise ConfigurationError(
            f"{_place(url)} is the end of {_REDIRECTS} redirects and redirects again.",
            remedy="Put the final address into base_url.",
        )

    def _ask(self, request: Request, url: httpx.URL, signature: Signature) -> Answer | httpx.URL:
        """The answer, or where it is."""
        headers = {"User-Agent": "headwater", "Accept": request.accept, "Accept-Encoding": ACCEPT_ENCODING}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        signed = url
        if origin_of(url) == self._origin:
            headers |= signature.headers
            signed = _with_parameters(url, signature.parameters)
        timeout = httpx.Timeout(self._policy.read_timeout, connect=self._policy.connect_timeout).as_dict()
        call = httpx.Request(
            request.method, signed, headers=headers, content=request.body, extensions={"timeout": timeout}
        )
        with (
            self._pace(url).turn(self._limits, self._policy.wait_max, self._is_over.is_set),
            deadline(self._policy.total_timeout),
        ):
            started = time.monotonic()
            response: httpx.Response | None = None
            try:
                response = self._transport_to(url).handle_request(call)
                return self._received(request, url, response)
            except httpx.TransportError as error:
                waited = time.monotonic() - started
                # What httpx says may quote what was sent: the cause is in the message, which is cleared of secrets.
                raise self._failure(error, url, waited, has_begun=response is not None) from None
            finally:
                if response is not None:
                    response.close()

    def _pace(self, url: httpx.URL) -> Pace:
        return self._paces.of(origin_of(url))

    def _transport_to(self, url: httpx.URL) -> httpx.BaseTransport:
        origin = origin_of(url)
        with self._lock:
            if origin not in self._opened:
                self._opened[origin] = self._transport or open_transport(
                    url, allow_private_addresses=self._allow_private_addresses
                )
            return self._opened[origin]

    def _received(self, request: Request, url: httpx.URL, response: httpx.Response) -> Answer | httpx.URL:
        status = response.status_code
        headers = dict(response.headers.items())
        action, meaning, remedy = action_for(status)
        if action is Action.ACCEPT:
            if status == 204:
                return Answer(b"", headers, str(url))
            body = take_in(_blocks(response), headers, self._limits.max_body_bytes, _place(url))
            check_kind(body, headers, request.accept, _place(url), quotes=self._quotes)
            return Answer(body, headers, str(url))
        if action is Action.FOLLOW and request.method == "GET" and "location" in headers:
            return self._redirected(url, status, headers["location"])
        seconds = seconds_to_wait(status, headers, datetime.now(UTC))
        if status == 403 and seconds is not None:
            action, meaning, remedy = action_for(429)
        if action is Action.RETRY and seconds is not None:
            self._pace(url).hold(seconds)  # before anything else: others may be about to ask
        what = f"{_place(url)} answered {status}. {meaning}{self._own_words(response, headers)}"
        if action is not Action.RETRY:
            kinds = {401: CredentialsRefusedError, 404: NotFoundError, 410: NotFoundError}
            raise kinds.get(status, ConfigurationError)(what, remedy=remedy)
        if seconds is not None and seconds > self._policy.wait_max:
            raise left_alone(f"{what} It", seconds, self._policy.wait_max)
        raise SourceUnavailableError(what, remedy=remedy)

    def _redirected(self, url: httpx.URL, status: int, location: str) -> httpx.URL:
        try:
            target = url.join(location)
        except httpx.InvalidURL:
            raise MalformedResponseError(
                f"{_place(url)} answered {status} and redirects to what is no address.",
                remedy="Ask the source's owner.",
            ) from None
        self._check_origin(target, f"{_place(url)} answered {status} and redirects to {origin_of(target)}")
        return target

    def _check_origin(self, url: httpx.URL, what: str) -> None:
        if origin_of(url) not in self._origins:
            raise ConfigurationError(
                f"{what}, which is not {self._origin}: credentials are never sent on to another address.",
                remedy="Correct base_url; or, if the data are there without credentials, name it in allowed_origins.",
            )

    def _failure(
        self, error: httpx.TransportError, url: httpx.URL, waited: float, *, has_begun: bool
    ) -> HeadwaterError:
        """What httpx's error means."""
        lasts = "If it lasts, check that the source runs, and the way there."
        kind = f"{type(error).__name__}: {error}"
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return ConfigurationError(
                f"{_place(url)} cannot be asked ({kind}).", remedy="Check the names of headers and the address."
            )
        if waited >= (total := self._policy.total_timeout):
            return SourceUnavailableError(f"{_place(url)} did not finish its answer within {total:g} s.", remedy=lasts)
        if has_begun and not isinstance(error, httpx.TimeoutException):
            return MalformedResponseError(f"The answer of {_place(url)} broke off ({kind}).", remedy=lasts)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ConfigurationError(
                f"{origin_of(url)} shows a certificate that cannot be trusted ({error}).",
                remedy="If it is signed by an authority of your own, name its file in SSL_CERT_FILE.",
            )
        return SourceUnavailableError(f"{origin_of(url)} did not answer within {waited:.1f} s ({kind}).", remedy=lasts)

    def _own_words(self, response: httpx.Response, headers: Mapping[str, str]) -> str:
        """The first words of a refusal, on one line, less our secrets: it usually names the parameter at fault."""
        if not self._quotes:
            return ""
        try:
            with deadline(_WORDS_SECONDS):
                text = take_in(_blocks(response), headers, _WORDS_BYTES, "").decode("utf-8", "replace")
        except (httpx.TransportError, HeadwaterError):
            return ""  # the status counts, whatever became of the words
        words = " ".join(self._mask()(text)[:_WORDS_SHOWN].split())
        return f" It says: {words}" if words else ""


def _parse_base(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(
            f"`{text.rpartition('@')[2]}` is not the address of an HTTP API.",
            remedy="Write it with http:// or https:// and a host.",
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(
            f"The address of {url.host} holds more than scheme, host, port and path.",
            remedy="Name credentials in the source's auth, and what follows a ? in the stream's parameters.",
        )
    return url


def _with_parameters(url: httpx.URL, parameters: Mapping[str, str]) -> httpx.URL:
    return url.copy_merge_params(dict(parameters)) if parameters else url


def _place(url: httpx.URL) -> str:
    """An address for messages, less its parameters, which may hold secrets."""
    return f"{origin_of(url)}{url.path}"


def _blocks(response: httpx.Response) -> httpx.SyncByteStream:
    """The body as it was sent. httpx's own decompression knows no bounds, and takes half a stream for a whole one."""
    return cast(httpx.SyncByteStream, response.stream)
