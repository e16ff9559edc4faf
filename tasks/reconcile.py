"""The reconciliation of one stream, as a Prefect task; what differs as an artifact."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from connectors.ingest import Destination
from connectors.model import stream_of
from connectors.reconcile.run import MOST_WINDOWS, Reconciliation, reconcile
from connectors.registry import source_named
from tasks.bounded import show
from tasks.credentials import PrefectConnections
from tasks.ingest import run_name, worth_another_try
from tasks.names import task_named

_MOST_SHOWN = 200


@task(
    name="reconcile",
    task_run_name=task_named("reconcile"),
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def reconcile_stream(
    source: str,
    stream: str,
    start: str | None = None,
    end: str | None = None,
    most_windows: int = MOST_WINDOWS,
    heal: bool = False,
) -> Reconciliation | None:
    """Hold a stream's raw table against its source.

    A rerun is safe at any time: it compares anew, and what it heals is healed by loads.

    Raises:
        HeadwaterError: see `connectors.reconcile.run.reconcile`.
    """
    system = source_named(source)
    definition = stream_of(system, stream)
    connections = PrefectConnections()
    return reconcile(
        system,
        definition,
        connections,
        Destination.of(connections),
        start=definition.windows.instant(start, "start") if start else None,
        end=definition.windows.instant(end, "end") if end else None,
        most_windows=most_windows,
        heal=heal,
        run=run_name(),
        log=get_run_logger(),
    )


def show_differences(source: str, found: Iterable[Reconciliation]) -> None:
    """Keep the rows that differ as a table of the run, without their values; all that were named are in
    `ops.differences`."""
    rows = [
        {
            "stream": f"{each.source}.{each.stream}",
            "window": str(difference.window or ""),
            "key": ", ".join(difference.key),
            "what": difference.kind.value,
            "columns": ", ".join(difference.columns),
            "certain": "yes" if difference.is_certain else "no, may have changed since the last load",
            "healed": "yes" if difference.is_healed else "no",
        }
        for each in found
        for difference in each.findings.differences
    ]
    if rows:
        show(
            lambda: create_table_artifact(
                key=f"differences-{source.replace('_', '-')}",
                description=f"{len(rows):,} rows that raw and the source do not agree on; {_MOST_SHOWN} are shown.",
                table=rows[:_MOST_SHOWN],
            ),
            "differences",
        )
