"""Ingest: bring the streams of one source up to date, or read one window of them again.

Write mode: as each stream's definition says (merge, append, replace). Rerun safety: any time, also at the same time;
runs of one stream take turns, and what is there already is not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import ConfigurationError, HeadwaterError, WindowError
from connectors.model import Source, Stream, Window, check_full_refresh, stream_of
from connectors.registry import source_named
from tasks.bounded import show
from tasks.incidents import LOADED, noticed
from tasks.ingest import ingest_stream, one_instant
from tasks.names import flow_named
from tasks.page import rebuild_page
from tasks.schedules import do_missed_runs_at_once

STREAMS_AT_ONCE = 4
STREAM_RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=STREAMS_AT_ONCE))


@flow(
    name="ingest",
    flow_run_name=flow_named("ingest"),
    task_runner=STREAM_RUNNER,
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def ingest(
    source: str,
    streams: list[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    full_refresh: bool = False,
) -> list[LoadReport]:
    """Bring a source's streams up to date.

    Args:
        source: its name in the registry, e.g. `flights_api`.
        streams: only these of its streams; all without it.
        start: with `end`, read the rows whose event time is in [start, end) again, and leave the watermark alone.
            ISO 8601, UTC unless it has an offset.
        end: exclusive.
        full_refresh: read everything, whatever the watermark, and take the source's word for each row even where raw
            has a newer version: for a source that was restored, or whose rows were changed without their cursor.
    """
    system = source_named(source)
    chosen = [stream_of(system, name) for name in streams] if streams else list(system.streams)
    window = check_window(system, chosen, start, end)
    check_full_refresh(window, full_refresh)
    with noticed(*LOADED):
        return ingest_all([(system.name, stream.name) for stream in chosen], start, end, full_refresh)


def check_window(source: Source, streams: Iterable[Stream], start: str | None, end: str | None) -> Window | None:
    """The window that two parameters mean, refused before anything is started.

    Raises:
        WindowError: one is missing or malformed, or a stream cannot be read by window.
    """
    if not start and not end:
        return None
    if not start or not end:
        raise WindowError(
            f"A window needs a start and an end; only {'start' if start else 'end'} was given.",
            remedy="Give both, or neither.",
            source=source.name,
        )
    window = Window.parse(start, end)
    if without := [stream.name for stream in streams if stream.event_time is None]:
        raise WindowError(
            f"{', '.join(without)} cannot be read by window: no event_time is defined.",
            remedy="Name the others in `streams`, or leave out start and end.",
            source=source.name,
            window=window,
        )
    return window


def ingest_all(
    streams: Iterable[tuple[str, str]], start: str | None = None, end: str | None = None, full_refresh: bool = False
) -> list[LoadReport]:
    """Ingest streams, each named by source and stream, next to each other. Call it inside a flow.

    Those of one source are read as of one instant where the source can be; windows are read as of now.

    Raises:
        HeadwaterError: what went wrong with one of them, after all have ended; the others are loaded.
    """
    by_source: dict[str, list[str]] = {}
    for source, stream in streams:
        by_source.setdefault(source, []).append(stream)
    with ExitStack() as stack:
        submitted = {}
        for source, names in by_source.items():
            is_live = not start and not end
            shared = stack.enter_context(one_instant(source, names, full_refresh=full_refresh)) if is_live else None
            for name in names:
                submitted[f"{source}.{name}"] = ingest_stream.submit(source, name, start, end, full_refresh, shared)
        return reports_of(submitted)


def reports_of(submitted: Mapping[str, PrefectFuture[list[LoadReport]]]) -> list[LoadReport]:
    """Wait for the tasks of several streams, by stream, and show what they moved as an artifact.

    Raises:
        HeadwaterError: what went wrong with one of them, after all have ended; the others are loaded.
    """
    wait(list(submitted.values()))
    states: dict[str, State[list[LoadReport]]] = {name: future.state for name, future in submitted.items()}
    reports = [report for state in states.values() if state.is_completed() for report in state.result()]
    if reports:
        show(
            lambda: create_table_artifact(
                key="loads",
                description="Rows that each load of this run moved.",
                table=[_artifact_row(report) for report in reports],
            ),
            "loads",
        )
    failed = {name: state for name, state in states.items() if not state.is_completed()}
    for name, state in failed.items():
        error = state.result(raise_on_failure=False)
        others = [other for other in failed if other != name]
        if isinstance(error, HeadwaterError):
            if others:
                error.what += f" ({', '.join(others)} failed too.)"
            raise error
        raise ConfigurationError(
            f"{', '.join(failed)} did not end well: {error or state.message}", remedy="See the task run's log."
        ) from (error if isinstance(error, BaseException) else None)
    return reports


def _artifact_row(report: LoadReport) -> dict[str, object]:
    return {
        "stream": f"{report.source}.{report.stream}",
        "window": str(report.window or ""),
        "extracted": report.extracted,
        "inserted": report.inserted,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "quarantined": report.quarantined,
        "forgotten": report.forgotten,
        "deleted": report.deleted,
        "watermark": report.watermark or "",
        "load_id": str(report.load_id),
    }
