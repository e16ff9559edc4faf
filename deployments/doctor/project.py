"""Whether dbt can read its project."""

from __future__ import annotations

from collections.abc import Iterator

from connectors.connections import Connections
from deployments.doctor.examination import Result, State
from tasks.credentials import WAREHOUSE_TRANSFORMER
from tasks.transform import parsed


def project(connections: Connections) -> Iterator[Result]:
    """It is parsed, into a folder of its own."""
    nodes = parsed(connections.database(WAREHOUSE_TRANSFORMER))["nodes"]
    yield Result("dbt project", State.OK, f"It parses: {len(nodes)} nodes.")
