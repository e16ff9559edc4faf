"""Reconcile: prove that raw is what the source is, for the windows that were compared longest ago.

Write mode: none, unless `heal` is given; then as each stream's definition says, by loads of the windows that differ.
Rerun safety: any time, also beside loads of the same streams. The run fails if raw is not what the source is.
"""

from __future__ import annotations

from prefect import flow
from prefect.futures import wait

from connectors.errors import ConfigurationError, DataError, HeadwaterError
from connectors.model import Source, Stream, stream_of
from connectors.reconcile.run import MOST_WINDOWS, Reconciliation, can_be_reconciled
from connectors.registry import source_named
from flows.ingest import STREAM_RUNNER
from tasks.incidents import RECONCILED, noticed
from tasks.names import flow_named
from tasks.page import rebuild_page
from tasks.reconcile import reconcile_stream, show_differences
from tasks.schedules import do_missed_runs_at_once

_MOST_NAMED = 5


@flow(
    name="reconcile",
    flow_run_name=flow_named("reconcile"),
    task_runner=STREAM_RUNNER,
    on_running=[do_missed_runs_at_once],
    on_completion=[rebuild_page],
    on_failure=[rebuild_page],
    persist_result=False,
)
def reconcile(
    source: str,
    streams: list[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    most_windows: int = MOST_WINDOWS,
    heal: bool = False,
) -> list[Reconciliation]:
    """Hold raw against a source, stream by stream, and name the rows that differ.

    Args:
        source: its name in the registry, e.g. `flights_api`.
        streams: only these of its streams; without it, all that can be compared.
        start: only windows from here on; ISO 8601, of the windows' time zone unless it has an offset.
        end: up to here, exclusive.
        most_windows: of each stream no more than so many, those that were compared longest ago.
        heal: whether the windows that differ are read again, and rows that are gone at the source marked.
    """
    chosen = reconcilable_streams(source_named(source), streams, by_window=bool(start or end))
    with noticed(*RECONCILED):
        submitted = {
            f"{source}.{stream.name}": reconcile_stream.submit(source, stream.name, start, end, most_windows, heal)
            for stream in chosen
        }
        wait(list(submitted.values()))
        states = {name: future.state for name, future in submitted.items()}
        results = [state.result() for state in states.values() if state.is_completed()]
        found = [each for each in results if each is not None]
        show_differences(source, found)
        for name, state in states.items():
            if not state.is_completed():
                error = state.result(raise_on_failure=False)
                if isinstance(error, HeadwaterError):
                    raise error
                raise ConfigurationError(f"{name} did not end well: {state.message}", remedy="See the task run's log.")
        if alarming := [each for each in found if each.findings.is_alarming]:
            raise not_equal(alarming)
        return found


def not_equal(found: list[Reconciliation]) -> DataError:
    """The error of a run that found raw not to be what the source is."""
    rows = [
        f"{each.source}.{each.stream} {difference.window or ''} key {', '.join(difference.key)} {difference.kind}"
        for each in found
        for difference in each.findings.open
        if difference.is_certain
    ]
    named = "; ".join(rows[:_MOST_NAMED])
    more = f" and {len(rows) - _MOST_NAMED:,} more" if len(rows) > _MOST_NAMED else ""
    at_least = "At least " if any(each.findings.is_at_least for each in found) else ""
    why = " ".join(each.error for each in found if each.error)
    what = f"{at_least}{len(rows):,} rows of raw are not as they are at the source: {named}{more}."
    return DataError(
        f"{what} {why}".strip(),
        remedy="All are in ops.differences. Run it once with heal=true, and find out what has changed them.",
    )


def reconcilable_streams(source: Source, names: list[str] | None, *, by_window: bool) -> list[Stream]:
    """The streams of those names, or all that can be compared; refused before anything is started.

    Args:
        by_window: whether only streams with windows are meant.

    Raises:
        UnknownNameError: the source has no stream of a name.
        ConfigurationError: a named stream cannot be compared, or none of the source's can.
    """
    chosen = [stream_of(source, name) for name in names] if names else list(source.streams)
    able = [
        stream
        for stream in chosen
        if can_be_reconciled(source, stream) and (stream.event_time is not None or not by_window)
    ]
    unable = [stream.name for stream in chosen if stream not in able]
    if unable and (names or not able):
        raise ConfigurationError(
            f"{', '.join(unable)} cannot be compared with {source.name}{' by window' if by_window else ''}.",
            remedy="It takes a primary_key, a source that tells what it has now (files do not)"
            f"{', and an event_time' if by_window else ''}.",
            source=source.name,
        )
    return able
