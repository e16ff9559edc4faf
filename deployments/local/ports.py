"""Which loopback port a service gets: the one it had, else the customary one, else any free one, and why."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PortChoice:
    """A port that was free a moment ago, and the reason it was chosen."""

    number: int
    reason: str


def choose_port(preferred: int, *, remembered: int | None = None, avoid: frozenset[int] = frozenset()) -> PortChoice:
    """Choose a free port: `remembered` (what the service had last time), then `preferred`, then any.

    `avoid` are ports promised to others that need not listen yet.
    """
    obstacles = []
    for candidate in dict.fromkeys(port for port in (remembered, preferred) if port is not None):
        if candidate in avoid:
            obstacles.append(f"{candidate} is promised to another service of this stack")
        elif is_free(candidate):
            why = "as last time" if candidate == remembered else "the customary port"
            return PortChoice(candidate, f"port {candidate}: {why}{_because(obstacles)}")
        else:
            obstacles.append(f"{candidate} is taken by {holder(candidate)}")
    number = _any_free_port(avoid)
    return PortChoice(number, f"port {number}: any free one{_because(obstacles)}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now.

    Bound with SO_REUSEADDR, as servers do: without it a port whose last connections linger in TIME_WAIT looks taken
    for a minute after every restart. Some systems then allow a second listener, hence the attempt to connect.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((LOOPBACK, port)) != 0


def holder(port: int) -> str:
    """Who listens on the port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens_there = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens_there and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        # Only root sees other users' sockets everywhere; the answer is a courtesy.
        pass
    return "another program"


def _any_free_port(avoid: frozenset[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            number: int = probe.getsockname()[1]
        if number not in avoid:
            return number


def _because(obstacles: list[str]) -> str:
    return f" ({'; '.join(obstacles)})" if obstacles else ""
