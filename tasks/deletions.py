"""The comparison of one stream's keys with raw's, as a Prefect task."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.ingest import Destination
from connectors.model import stream_of
from connectors.registry import source_named
from tasks.credentials import PrefectConnections
from tasks.ingest import run_name, worth_another_try
from tasks.names import task_named


@task(
    name="find deleted",
    task_run_name=task_named("find deleted"),
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def find_deleted_rows(source: str, stream: str, limit: float | None = None) -> list[LoadReport]:
    """Mark the rows of one stream that its source no longer has, and unmark those that it has again.

    A rerun is safe at any time: it reads the keys anew, and marks in one transaction.

    Raises:
        HeadwaterError: see `connectors.deletions.find_deleted`.
    """
    system = source_named(source)
    connections = PrefectConnections()
    report = find_deleted(
        system,
        stream_of(system, stream),
        connections,
        Destination.of(connections),
        limit=limit,
        run=run_name(),
        log=get_run_logger(),
    )
    return [report]
