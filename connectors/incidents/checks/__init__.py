"""What is wrong now, by `ops` alone: runs that were killed say as much as those that ended.

Each check looks at one subject and returns all that it sees of it; it changes nothing. The subjects are the scopes of
observations. They are read within the observation, after its turn has come, so that none overwrites a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import psycopg
from sqlalchemy.engine import URL

from connectors.errors import ConfigurationError
from connectors.incidents.checks.backfills import check_backfills
from connectors.incidents.checks.backups import check_backups
from connectors.incidents.checks.builds import check_builds
from connectors.incidents.checks.columns import check_columns
from connectors.incidents.checks.freshness import check_freshness
from connectors.incidents.checks.loads import check_loads
from connectors.incidents.checks.quarantine import check_quarantine
from connectors.incidents.checks.reconciliations import check_reconciliations
from connectors.incidents.checks.serving import check_serving
from connectors.incidents.checks.watching import check_watching
from connectors.incidents.lineage import Lineage
from connectors.incidents.observe import WAIT_SECONDS, Observed, Seen, observation, record
from connectors.incidents.record import Announce
from connectors.incidents.rules import Rules

Check = Callable[[psycopg.Connection, Lineage], Seen]

CHECKS: Mapping[str, Check] = {
    "loads": check_loads,
    "backfills": check_backfills,
    "quarantine": check_quarantine,
    "columns": check_columns,
    "freshness": check_freshness,
    "builds": check_builds,
    "serving": check_serving,
    "reconciliations": check_reconciliations,
    "backups": check_backups,
    "watching": check_watching,
}
"""The checks, by their scope."""


def take_stock(
    warehouse: URL,
    scopes: Iterable[str] = tuple(CHECKS),
    *,
    run_id: str | None = None,
    rules: Rules | None = None,
    announce: Announce | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Observed:
    """Look at some subjects, or all, and write down what is wrong with them. A check that fails leaves the others.

    Args:
        warehouse: as the role `headwater_watcher`.
        announce, run_id: see `connectors.incidents.observe.observe`.
        wait_seconds: how long to wait for the turn, and how long each statement may take.

    Raises:
        ConfigurationError: there is no such scope.
        DestinationUnavailableError: the warehouse does not answer, or gave no turn in time.
    """
    chosen = list(scopes)
    if unknown := [scope for scope in chosen if scope not in CHECKS]:
        raise ConfigurationError(
            f"There is no check `{unknown[0]}`.", remedy=f"Use one of {', '.join(f'`{name}`' for name in CHECKS)}."
        )
    with observation(warehouse, wait_seconds=wait_seconds) as connection:
        lineage = Lineage.read(connection)
        seen: dict[str, Seen] = {}
        problems = []
        for scope in chosen:
            try:
                with connection.transaction():
                    seen[scope] = CHECKS[scope](connection, lineage)
            except Exception as error:
                if connection.closed or connection.broken:
                    raise
                problems.append(f"{scope}: {' '.join(str(error).split())}")
        found = record(connection, lineage, seen, rules=rules or Rules.of(), announce=announce, run_id=run_id)
        return replace(found, problems=tuple(problems))
