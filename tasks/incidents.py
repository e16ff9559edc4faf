"""At the end of each run, look at what it was about, and write down what is wrong with it.

A notice can neither fail the run nor hold it up: trouble is one warning in its log, and after `DEADLINE_SECONDS` the
run goes on, whatever the warehouse does. What a run could not say, the next one sees: everything is in `ops`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.exceptions import TerminationSignal

from connectors.alerts.routing import read_routing
from connectors.incidents.announcing import announcer
from connectors.incidents.checks import take_stock
from connectors.incidents.observe import Observed
from tasks.alerts import send_alerts
from tasks.bounded import within_deadline
from tasks.credentials import WAREHOUSE_WATCHER, PrefectConnections
from tasks.ingest import cleared, run_name
from tasks.stopping import stoppable

LOADED = ("loads", "backfills", "quarantine", "columns", "freshness")
"""What loads change."""
BUILT = ("builds", "serving", "freshness", "watching")
"""What builds change, and whether anybody watches: builds come regularly."""
RECONCILED = ("reconciliations", "backfills")
"""What reconciliations change, which heal by reading windows."""

BACKED_UP = ("backups",)
"""What backups change."""

DEADLINE_SECONDS = 5.0


@contextmanager
def noticed(*scopes: str) -> Iterator[None]:
    """Look at some subjects once this is over, however it ends, and send the alerts that are due. What others raise is
    cleared of secrets: Prefect makes the run's state of it.

    Use it inside a flow, around all that it does. A run that is told to stop breaks off in order, and looks at nothing:
    it has seconds, and what it leaves is no trouble.
    """
    is_told_to_stop = False
    try:
        with cleared(), stoppable():
            yield
    except TerminationSignal:
        is_told_to_stop = True
        raise
    finally:
        if not is_told_to_stop:
            notice(*scopes)
            send_alerts()


def notice(*scopes: str) -> None:
    """Look at some subjects now, open, join and close incidents, and put messages about them into the outbox.

    It never raises, and has a deadline.

    Args:
        scopes: of `connectors.incidents.checks.CHECKS`.
    """
    found: list[Observed] = []

    def look() -> tuple[str, ...]:
        found.append(
            take_stock(
                PrefectConnections().database(WAREHOUSE_WATCHER),
                scopes,
                run_id=run_name(),
                announce=announcer(read_routing()),
                wait_seconds=DEADLINE_SECONDS,
            )
        )
        return found[-1].problems

    problems = within_deadline(look, DEADLINE_SECONDS, "notice")
    log = get_run_logger()
    for each in found:
        if each.opened or each.worse or each.reopened:
            log.warning("Incidents: %s. `headwater incidents` lists what is open.", _named(each))
        elif each.closed:
            log.info("Incidents: %s.", _named(each))
    if problems:
        log.warning("What is wrong was not all written down, the next run does it: %s", "; ".join(problems))


def _named(found: Observed) -> str:
    parts = {"opened": found.opened, "opened again": found.reopened, "worse": found.worse, "closed": found.closed}
    return ", ".join(
        f"{', '.join(f'#{number}' for number in numbers)} {what}" for what, numbers in parts.items() if numbers
    )
