"""Which addresses a source may be at, and which it may send its reader to.

The address that an operator gives a source is taken at its word. What a source names itself (a redirect, a link to the
next page) stays within its origin, unless its definition lists another. And a name must not lead inside: loopback,
private, link-local (where clouds keep their machines' credentials), multicast and reserved addresses are refused
unless the source's address is itself written as one, or its definition allows them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from connectors.errors import ConfigurationError

_USUAL_PORT = {"http": ":80", "https": ":443"}
_NAT64 = IPv6Network("64:ff9b::/96")


def parse_origin(text: str) -> str:
    """An origin (scheme, host, port) as it is compared.

    Raises:
        ConfigurationError: it is none, or more than one.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.raw_path != b"/" or url.fragment:
        raise ConfigurationError(
            "One of the allowed_origins is no origin.",
            remedy="Write scheme and host, and the port if it is not the usual one: https://files.example.com.",
        )
    return origin_of(url)


def origin_of(url: httpx.URL) -> str:
    """Scheme, host and port: what one set of credentials is for."""
    host = url.netloc.decode()
    # httpx leaves the usual port in place where the scheme is written in capitals.
    return f"{url.scheme}://{host.removesuffix(_USUAL_PORT.get(url.scheme, ':'))}"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet; one that carries another inside is what that is."""
    ip = _innermost(ip_address(address.partition("%")[0]))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def is_named_private(host: str) -> bool:
    """Whether a host is written as the address of this machine or of a private network: nobody does so by mistake."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or (ip.is_private and not (ip.is_link_local or ip.is_unspecified or ip.is_reserved))


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, is this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _innermost(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
