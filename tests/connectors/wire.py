"""An HTTP server on loopback that says exactly what a test tells it to, byte by byte, and at which moment."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import responses
from io import BufferedReader
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    """As in the request's first line: path and parameters; through a proxy the whole address."""
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    at: float
    """Of the monotonic clock, when all of it was there."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


class Hangup(Exception):  # noqa: N818 - no error: the server's way to end a connection
    """Raised by an answer: close the connection."""


class Line:
    """The server's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @property
    def peer(self) -> object:
        """The other end: the same for all requests of a connection."""
        return self._connection.getpeername()

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """One byte at a time."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            time.sleep(pause)

    def reset(self) -> None:
        """Cut the connection off, without the usual goodbye."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Hangup

    def hang_up(self) -> None:
        raise Hangup


Reply = Callable[[Asked, Line], None]


@dataclass(slots=True)
class Wire:
    """A server and what it was asked."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def wire(reply: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Serve, a thread for each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        served = Wire(listener.getsockname()[1])
        connections: set[socket.socket] = set()

        def converse(connection: socket.socket) -> None:
            with suppress(OSError):
                talk(connection if tls is None else tls.wrap_socket(connection, server_side=True))
            connections.discard(connection)

        def talk(connection: socket.socket) -> None:
            with connection, connection.makefile("rb") as reader, suppress(OSError, Hangup):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (asked := _read(reader)) is not None:
                    served.asked.append(asked)
                    reply(asked, Line(connection))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.add(connection)
                threading.Thread(target=converse, args=[connection], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in list(connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _read(reader: BufferedReader) -> Asked | None:
    first = reader.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while line := reader.readline().strip().decode("latin-1"):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Asked(first[0], first[1], headers, body, time.monotonic())


def head(status: int = 200, **headers: str | int) -> bytes:
    """Status line and headers; underscores in names become hyphens."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Odd')}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(body: Any = b"", status: int = 200, **headers: str | int) -> bytes:
    """A whole answer; what is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if isinstance(body, bytes) else {"Content_Type": "application/json"}
    return head(status, Content_Length=len(data), **{**kind, **headers}) + data


def zipped(body: bytes) -> bytes:
    return answer(gzip.compress(body, mtime=0), Content_Encoding="gzip")


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in [*parts, b""])
    return head(Transfer_Encoding="chunked") + chunks
