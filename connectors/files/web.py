"""Files on a web server, which does not say which there are: the stream's pattern names them, date by date.

Bodies are streamed. One that breaks off is taken up again where it broke, if the file is still the same.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Self, cast
from urllib.parse import quote

import httpx

from connectors.errors import ConfigurationError, MalformedResponseError, SourceUnavailableError
from connectors.files.places import Found, changed, dates
from connectors.formats.file_streams import DATE, FileStream
from connectors.http.addresses import origin_of
from connectors.http.client import Credentials, FixedCredentials, HttpClient, RetryPolicy, Signature
from connectors.http.status import Action, action_for, seconds_to_wait
from connectors.http.transport import deadline, open_transport
from connectors.masking import Mask
from connectors.model import FileVersion, Window

_HASHED = "sha256:"
"""Begins the versions of files whose server gives them none."""
_NO_HEAD = (405, 501)

_log = logging.getLogger("headwater.http")


class _NoFileError(Exception):
    """There is no such file, or not in that version."""


class _NotNowError(SourceUnavailableError):
    """Carries the seconds that the server asked to wait."""

    seconds: float = 0.0


class WebPlace:
    """The files below one address; see `connectors.files.places.Place`. Redirects are not followed.

    httpx is used below its own client, as in `connectors.http.client`, which fetches whole bodies.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None,
        policy: RetryPolicy,
        allow_private_addresses: bool,
    ) -> None:
        self._policy = policy
        self._credentials = credentials or FixedCredentials()
        # It checks the address, and may fetch a token.
        self._client = HttpClient(address, policy=policy, allow_private_addresses=allow_private_addresses)
        self._base = httpx.URL(address)
        self._transport = open_transport(self._base, allow_private_addresses=allow_private_addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()
        self._client.__exit__(None, None, None)

    def files(self, stream: FileStream, window: Window | None) -> list[Found]:
        """See `connectors.files.places.Place`. A path without a date has to exist; of the dates, some may not."""
        if "*" in stream.pattern or (DATE in stream.pattern and stream.days is None):
            raise ConfigurationError(
                f"The files of `{stream.pattern}` cannot be known: a web server does not list them.",
                remedy="Name the path, or put {date} into it and give the stream `days`.",
                stream=stream.name,
            )
        days = dates(window, stream.days or 1, datetime.now(UTC).date()) if DATE in stream.pattern else [None]
        found = []
        for day in days:
            path = stream.pattern.replace(DATE, day.isoformat()) if day is not None else stream.pattern
            try:
                found.append(self._found(path))
            except _NoFileError:
                if day is None:
                    raise ConfigurationError(
                        f"There is no {self._name(path)}.", remedy="Correct the stream's pattern, or the address."
                    ) from None
        return found

    def version(self, path: str) -> FileVersion | None:
        """See `connectors.files.places.Place`."""
        try:
            return self._found(path).file
        except _NoFileError:
            return None

    def read(self, file: FileVersion) -> Iterator[bytes] | None:
        """See `connectors.files.places.Place`."""
        blocks = self._hashed(file) if file.version.startswith(_HASHED) else self._blocks(file.path, file.version)
        try:
            return chain([next(blocks, b"")], blocks)
        except _NoFileError:
            return None

    def _found(self, path: str) -> Found:
        method, attempt = "HEAD", 1
        while True:
            try:
                with self._answer(method, path) as response:
                    if method == "HEAD" and response.status_code in _NO_HEAD:
                        method = "GET"  # of which the headers are enough
                        continue
                    return self._described(path, response)
            except SourceUnavailableError as trouble:
                self._wait(attempt, trouble)
                attempt += 1

    def _described(self, path: str, response: httpx.Response) -> Found:
        version, size = _version_in(response), int(response.headers.get("Content-Length", 0))
        if version is None:
            digest, size = hashlib.sha256(), 0
            for block in self._blocks(path, None):
                digest.update(block)
                size += len(block)
            version = _HASHED + digest.hexdigest()
        return Found(FileVersion(path, version, size), _age(response))

    def _hashed(self, file: FileVersion) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for block in self._blocks(file.path, None):
            digest.update(block)
            yield block
        if _HASHED + digest.hexdigest() != file.version:
            raise changed(file)

    def _blocks(self, path: str, version: str | None) -> Iterator[bytes]:
        """A file's bytes, of one version. If they break off, another request brings the rest.

        Without a version, or with one that does not stand for single bytes (RFC 9110, 8.8.1), the rest could be that of
        another file.
        """
        came, attempt = 0, 1
        while True:
            try:
                with self._answer("GET", path, came) as response:
                    if version is not None and _version_in(response) != version:
                        if came:
                            raise changed(FileVersion(path, version, came))
                        raise _NoFileError
                    is_rest = response.headers.get("Content-Range", "").startswith(f"bytes {came}-")
                    surplus = 0 if is_rest else came
                    for block in self._received(path, response):
                        rest = block[surplus:]
                        surplus -= len(block) - len(rest)
                        came += len(rest)
                        yield rest
                    return
            except SourceUnavailableError as trouble:
                if came and (version is None or version.startswith("W/")):
                    raise
                self._wait(attempt, trouble)
                attempt += 1

    def _wait(self, attempt: int, trouble: SourceUnavailableError) -> None:
        """Leave the server alone for a while.

        Raises:
            The trouble itself: it was the last attempt, or would last longer than a run waits.
        """
        if attempt >= self._policy.attempts:
            raise trouble
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        seconds = min(self._policy.wait_max, self._policy.wait_initial * 2 ** (attempt - 1) * jitter)
        _log.info("%s Attempt %s of %s follows.", trouble.what, attempt + 1, self._policy.attempts)
        time.sleep(max(seconds, getattr(trouble, "seconds", 0.0)))

    @contextmanager
    def _answer(self, method: str, path: str, start: int = 0) -> Iterator[httpx.Response]:
        """A successful answer (or that there is no HEAD) to a request for a file, from a byte on. A server may send all
        of it even so.

        Raises:
            _NoFileError: there is no such file.
            ConfigurationError: the server refused the request.
            SourceUnavailableError: it may give the file later, or broke off.
        """
        signature = self._credentials.sign(self._client)
        headers = {"User-Agent": "headwater", "Accept": "*/*", "Accept-Encoding": "identity", **signature.headers}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = httpx.Timeout(self._policy.read_timeout, connect=self._policy.connect_timeout).as_dict()
        url = self._url(path)
        if signature.parameters:
            url = url.copy_merge_params(dict(signature.parameters))
        call = httpx.Request(method, url, headers=headers, extensions={"timeout": timeout})
        try:
            with deadline(self._policy.total_timeout):
                response = self._transport.handle_request(call)
            try:
                self._check(method, path, response, signature)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            reason = Mask(self._credentials.secrets)(f"{type(error).__name__}: {error}")
            raise SourceUnavailableError(
                f"{self._name(path)} broke off or did not answer ({reason}).",
                remedy="If it lasts, check that the server runs, and the way there.",
            ) from None

    def _check(self, method: str, path: str, response: httpx.Response, signature: Signature) -> None:
        status = response.status_code
        if status in (404, 410, 416):
            raise _NoFileError
        action, meaning, remedy = action_for(status)
        if (
            action is Action.ACCEPT
            or status == httpx.codes.PARTIAL_CONTENT
            or (method == "HEAD" and status in _NO_HEAD)
        ):
            return
        what = f"{self._name(path)} answered {status}. {meaning}"
        if action is Action.RENEW and self._credentials.renew(signature):
            raise SourceUnavailableError(what, remedy=remedy)
        if action is not Action.RETRY:
            raise ConfigurationError(what, remedy=remedy)
        later = _NotNowError(what, remedy=remedy)
        later.seconds = seconds_to_wait(status, dict(response.headers.items()), datetime.now(UTC)) or 0.0
        if later.seconds > self._policy.wait_max:
            raise ConfigurationError(what, remedy="The next scheduled run tries again.")
        raise later

    def _received(self, path: str, response: httpx.Response) -> Iterator[bytes]:
        """The bytes of an answer.

        Raises:
            MalformedResponseError: it is no file, or it could not be told whether it is all of one.
        """
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise MalformedResponseError(
                f"{self._name(path)} is a web page, no file.", remedy="Check the address, and whether it wants a login."
            )
        if "Content-Length" not in response.headers and "chunked" not in response.headers.get("Transfer-Encoding", ""):
            raise MalformedResponseError(
                f"{self._name(path)} comes without a length, so nobody could tell whether it is whole.",
                remedy="Have the server send Content-Length.",
            )
        blocks = iter(cast(httpx.SyncByteStream, response.stream))
        while True:
            with deadline(self._policy.total_timeout):  # for each block anew: a file may take hours
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _url(self, path: str) -> httpx.URL:
        path, mark, query = path.partition("?")
        base = str(self._base).rstrip("/")
        return httpx.URL(f"{base}/{quote(path)}{mark}{query}")

    def _name(self, path: str) -> str:
        """The file's address without what may be secret in it."""
        return f"{origin_of(self._base)}{self._base.path.rstrip('/')}/{path.partition('?')[0]}"


def _version_in(response: httpx.Response) -> str | None:
    if etag := response.headers.get("ETag"):
        return str(etag)
    if "Last-Modified" not in response.headers:
        return None
    # Of a part, the size of the whole stands behind the stroke.
    size = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length")
    return f"{size}@{response.headers['Last-Modified']}"


def _age(response: httpx.Response) -> float | None:
    """Seconds since the file was changed, by the server's own clock."""
    try:
        modified = parsedate_to_datetime(response.headers["Last-Modified"])
        now = parsedate_to_datetime(response.headers["Date"])
        return max((now - modified).total_seconds(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None
