"""The pipeline: all sources next to each other, then dbt, then serving.

If a stream fails, the others are loaded all the same and nothing is transformed: readers keep the last generation, and
the run fails with the reason.
"""

from __future__ import annotations

from prefect import flow

from connectors.registry import SOURCES, source_named
from flows.ingest import STREAM_RUNNER, ingest_all
from flows.transform import transform
from tasks.incidents import LOADED, noticed
from tasks.names import flow_named
from tasks.page import rebuild_page
from tasks.schedules import do_missed_runs_at_once


@flow(
    name="pipeline",
    flow_run_name=flow_named("pipeline"),
    task_runner=STREAM_RUNNER,
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def pipeline(sources: list[str] | None = None) -> None:
    """Bring everything up to date, from the sources to what BI reads.

    Args:
        sources: only these, by name in the registry; all without it.
    """
    chosen = [source_named(name) for name in sources] if sources else list(SOURCES.values())
    with noticed(*LOADED):
        ingest_all([(source.name, stream.name) for source in chosen for stream in source.streams])
    transform()
