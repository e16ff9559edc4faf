"""The wire below the HTTP client: which addresses it connects to, and until when it waits for bytes.

httpx counts its timeouts from byte to byte, so a source that sends one now and then would be waited for for ever; here
every wait ends at the request's deadline too: for the connection, for TLS, for headers and for the body.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from connectors.errors import ConfigurationError
from connectors.http.addresses import is_named_private, is_public

_CONNECTIONS = 100
_KEEPALIVE_SECONDS = 30.0
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Every wait of this thread on the network ends so many seconds from now, by a timeout."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a filter's signature
    return _deadline.get() == math.inf


# httpcore writes the headers of answers to its debug log, where a source may repeat a key, or set a cookie.
logging.getLogger("httpcore.http11").addFilter(_is_not_ours)


def open_transport(url: httpx.URL, *, allow_private_addresses: bool) -> httpx.BaseTransport:
    """The way to an origin: direct, or through the proxy that the environment names for it (HTTPS_PROXY, NO_PROXY)."""
    proxy = _proxy_for(url)
    # Reading the trusted certificates takes longer than a request.
    is_secure = url.scheme == "https" or (proxy is not None and proxy.url.scheme == b"https")
    # A proxy is the operator's, wherever it is; and where the source is, only the proxy knows.
    network = _Network(allow_private_addresses or proxy is not None)
    return _Transport(httpx.create_ssl_context() if is_secure else None, proxy, network)


def _proxy_for(url: httpx.URL) -> httpcore.Proxy | None:
    proxies = urllib.request.getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    try:
        proxy = httpx.URL(address if "://" in address else f"http://{address}")
    except httpx.InvalidURL:
        proxy = httpx.URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise ConfigurationError(
            f"The proxy that the environment names for {url.scheme} addresses is none that speaks HTTP.",
            remedy="Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or put the host into NO_PROXY.",
        )
    target = httpcore.URL(scheme=proxy.raw_scheme, host=proxy.raw_host, port=proxy.port, target=b"/")
    return httpcore.Proxy(target, auth=(proxy.username, proxy.password) if proxy.userinfo else None)


class _Transport(httpx.HTTPTransport):
    """httpx's own, on a network of ours: it has no argument for that, httpcore below it has."""

    def __init__(self, context: ssl.SSLContext | None, proxy: httpcore.Proxy | None, network: _Network) -> None:
        # All that httpx does here is to make its pool.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            proxy=proxy,
            max_connections=_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=network,
        )


class _Network(httpcore.NetworkBackend):
    """Connects to the very addresses that it has checked: a name is looked up once, so it cannot change in between."""

    def __init__(self, allow_private_addresses: bool) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        at = time.monotonic() + _left(timeout, httpcore.ConnectTimeout)
        addresses = self._allowed(host, _addresses(host, port))
        for number, address in enumerate(addresses):
            left = max(at - time.monotonic(), 0.001) / (len(addresses) - number)
            try:
                return _Stream(self._sockets.connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    def _allowed(self, host: str, addresses: list[str]) -> list[str]:
        if self._allow_private_addresses or is_named_private(host):
            return addresses
        public = [address for address in addresses if is_public(address)]
        if addresses and not public:
            raise ConfigurationError(
                f"{host} leads to {addresses[0]}, which is no address of the open internet. Nothing was sent.",
                remedy="If it is meant to, say allow_private_addresses=True in the source's definition.",
            )
        return public


def _addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a host, the preferred one first."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter by names that are none
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
    """Seconds to wait for what is next."""
    left = min(timeout or math.inf, _deadline.get() - time.monotonic())
    if left <= 0:
        raise error("the deadline has passed")
    return left


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
