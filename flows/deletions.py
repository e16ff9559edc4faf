"""Deletions: find the rows that a source has deleted, which no cursor shows, and mark them in raw.

Write mode: `_deleted_at` is set or taken away; no row goes. Rerun safety: any time, also beside loads of the same
stream; they take turns. What is marked leaves the marts with the next build.
"""

from __future__ import annotations

from prefect import flow

from connectors.deletions import check_limit
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import ConfigurationError
from connectors.model import Source, Stream, stream_of
from connectors.registry import source_named
from flows.ingest import STREAM_RUNNER, reports_of
from tasks.deletions import find_deleted_rows
from tasks.incidents import LOADED, noticed
from tasks.names import flow_named
from tasks.page import rebuild_page
from tasks.schedules import do_missed_runs_at_once


@flow(
    name="deletions",
    flow_run_name=flow_named("deletions"),
    task_runner=STREAM_RUNNER,
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def find_deletions(source: str, streams: list[str] | None = None, limit: float | None = None) -> list[LoadReport]:
    """Compare a source's keys with raw's, and mark the rows that are gone.

    Args:
        source: its name in the registry, e.g. `operations_db`.
        streams: only these of its streams; without it, all whose definition has `deletes`.
        limit: the share of a stream's live rows, 0 to 1, that may be gone, in place of the one in its definition.
    """
    system = source_named(source)
    check_limit(limit)
    chosen = streams_with_deletes(system, streams)
    with noticed(*LOADED):
        return reports_of(
            {f"{source}.{stream.name}": find_deleted_rows.submit(source, stream.name, limit) for stream in chosen}
        )


def streams_with_deletes(source: Source, names: list[str] | None) -> list[Stream]:
    """The streams of those names, or all whose deletions are looked for; refused before anything is started.

    Raises:
        UnknownNameError: the source has no stream of a name.
        ConfigurationError: a named stream has no `deletes`, or none of the source's has.
    """
    chosen = [stream_of(source, name) for name in names] if names else list(source.streams)
    with_deletes = [stream for stream in chosen if stream.deletes is not None]
    without = [stream.name for stream in chosen if stream.deletes is None]
    if without and (names or not with_deletes):
        raise ConfigurationError(
            f"Deletions are not looked for in {', '.join(without)}: no `deletes` is defined.",
            remedy="Name other streams, or give them `deletes` in their definition.",
            source=source.name,
        )
    return with_deletes
