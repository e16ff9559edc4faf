"""Backfills: the windows of a plan, read or brought back by any number of workers, each window once.

The windows are rows of `ops.backfill_windows`. A worker takes some adjacent ones as a batch, reads them as one load,
and takes the next. One that dies gives its batch back by dying. A batch that fails is cut in two, until the windows
that are at fault are alone; the others are loaded. What is left can be planned again at any time: only that is in the
plan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

from connectors.backfill.books import Progress, progress
from connectors.backfill.worker import Batch, Worker
from connectors.connections import Connections
from connectors.errors import HeadwaterError
from connectors.ingest import Destination, Logger, ingest
from connectors.model import Source, Stream
from connectors.replay import replay


def load(
    batch: Batch,
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    run: str = "by hand",
    log: Logger | None = None,
    watch: Callable[[int], None] | None = None,
) -> int:
    """Read the windows of a batch from the source, or bring their rows back from the landing.

    Args:
        watch: see `connectors.ingest.ingest`; rows of the landing are not watched.

    Returns:
        How many rows were inserted or changed.

    Raises:
        HeadwaterError: see `connectors.ingest.ingest` and `connectors.replay.replay`.
    """
    if batch.from_landing:
        moved = 0
        for load_id in batch.from_landing:
            reports = replay(source, stream, destination, load_id=load_id, window=batch.window, run=run, log=log)
            moved += sum(report.moved for report in reports)
        return moved
    reports = ingest(source, stream, connections, destination, window=batch.window, run=run, log=log, watch=watch)
    return sum(report.moved for report in reports)


def work(
    backfill_id: UUID,
    source: Source,
    stream: Stream,
    connections: Connections,
    destination: Destination,
    *,
    run: str = "by hand",
    log: Logger | None = None,
) -> Progress:
    """Work on a backfill until nothing of it is left; beside as many others as there are.

    Raises:
        ConfigurationError: there is no such backfill.
        DestinationUnavailableError: the warehouse does not answer.
    """
    log = log or logging.getLogger("headwater")
    with Worker(destination.warehouse, backfill_id, run) as worker:
        for batch in worker.batches():
            try:
                load(batch, source, stream, connections, destination, run=run, log=log)
            except HeadwaterError as error:
                log.warning("%s failed: %s", batch.window, error)
                worker.failed(batch, error)
            else:
                worker.done(batch)
    return progress(destination.warehouse, backfill_id)
