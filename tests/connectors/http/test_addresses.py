"""Where requests may go, and what they take there."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import Setting
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.http.addresses import is_named_private, is_public, parse_origin
from connectors.http.client import FixedCredentials, HttpClient, Request, RetryPolicy, Signature
from connectors.rest import RestSource
from tests.connectors.wire import Asked, Line, answer, wire

ONCE = RetryPolicy(attempts=1, connect_timeout=1, read_timeout=2)
KEY = FixedCredentials(Signature({"X-Key": "canary-71"}, {"key": "canary-72"}), ("canary-71", "canary-72"))


def client(url: str, **options: Any) -> HttpClient:
    return HttpClient(url, **{"credentials": KEY, "policy": ONCE, **options})


def redirecting(to: dict[str, str], status: int = 302) -> Any:
    """Answers with a redirect where it is told so, and with the path elsewhere."""

    def reply(asked: Asked, line: Line) -> None:
        line.send(answer({}, status, Location=to[asked.path]) if asked.path in to else answer({"at": asked.path}))

    return reply


def names(monkeypatch: pytest.MonkeyPatch, **addresses: list[str]) -> list[str]:
    """A resolver of names, which no test can have of its own otherwise. Each look-up takes the next address."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        name = str(host).partition(".")[0]
        if name not in addresses:
            return real(host, port, *rest, **more)
        looked_up.append(name)
        return [
            entry
            for address in addresses[name].pop(0).split()
            for entry in real(address, port, type=socket.SOCK_STREAM)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return looked_up


# Redirects and links.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_origin_is_followed_with_credentials(status: int) -> None:
    with wire(redirecting({"/a": "/b?x=1", "/b": "c"}, status)) as source, client(source.url) as ours:
        found = ours.fetch(Request("/a", {"p": "1"}))
    assert found.body == b'{"at": "/c"}'
    assert found.url == f"{source.url}/c"
    assert [asked.path for asked in source.asked] == ["/a", "/b", "/c"]
    assert {asked.headers["x-key"] for asked in source.asked} == {"canary-71"}
    assert [asked.parameters for asked in source.asked] == [
        {"p": "1", "key": "canary-72"},
        {"x": "1", "key": "canary-72"},
        {"key": "canary-72"},
    ]


def test_redirects_in_a_circle_end() -> None:
    with (
        wire(redirecting({"/a": "/b", "/b": "/a"})) as source,
        client(source.url) as ours,
        pytest.raises(ConfigurationError, match="redirects again"),
    ):
        ours.fetch(Request("/a"))
    assert len(source.asked) == 6


def test_what_is_asked_by_post_is_not_redirected() -> None:
    with (
        wire(redirecting({"/a": "/b"}, 307)) as source,
        client(source.url) as ours,
        pytest.raises(ConfigurationError, match="answered 307"),
    ):
        ours.fetch(Request("/a", method="POST", body=b"{}"))
    assert len(source.asked) == 1


@pytest.mark.parametrize("location", ["http://[", "http://x:port/"])
def test_a_redirect_to_no_address_is_refused(location: str) -> None:
    with wire(redirecting({"/a": location})) as source, client(source.url) as ours, pytest.raises(HeadwaterError):
        ours.fetch(Request("/a"))
    assert len(source.asked) == 1


@pytest.mark.parametrize("way", ["redirect", "link"])
@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://localhost:{port}/b",  # the same machine by another name
        "https://127.0.0.1:{port}/b",
        "http://127.0.0.1:1/b",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/b",
        "//example.com/b",
        "http://127.0.0.1:{port}@example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_another_origin_is_never_gone_to(way: str, elsewhere: str) -> None:
    with wire(lambda asked, line: redirecting({"/a": location})(asked, line)) as source, client(source.url) as ours:
        location = elsewhere.format(port=source.port)
        with pytest.raises(ConfigurationError, match="never sent on to another address") as caught:
            ours.fetch(Request("/a" if way == "redirect" else location))
    assert len(source.asked) == (way == "redirect")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("way", ["redirect", "link"])
def test_an_origin_that_is_allowed_gets_no_credentials(way: str) -> None:
    with (
        wire(lambda _, line: line.send(answer([1]))) as files,
        wire(redirecting({"/a": f"{files.url}/b?x=1"})) as source,
        client(source.url, allowed_origins=(files.url,)) as ours,
    ):
        found = ours.fetch(Request("/a" if way == "redirect" else f"{files.url}/b?x=1"))
    [asked] = files.asked
    assert found.body == b"[1]"
    assert asked.target == "/b?x=1"
    assert "canary" not in str(asked)


def test_a_link_with_our_own_key_in_it_is_followed_and_not_repeated() -> None:
    with wire(lambda _, line: line.send(answer([]))) as source, client(source.url) as ours:
        found = ours.fetch(Request(f"{source.url}/a?page=2&key=canary-72"))
        assert source.asked[0].parameters == {"page": "2", "key": "canary-72"}
        assert found.body == b"[]"


def test_a_link_that_is_no_address_is_malformed() -> None:
    with client("http://127.0.0.1:1") as ours, pytest.raises(MalformedResponseError, match="no address"):
        ours.fetch(Request("http://x:port/canary-72"))


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "ftp://example.com", "https://example.com/path", "https://u:canary@example.com"],
)
def test_an_allowed_origin_that_is_none_fails_when_it_is_written(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no origin") as caught:
        RestSource(name="a", base_url=Setting("a_url"), streams=(), allowed_origins=(text,))
    assert "canary" not in str(caught.value)


def test_origins_are_compared_as_they_are_meant() -> None:
    assert parse_origin("HTTPS://Files.Example.com:443/") == parse_origin("https://files.example.com")
    assert parse_origin("http://a") != parse_origin("https://a")
    assert parse_origin("http://a") != parse_origin("http://a:8080")


# Addresses behind names.


INSIDE = """
127.0.0.1 127.255.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1
255.255.255.255 192.0.2.1 ::1 :: fe80::1 fe80::1%1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1::
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2001:db8::1
"""


@pytest.mark.parametrize("address", INSIDE.split())
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses())
def test_no_address_of_a_private_network_is_ever_public(address: Any) -> None:
    assert not is_public(str(address)) or ipaddress.ip_address(str(address)).is_global


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("api.localhost", True),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("::1", True),
        ("fd00::1", True),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104 - not to be bound to
        ("8.8.8.8", False),
        ("api.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_a_written_address_says_that_it_is_private(host: str, expected: bool) -> None:
    assert is_named_private(host) == expected


def test_a_name_that_leads_inside_is_refused_unless_it_is_allowed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(lambda _, line: line.send(answer([]))) as source:
        names(monkeypatch, api=["127.0.0.1", "127.0.0.1"])
        url = f"http://api.example.com:{source.port}"
        with client(url) as ours, pytest.raises(ConfigurationError, match="leads to 127.0.0.1"):
            ours.fetch(Request("/"))
        assert not source.asked
        with client(url, allow_private_addresses=True) as ours:
            assert ours.fetch(Request("/")).body == b"[]"


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0"])  # noqa: S104 - not to be bound to
def test_an_address_where_no_api_is_needs_leave_even_if_it_is_written(address: str) -> None:
    with client(f"http://{address}:1") as ours, pytest.raises(ConfigurationError, match=f"leads to {address}"):
        ours.fetch(Request("/"))


def test_a_name_is_looked_up_once_so_it_cannot_change_after_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look-up would lead inside. The first address is reserved for documentation: nobody answers there."""
    monkeypatch.setattr("connectors.http.transport.is_public", lambda address: address == "192.0.2.1")
    with wire(lambda _, line: line.send(answer([]))) as source:
        looked_up = names(monkeypatch, api=["192.0.2.1", "127.0.0.1"])
        impatient = RetryPolicy(attempts=1, connect_timeout=0.2)
        with (
            client(f"http://api.example.com:{source.port}", policy=impatient) as ours,
            pytest.raises(SourceUnavailableError),
        ):
            ours.fetch(Request("/"))
    assert looked_up == ["api"]
    assert not source.asked


def test_of_many_addresses_the_next_is_tried_and_the_private_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(lambda _, line: line.send(answer([]))) as source:
        names(monkeypatch, api=["127.0.0.2 127.0.0.1", "127.0.0.2 127.0.0.1"])
        url = f"http://api.example.com:{source.port}"
        monkeypatch.setattr("connectors.http.transport.is_public", lambda address: address == "127.0.0.2")
        with client(url) as ours, pytest.raises(SourceUnavailableError):
            ours.fetch(Request("/"))
        assert not source.asked
        monkeypatch.setattr("connectors.http.transport.is_public", lambda _: True)
        with client(url) as ours:
            assert ours.fetch(Request("/")).body == b"[]"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".example.com"])
def test_a_name_that_leads_nowhere_is_unavailable(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if host.startswith("nowhere"):
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with client(f"http://{host}") as ours, pytest.raises(SourceUnavailableError):
        ours.fetch(Request("/"))


# What is between.


def test_a_proxy_of_the_environment_is_used_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(lambda _, line: line.send(answer([1]))) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "inside.example.com")
        with client("http://api.example.com") as ours:
            assert ours.fetch(Request("/a")).body == b"[1]"
        names(monkeypatch, inside=["127.0.0.1"])
        with client(f"http://inside.example.com:{proxy.port}", allow_private_addresses=True) as ours:
            ours.fetch(Request("/b"))
    through, direct = proxy.asked
    assert through.target == "http://api.example.com/a?key=canary-72"
    assert through.headers["proxy-authorization"].startswith("Basic ")
    assert direct.target == "/b?key=canary-72"
    assert "proxy-authorization" not in direct.headers


@pytest.mark.parametrize("proxy", ["socks5://user:canary@127.0.0.1:1", "http://", "http://x:y"])
def test_a_proxy_that_is_none_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with (
        client("http://api.example.com") as ours,
        pytest.raises(ConfigurationError, match="none that speaks") as caught,
    ):
        ours.fetch(Request("/a"))
    assert "canary" not in str(caught.value)


def test_tls_is_spoken_with_those_who_are_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with wire(lambda _, line: line.send(answer([1])), context) as source:
        url = source.url.replace("http:", "https:")
        with client(url) as ours, pytest.raises(ConfigurationError, match="certificate that cannot be trusted"):
            ours.fetch(Request("/"))
        assert not source.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with client(url) as ours:
            assert ours.fetch(Request("/")).body == b"[1]"
