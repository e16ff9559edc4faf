"""After each build its history is written to `ops`, and its results are shown in Prefect.

Neither can fail the run that it tells of, nor hold it up: trouble is one warning in its log, and after
`DEADLINE_SECONDS` the run goes on, whatever the warehouse does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from dbt.version import get_installed_version
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import translated_errors
from connectors.destinations.warehouse.history import (
    Invocation,
    NodeResult,
    bounded_connection,
    forget_history,
    record_freshness,
    record_invocation,
    record_lineage,
)
from connectors.destinations.warehouse.positions import Position
from connectors.registry import SOURCES
from tasks.bounded import in_a_line, show, within_deadline
from tasks.credentials import WAREHOUSE_WATCHER, PrefectConnections
from tasks.dbt_graph import Graph
from tasks.dbt_lineage import lineage
from tasks.dbt_results import message_of
from tasks.transform import BuildReport, manifest_of

DEADLINE_SECONDS = 5.0
_MOST_SHOWN = 500
_TROUBLE = ("error", "fail", "runtime error", "warn")
_MOST_CHARACTERS = 60
"""Of a name: one that is longer would push all else off the page."""


@dataclass(slots=True)
class BuildHistory:
    """What is known of a build, to be filled in while it goes on."""

    run: str
    selection: str | None
    is_full_refresh: bool
    positions: Sequence[Position]
    """How far each stream was when it began."""
    started_at: datetime
    build: BuildReport | None = None
    """None: dbt did not get to an end that says anything."""
    generation: int | None = None
    error: str | None = None

    def invocation(self) -> Invocation:
        build = self.build
        return Invocation(
            invocation_id=build.invocation_id if build else str(uuid4()),
            command="build",
            selection=self.selection,
            is_full_refresh=self.is_full_refresh,
            dbt_version=get_installed_version().to_version_string(skip_matcher=True),
            is_success=build is not None and not build.failed,
            started_at=build.started_at if build else self.started_at,
            ended_at=build.ended_at if build else datetime.now(UTC),
            generation=self.generation,
            run_id=self.run,
            error=None if build else self.error,
        )


@contextmanager
def written_down(
    run: str, selection: str | None, positions: Sequence[Position], *, is_full_refresh: bool = False
) -> Iterator[BuildHistory]:
    """Write the history of the build that is made meanwhile, also if it fails."""
    history = BuildHistory(run, selection, is_full_refresh, positions, datetime.now(UTC))
    try:
        yield history
    except BaseException as error:  # a run that is cancelled, too
        history.error = message_of(str(error))
        raise
    finally:
        record(history)


def record(history: BuildHistory) -> None:
    """Write it, within the deadline."""

    def work() -> list[str]:
        return write(history, PrefectConnections().database(WAREHOUSE_WATCHER))

    if problems := within_deadline(work, DEADLINE_SECONDS, "history"):
        get_run_logger().warning(
            "The history of this build is not whole in ops: %s. The build itself is as it is.", "; ".join(problems)
        )


def write(history: BuildHistory, watcher: URL) -> list[str]:
    """Write it, part by part; what could not be written, and why."""
    problems = []
    with bounded_connection(watcher) as connection:
        invocation = history.invocation()
        build = history.build

        def results() -> None:
            record_invocation(connection, invocation, build.results if build else ())

        def graph_and_freshness() -> None:
            assert build is not None  # noqa: S101 - it is of a whole build
            manifest = manifest_of(build)
            record_lineage(connection, lineage(manifest, SOURCES.values()))
            record_freshness(
                connection,
                history.positions,
                Graph(manifest).feeds(),
                checked_at=invocation.started_at,
                run_id=history.run,
            )

        for part in [results, *([graph_and_freshness] if build and not history.selection else [])]:
            try:
                with translated_errors():
                    part()
            except Exception as error:  # noqa: BLE001 - the other part may do better; there are two
                problems.append(in_a_line(error))
    return problems


def show_results(build: BuildReport) -> None:
    """Keep what became of each node as a table of the run: what is in trouble first, then what took longest."""

    show(
        lambda: create_table_artifact(
            key="dbt-results",
            description=_summary(build.results),
            table=[_row(each) for each in sorted(build.results, key=_order)[:_MOST_SHOWN]],
        ),
        "results",
    )


def _order(result: NodeResult) -> tuple[int, float, str]:
    trouble = _TROUBLE.index(result.status) if result.status in _TROUBLE else len(_TROUBLE)
    return trouble, -(result.seconds or 0), result.name  # what was skipped took no time, and is last


def _row(result: NodeResult) -> dict[str, object]:
    is_long = len(result.name) > _MOST_CHARACTERS
    return {
        "status": result.status,
        "node": f"{result.name[:_MOST_CHARACTERS]}…" if is_long else result.name,
        "seconds": "" if result.seconds is None else f"{result.seconds:.2f}",
        "rows": result.failures if result.rows_affected is None and result.failures else result.rows_affected or "",
        "message": result.message or "",
        "kind": result.resource_type,
    }


def _summary(results: Sequence[NodeResult]) -> str:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    said = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    more = f" The first {_MOST_SHOWN} are shown." if len(results) > _MOST_SHOWN else ""
    return f"{len(results):,} nodes: {said}. Rows are those written, or, of a test, those that failed.{more}"


@task(name="forget history", cache_policy=NO_CACHE, persist_result=False)
def forget_old_history(kept_days: float) -> None:
    """Delete history that is older; a rerun is safe at any time.

    Raises:
        HeadwaterError: see `connectors.destinations.warehouse.history.forget_history`.
    """
    invocations, checks = forget_history(
        PrefectConnections().database(WAREHOUSE_WATCHER), kept=timedelta(days=kept_days)
    )
    get_run_logger().info(
        "%s invocations of dbt and %s rows of freshness were older than %s days.", invocations, checks, kept_days
    )
