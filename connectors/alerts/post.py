"""One POST to an address that the operator named: bounded, not redirected, and each status with one meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import httpx

from connectors.errors import (
    ChannelBrokenError,
    ChannelUnavailableError,
    HeadwaterError,
    MessageRefusedError,
)
from connectors.http.addresses import origin_of
from connectors.http.body import take_in
from connectors.http.status import seconds_to_wait
from connectors.http.transport import deadline, open_transport
from connectors.masking import Mask

_WORDS_BYTES = 64 << 10
_WORDS_SHOWN = 200
_SHORTEST_TOKEN = 8
_NOT_NOW = (408, 409, 423, 425, 429)
_NOT_THIS = (400, 413, 414, 415, 422, 431)
"""What is said of a request's own content; anything else below 500 is said of the address and of who asks."""


@dataclass(frozen=True, slots=True)
class Posted:
    """The answer to a message that was taken."""

    status: int
    words: str
    """The first words of the answer, on one line."""


def post(address: str, body: bytes, headers: Mapping[str, str], seconds: float, *, secrets: Iterable[str]) -> Posted:
    """Send JSON, and wait so many seconds for an answer at most.

    The address is the operator's own word, so it may be one of a private network; where an answer redirects to is not
    gone to.

    Raises:
        ChannelUnavailableError, ChannelBrokenError, MessageRefusedError: nothing of what they say holds a secret.
    """
    mask = Mask(secrets)
    url = _parsed(address)
    request = httpx.Request(
        "POST",
        url,
        headers={"User-Agent": "headwater", "Content-Type": "application/json", **headers},
        content=body,
        extensions={"timeout": httpx.Timeout(seconds).as_dict()},
    )
    try:
        with deadline(seconds), open_transport(url, allow_private_addresses=True) as transport:
            response = transport.handle_request(request)
            try:
                return _meaning(response, origin_of(url), _words(response, mask))
            finally:
                response.close()
    except httpx.TransportError as error:
        kind = mask(f"{type(error).__name__}: {error}")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ChannelBrokenError(
                f"{origin_of(url)} shows a certificate that cannot be trusted ({kind}).",
                remedy="If it is signed by an authority of your own, name its file in SSL_CERT_FILE.",
            ) from None
        raise ChannelUnavailableError(
            f"{origin_of(url)} did not take the message within {seconds:.0f} s ({kind}).",
            remedy="It is tried again; if it lasts, look at the way from this machine to it.",
        ) from None


def secrets_of_address(address: str) -> tuple[str, ...]:
    """What no text may repeat of an address by which one may post.

    Not the host, nor words at the beginning of the path: they are in texts that mean something else.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # no address: nothing is sent there
        return ()
    segments = parts.path.strip("/").split("/")
    while segments and segments[0].isalpha() and segments[0].islower():
        segments.pop(0)
    tokens = ["/".join(segments), segments[-1] if segments else "", parts.password or ""]
    tokens += [value for _, value in parse_qsl(parts.query)]
    return tuple(dict.fromkeys(token for token in tokens if len(token) >= _SHORTEST_TOKEN))


def _parsed(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ChannelBrokenError("The channel's address is none.", remedy="Write it with https:// and a host.")
    return url


def _meaning(response: httpx.Response, origin: str, words: str) -> Posted:
    status = response.status_code
    if 200 <= status < 300:
        return Posted(status, words)
    what = f"{origin} answered {status}" + (f": {words.rstrip('.')}." if words else ".")
    if status >= 500 or status in _NOT_NOW:
        headers = dict(response.headers.items())
        raise ChannelUnavailableError(
            what,
            remedy="It is tried again; if it lasts, look at its status page.",
            seconds=seconds_to_wait(status, headers, datetime.now(UTC)),
        )
    if status in _NOT_THIS:
        raise MessageRefusedError(what, remedy="It is tried again; `headwater alerts test` says whether others pass.")
    raise ChannelBrokenError(what, remedy="Set a new address or key, then say `headwater alerts test`.")


def _words(response: httpx.Response, mask: Mask) -> str:
    """What an answer says, as far as it can be read: the status counts, whatever became of the words."""
    headers = dict(response.headers.items())
    try:
        text = take_in(cast(httpx.SyncByteStream, response.stream), headers, _WORDS_BYTES, "")
    except (httpx.TransportError, HeadwaterError):
        return ""
    return mask(" ".join(text.decode("utf-8", "replace").split()))[:_WORDS_SHOWN]
