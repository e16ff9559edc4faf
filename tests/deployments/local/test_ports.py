from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from deployments.local.ports import choose_port, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def test_the_customary_port_is_chosen_when_it_is_free(free: int) -> None:
    assert choose_port(free).number == free


def test_the_port_of_last_time_comes_before_the_customary_one(free: int, taken: int) -> None:
    assert choose_port(taken, remembered=free).number == free


def test_a_taken_port_is_replaced_and_the_reason_names_who_has_it(taken: int) -> None:
    choice = choose_port(taken)
    assert choice.number != taken
    assert is_free(choice.number)
    assert f"{taken} is taken by" in choice.reason
    assert f"(pid {os.getpid()})" in choice.reason


def test_a_port_promised_to_another_service_is_not_given_away(free: int) -> None:
    choice = choose_port(free, avoid=frozenset({free}))
    assert choice.number != free
    assert f"{free} is promised" in choice.reason


def test_a_port_whose_last_connections_linger_is_free(free: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", free))
        server.listen()
        client = socket.create_connection(("127.0.0.1", free))
        accepted, _ = server.accept()
        # The side that closes first is the one that lingers in TIME_WAIT.
        accepted.close()
        client.close()
    assert is_free(free)
