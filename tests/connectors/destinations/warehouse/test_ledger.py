"""Leases: one run at a time, a dead one followed at once, a sleeping one after its time."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import pytest

from connectors.destinations.warehouse.ledger import Lease
from connectors.errors import FencedError, StreamBusyError
from connectors.model import Window
from tests.conftest import Warehouse
from tests.victims import Victim
from tests.waiting import until


def hold(warehouse: Warehouse, seconds: float) -> None:
    with Lease(warehouse.url("loader"), "shop", "orders", "the other", lease_seconds=seconds):
        print("held")  # noqa: T201 - for the test
        time.sleep(60)


def lease(warehouse: Warehouse, **options: Any) -> Lease:
    return Lease(warehouse.url("loader"), "shop", "orders", "this run", **options)


def holder(warehouse: Warehouse, seconds: float) -> Victim:
    process = Victim(partial(hold, warehouse, seconds))
    until(lambda: process.said, "it holds the stream")
    return process


def test_each_holder_has_a_higher_epoch(warehouse: Warehouse) -> None:
    epochs = []
    for _ in range(3):
        with lease(warehouse) as held:
            epochs.append(held.epoch)
    assert epochs == [1, 2, 3]


def test_a_killed_holder_is_followed_at_once(warehouse: Warehouse) -> None:
    process = holder(warehouse, 3600)
    with pytest.raises(StreamBusyError, match="the other"), lease(warehouse, wait_seconds=0.3):
        pass
    process.kill()
    with lease(warehouse, wait_seconds=20) as held:
        assert held.epoch == 2


def test_a_sleeping_holder_is_followed_when_its_lease_ends_and_then_fenced(warehouse: Warehouse) -> None:
    with holder(warehouse, 2) as process:
        time.sleep(3)
        with pytest.raises(StreamBusyError), lease(warehouse, wait_seconds=0.3):
            pass  # alive: the lease is renewed
        process.send(signal.SIGSTOP)
        with lease(warehouse, wait_seconds=20) as held:
            assert held.epoch == 2


def test_only_the_latest_holder_passes_the_fence(warehouse: Warehouse) -> None:
    with lease(warehouse) as first, warehouse.connect("loader") as connection:
        first.check(connection)
        warehouse.execute("update ops.streams set lease_until = now()")
        with lease(warehouse) as second:
            second.check(connection)
            with pytest.raises(FencedError, match="epoch 1 was followed by 2"):
                first.check(connection)


def test_windows_are_held_beside_each_other_and_beside_the_stream(warehouse: Warehouse) -> None:
    first, second = Window.parse("2024-01-01", "2024-01-02"), Window.parse("2024-01-02", "2024-01-03")
    with lease(warehouse) as whole, lease(warehouse, window=first) as one, lease(warehouse, window=second) as other:
        with pytest.raises(StreamBusyError, match="the window"), lease(warehouse, window=first, wait_seconds=0.2):
            pass
        with warehouse.connect("loader") as connection:
            for held in (whole, one, other):
                held.check(connection)
        warehouse.execute("update ops.streams set lease_until = now() where scope like '2024-01-01 %'")
        with lease(warehouse, window=first), warehouse.connect("loader") as connection:
            with pytest.raises(FencedError):
                one.check(connection)
            connection.rollback()
            other.check(connection)
