"""Publishing as a Prefect task."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.destinations.warehouse.publish import PublishReport, grant_to_publisher, publish
from connectors.destinations.warehouse.windows import UnbuiltWindow, mark_built
from tasks.credentials import WAREHOUSE_PUBLISHER, WAREHOUSE_TRANSFORMER, PrefectConnections
from tasks.transform import BuildReport, marts


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish_marts(build: BuildReport, run: str | None = None, windows: Sequence[UnbuiltWindow] = ()) -> PublishReport:
    """Show readers what a build made and tested: all marts in one transaction, as a new generation.

    Args:
        windows: those that were to be built when the build began.

    Raises:
        HeadwaterError: see `connectors.destinations.warehouse.publish.publish`; readers keep the last generation.
    """
    connections = PrefectConnections()
    built = marts()
    grant_to_publisher(connections.database(WAREHOUSE_TRANSFORMER), sorted({mart.schema for mart in built}))
    report = publish(connections.database(WAREHOUSE_PUBLISHER), built, invocation_id=build.invocation_id, run=run)
    mark_built(connections.database(WAREHOUSE_PUBLISHER), report.generation, windows)
    log = get_run_logger()
    log.info("Generation %s is served.", report.generation)
    for mart in report.marts:
        log.info(
            "%s: %s rows; %s inserted, %s updated, %s deleted.",
            mart.name,
            f"{mart.total:,}",
            f"{mart.inserted:,}",
            f"{mart.updated:,}",
            f"{mart.deleted:,}",
        )
    return report
