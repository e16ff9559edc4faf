"""Backfill: read the windows that are missing, failed or stale again, then build, test and publish.

Write mode: as each stream's definition says; a window that is there already is not written again. Rerun safety: any
time, also beside schedules and other backfills. A run that was killed is simply run again: its plan has what is not
done.
"""

from __future__ import annotations

from uuid import UUID

from prefect import flow, get_run_logger

from connectors.backfill.books import ROWS_AT_ONCE, Progress, begin, closing, failures
from connectors.backfill.plan import BackfillPlan, Mode, plan_backfill
from connectors.destinations.warehouse.windows import unbuilt_windows
from connectors.errors import ConfigurationError, DataError, HeadwaterError
from connectors.ingest import WAREHOUSE_LOADER, Destination
from connectors.model import Source, Stream, stream_of
from connectors.registry import SOURCES, source_named
from flows.transform import transform
from tasks.backfill import call_for_help, send_home, show_plan, work_on
from tasks.credentials import PrefectConnections
from tasks.incidents import LOADED, noticed
from tasks.ingest import run_name
from tasks.names import flow_named
from tasks.page import rebuild_page
from tasks.schedules import do_missed_runs_at_once
from tasks.stopping import stoppable

HELPER = "backfill-helper/nyc"
"""The deployment of the runs that help."""
_MOST_NAMED = 5
_WORTH_A_WORKER = 15.0
"""Seconds of work that are worth another run."""


