"""Publishing as a Prefect task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.ledger import Fence
from connectors.destinations.warehouse.marts import Mart, PublishReport
from connectors.destinations.warehouse.positions import Position
from connectors.destinations.warehouse.publish import publish
from connectors.destinations.warehouse.windows import UnbuiltWindow, mark_built
from connectors.errors import DataError
from connectors.failpoints import reach
from tasks.credentials import WAREHOUSE_PUBLISHER, WAREHOUSE_TRANSFORMER, PrefectConnections
from tasks.transform import BuildReport, graph

LEDGER = "ops"
"""The dbt source of the ledger's own tables."""


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish_marts(
    build: BuildReport,
    run: str | None = None,
    windows: Sequence[UnbuiltWindow] = (),
    positions: Sequence[Position] = (),
    fence: Fence | None = None,
) -> PublishReport:
    """Show readers what a build made and tested, as a new generation: all groups of marts that passed, each whole.

    Args:
        windows: those that were to be built when the build began.
        positions: how far each stream was then.
        fence: of the lease under which it was built.

    Raises:
        HeadwaterError: see `connectors.destinations.warehouse.publish.publish`; readers keep the last generation.
    """
    connections = PrefectConnections()
    built = graph(build)
    marts = built.marts()
    prepare(connections.database(WAREHOUSE_TRANSFORMER), marts)
    reach("marts-prepared")
    report = publish(
        connections.database(WAREHOUSE_PUBLISHER),
        marts,
        invocation_id=build.invocation_id,
        run=run,
        verdicts=built.judge(build.outcomes),
        positions=[*positions, *ledger_positions(marts, build.started_at)],
        fence=fence,
    )
    if report.generation is not None:
        mark_built(connections.database(WAREHOUSE_PUBLISHER), report.generation, shown(windows, marts, report.groups))
    reach("windows-noted")
    _log(report, {mart.name: mart.group for mart in marts})
    return report


def ledger_positions(marts: Iterable[Mart], at: datetime) -> list[Position]:
    """How far the tables of `ops` are that marts are built from: no stream loads them."""
    tables = {feed.stream for mart in marts for feed in mart.feeds if feed.source == LEDGER}
    return [Position(LEDGER, table, at, at) for table in sorted(tables)]


def shown(windows: Sequence[UnbuiltWindow], marts: Sequence[Mart], groups: Sequence[str]) -> list[UnbuiltWindow]:
    """Those windows that every mart that reads their stream shows, if just these groups were published."""
    behind = {(feed.source, feed.stream) for mart in marts if mart.group not in groups for feed in mart.feeds}
    return [window for window in windows if (window.source, window.stream) not in behind]


def check(build: BuildReport, report: PublishReport) -> None:
    """Fail if something was held back, with the reasons.

    Raises:
        DataError: it is so.
    """
    consequence = "Nothing was published; readers keep the last good generation."
    if report.generation is not None:
        kept = f"those of {_named(report.held_back)} keep the last good one" if report.held_back else "no mart needs it"
        consequence = f"Readers of {_named(report.groups)} have generation {report.generation}; {kept}."
    build.check(consequence)
    if report.held_back:
        why = "; ".join(f"{group}: {reason}" for group, reason in report.held_back.items())
        raise DataError(f"The build passed, but not all of it can be served: {why}.", remedy=consequence)


def _named(groups: Iterable[str]) -> str:
    return ", ".join(f"`{group}`" for group in groups)


def _log(report: PublishReport, groups: Mapping[str, str]) -> None:
    log = get_run_logger()
    if report.generation is not None:
        log.info("Generation %s is served.", report.generation)
    for mart in report.marts:
        log.info(
            "%s (%s): %s rows; %s inserted, %s updated, %s deleted.",
            mart.name,
            groups[mart.name],
            f"{mart.total:,}",
            f"{mart.inserted:,}",
            f"{mart.updated:,}",
            f"{mart.deleted:,}",
        )
    for group, why in report.held_back.items():
        log.error("The group %s is held back; its readers keep the last good generation. %s", group, why)
    for group, why in report.on_hold.items():
        log.warning("The group %s is on hold (%s); `headwater release --group %s` lets it move.", group, why, group)
