"""What a task run of a dbt node makes of dbt's events; how they look in Prefect is tested with the demo."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import pytest

from connectors.errors import DataError
from tasks.dbt_nodes import run_node


def test_a_node_that_dbt_did_not_finish_has_not_succeeded() -> None:
    events: SimpleQueue[Any] = SimpleQueue()
    events.put(None)
    with pytest.raises(DataError, match="dbt was stopped before this node had finished"):
        run_node.fn(events)