@flow(
    name="backfill",
    flow_run_name=flow_named("backfill"),
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def backfill(
    source: str,
    start: str | None = None,
    end: str | None = None,
    streams: list[str] | None = None,
    mode: Mode = Mode.MISSING,
    replay: bool = False,
    backward: bool = False,
    at_once: int = 4,
    rows_at_once: int = ROWS_AT_ONCE,
    most_windows: int | None = None,
    build: bool = True,
    helper: str = HELPER,
) -> list[Progress]:
    """Fill the windows of a source's streams.

    Args:
        source: its name in the registry, e.g. `flights_api`.
        start: ISO 8601, of the windows' time zone unless it has an offset; without it, where the windows begin.
        end: exclusive; the last window that is over, without it.
        streams: only these of its streams; all that have windows, without it.
        mode: which windows: `missing` (also those whose last read failed), `failed`, `stale`, or `all`.
        replay: take the rows from the landing, by the present definition, and do not ask the source.
        backward: the latest window first.
        at_once: how many runs work on it at most, this one included; the others are runs of `helper`.
        rows_at_once: rows that are read as one load at most; a window is never cut.
        most_windows: no more than so many windows, the first ones; the rest is in the next plan.
        build: whether dbt builds, tests and publishes afterwards.
        helper: the deployment of those who help.
    """
    system = source_named(source)
    chosen = streams_with_windows(system, streams)
    with noticed(*LOADED):
        done = [
            found
            for stream in chosen
            if (
                found := _fill(
                    system,
                    stream,
                    mode=mode,
                    replay=replay,
                    start=start,
                    end=end,
                    backward=backward,
                    at_once=at_once,
                    rows_at_once=rows_at_once,
                    most_windows=most_windows,
                    helper=helper,
                )
            )
        ]
    if build and done and unbuilt_windows(PrefectConnections().database(WAREHOUSE_LOADER)):
        transform()
    return done


@flow(
    name="catch-up",
    flow_run_name=flow_named("catch-up"),
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def catch_up(sources: list[str] | None = None, most_windows: int = 31) -> list[Progress]:
    """Fill windows that are missing or failed, of all sources, at a bounded rate; then build, test and publish.

    Args:
        sources: only these, by name in the registry.
        most_windows: of each stream, the first ones; the rest is for the next run.
    """
    chosen = [source_named(name) for name in sources] if sources else list(SOURCES.values())
    streams = [(source, stream) for source in chosen for stream in source.streams if stream.event_time is not None]
    done, failed = [], []
    with noticed(*LOADED):
        for source, stream in streams:
            try:
                found = _fill(source, stream, mode=Mode.MISSING, most_windows=most_windows)
            except HeadwaterError as error:
                get_run_logger().error("%s.%s could not be filled: %s", source.name, stream.name, error)
                failed.append(error)
            else:
                done += [found] if found else []
    if failed:
        raise failed[0]
    if done and unbuilt_windows(PrefectConnections().database(WAREHOUSE_LOADER)):
        transform()
    return done


def _fill(
    source: Source,
    stream: Stream,
    *,
    mode: Mode,
    replay: bool = False,
    start: str | None = None,
    end: str | None = None,
    backward: bool = False,
    at_once: int = 1,
    rows_at_once: int = ROWS_AT_ONCE,
    most_windows: int | None = None,
    helper: str = HELPER,
) -> Progress | None:
    """One stream's windows; None if there was nothing to do.

    Raises:
        DataError: some windows could not be loaded; the others are.
    """
    connections = PrefectConnections()
    destination = Destination.of(connections)
    plan = plan_backfill(
        source,
        stream,
        destination,
        start=stream.windows.instant(start, "start") if start else None,
        end=stream.windows.instant(end, "end") if end else None,
        mode=mode,
        replay=replay,
        connections=connections,
    ).at_most(most_windows, backward=backward)
    show_plan(plan)
    if not plan.chosen:
        return None
    warehouse = connections.database(WAREHOUSE_LOADER)
    workers = min(at_once, useful_workers(plan))
    backfill_id = begin(plan, warehouse, run=run_name(), backward=backward, at_once=workers, rows_at_once=rows_at_once)
    helpers = call_for_help(helper, source.name, stream.name, backfill_id, workers - 1)
    try:
        with closing(warehouse, backfill_id):
            found = work_on(source.name, stream.name, backfill_id)
    finally:
        send_home(helpers)
    failed = failures(warehouse, backfill_id)
    if failed or found.waiting:
        named = "; ".join(f"{window}: {error}" for window, error in failed[:_MOST_NAMED])
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        left = f" {found.waiting:,} were not tried." if found.waiting else ""
        raise DataError(
            f"{len(failed):,} of {len(plan.chosen):,} windows could not be loaded: {named}{more}.{left}",
            remedy="The others are in raw, and in the marts with the next build. Mend the source or the definition and "
            "run the same backfill again: its plan has just what is left.",
            source=source.name,
            stream=stream.name,
        )
    get_run_logger().info("%s.%s: %s.", source.name, stream.name, found)
    return found


@flow(name="backfill-helper", flow_run_name=flow_named("help"), persist_result=False)
def backfill_helper(source: str, stream: str, backfill_id: str) -> None:
    """Work on a backfill that another run has begun, beside it.

    Args:
        source: as the backfill's.
        stream: likewise.
        backfill_id: in `ops.backfills`.
    """
    with stoppable():
        work_on(source, stream, UUID(backfill_id))


def useful_workers(plan: BackfillPlan) -> int:
    """How many workers have something to do: a run that helps takes seconds to start."""
    if plan.seconds is None:
        return len(plan.chosen)
    return min(len(plan.chosen), max(1, round(plan.seconds / _WORTH_A_WORKER)))


def streams_with_windows(source: Source, names: list[str] | None) -> list[Stream]:
    """The streams of those names, or all that have windows.

    Raises:
        UnknownNameError: the source has no stream of a name.
        ConfigurationError: a named stream has no windows, or none of the source's has.
    """
    chosen = [stream_of(source, name) for name in names] if names else list(source.streams)
    without = [stream.name for stream in chosen if stream.event_time is None]
    if without and (names or len(without) == len(chosen)):
        raise ConfigurationError(
            f"{', '.join(without)} cannot be filled by window: no event_time is defined.",
            remedy="Name other streams, or bring them up to date with ingest.",
            source=source.name,
        )
    return [stream for stream in chosen if stream.event_time is not None]
