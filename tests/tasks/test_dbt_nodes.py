"""What a task run of a dbt node makes of dbt's events; how they look in Prefect is tested with the demo."""

from __future__ import annotations

import os
import signal
import time
from queue import SimpleQueue
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import can_ack_control_intent, capture_sigterm

from connectors.errors import DataError
from tasks.dbt_nodes import interrupted_when_told_to_stop, run_node


def test_a_node_that_dbt_did_not_finish_has_not_succeeded() -> None:
    events: SimpleQueue[Any] = SimpleQueue()
    events.put(None)
    with pytest.raises(DataError, match="dbt was stopped before this node had finished"):
        run_node.fn(events)


def test_a_signal_to_stop_interrupts_dbt_and_prefect_still_knows_a_cancellation_when_it_comes() -> None:
    interrupted = []

    def build() -> None:
        with capture_sigterm(), interrupted_when_told_to_stop():
            assert can_ack_control_intent()
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except KeyboardInterrupt:  # dbt returns then, one way or another
                interrupted.append(True)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else Prefect sends it to this process once more
    try:
        with pytest.raises(TerminationSignal) as raised:
            build()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert interrupted
    assert not isinstance(raised.value, KeyboardInterrupt)


def test_without_a_signal_errors_pass_as_they_are() -> None:
    with pytest.raises(DataError), interrupted_when_told_to_stop():
        raise DataError("broken", remedy="Mend it.")
