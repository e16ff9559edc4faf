"""The sweep of the landing as a Prefect task."""

from __future__ import annotations

from datetime import timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.ingest import Destination
from connectors.registry import SOURCES
from connectors.sweep import SweepReport, sweep
from tasks.credentials import PrefectConnections
from tasks.ingest import run_name, worth_another_try


@task(
    name="sweep landing",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def sweep_landing(older_than_days: float) -> list[SweepReport]:
    """Delete what killed runs have left in the landing, of every registered stream.

    A rerun is safe at any time: what is swept was no data.

    Raises:
        HeadwaterError: see `connectors.sweep.sweep`.
    """
    return sweep(
        SOURCES.values(),
        Destination.of(PrefectConnections()),
        older_than=timedelta(days=older_than_days),
        run=run_name(),
        log=get_run_logger(),
    )
