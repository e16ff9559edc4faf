"""A machine of its own, as far as the network goes: a namespace whose one link can be cut.

It reaches what listens on this machine's loopback by its gateway's address. It takes root, `ip` and `iptables`; only
the rules of its own link are touched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Machine:
    """A network namespace."""

    name: str
    gateway: str
    """The address by which it reaches this machine."""

    @property
    def prefix(self) -> list[str]:
        """What makes a command run there."""
        return ["ip", "netns", "exec", self.name]

    def enter(self) -> None:
        """Take this process there, for good."""
        with Path("/run/netns", self.name).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")

    def seen_from_there(self, url: str) -> str:
        return url.replace("127.0.0.1", self.gateway)

    def cut(self) -> None:
        """What is sent either way vanishes: nobody is told."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.name, "up")


@contextmanager
def machine(ports: Iterable[int] = ()) -> Iterator[Machine]:
    """A machine; the test is skipped where none can be made.

    Args:
        ports: of this machine's loopback, which are found on that one's loopback too.
    """
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "iptables"))):
        pytest.skip("needs root, ip and iptables: a network namespace is a machine to be cut off")
    number = os.getpid()
    name, inside = f"hw{number}", f"hw{number}i"
    gateway, own = (f"10.231.{number % 250}.{last}" for last in (1, 2))
    rules = [
        ("PREROUTING", "-i", name, "-p", "tcp", "-j", "DNAT", "--to-destination", "127.0.0.1"),
        ("INPUT", "-i", name, "-p", "tcp", "-j", "SNAT", "--to-source", "127.0.0.1"),
    ]
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", name)
        _ip("addr", "add", f"{gateway}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "addr", "add", f"{own}/30", "dev", inside)
        for link in (inside, "lo"):
            _ip("-n", name, "link", "set", link, "up")
        _run("sysctl", "-qw", f"net.ipv4.conf.{name}.route_localnet=1")
        for rule in rules:
            _run("iptables", "-t", "nat", "-A", *rule)
        for port in ports:
            there = ("ip", "netns", "exec", name)
            _run(*there, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
            to = ("-d", "127.0.0.1", "-p", "tcp", "--dport", str(port), "-j", "DNAT", "--to-destination", gateway)
            _run(*there, "iptables", "-t", "nat", "-A", "OUTPUT", *to)
            _run(*there, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", inside, "-j", "SNAT", "--to-source", own)
        yield Machine(name, gateway)
    finally:
        for rule in rules:
            _run("iptables", "-t", "nat", "-D", *rule, check=False)
        _ip("netns", "del", name, check=False)
        _ip("link", "del", name, check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    _run("ip", *arguments, check=check)


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True)
