"""Start a deployment and follow it in the terminal: what it logs, and how it ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound

from connectors.errors import ConfigurationError, HeadwaterError, TransientError

_POLL_SECONDS = 0.5
_LAST_WORDS_SECONDS = 4.0
_PAGE = 200
_INFO = 20
_OVERLAP = timedelta(seconds=10)
_QUIET = (
    "All deployment steps",
    "Beginning ",
    "Created ",
    "Deployment step",
    "Downloading flow code",
    "Encountered exception",
    "Engine execution",
    "Executing ",
    "Finished in state",
    "Flow run",
    "Running ",
    "Worker ",
)
"""Beginnings of Prefect's own lines that say what ours say better."""


class RunFailedError(HeadwaterError):
    """A flow run ended in another state than Completed."""


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_DBT_STEP = re.compile(r"\d+ of \d+ (START|PASS|SKIP) ")
"""Of dbt's hundred nodes only models and failures are said here; the dashboard has them all."""


def run_deployment(
    name: str,
    say: Callable[[str], None],
    *,
    parameters: Mapping[str, Any] | None = None,
    timeout_seconds: float = 3600.0,
) -> FlowRun:
    """Start a deployment (`flow/deployment`) and wait for it, saying each line that its flows and loads log.

    Raises:
        ConfigurationError: there is no such deployment.
        RunFailedError: the run ended otherwise than Completed.
        TransientError: it has not ended in time, or was not even started by a worker.
    """
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise ConfigurationError(
                f"There is no deployment `{name}`.",
                remedy="Run `headwater deploy`; `prefect deployment ls` lists them.",
            ) from None
        run = client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters or {}))
        follower = _Follower(client, run.id, say)
        deadline = time.monotonic() + timeout_seconds
        while True:
            run = client.read_flow_run(run.id)
            follower.catch_up()
            if run.state is not None and run.state.is_final():
                break
            if time.monotonic() > deadline:
                raise TransientError(
                    f"The run {run.name} is {run.state_name} after {timeout_seconds:.0f} s.",
                    remedy="See it in the dashboard; a run that stays Scheduled or Pending has no worker.",
                )
            time.sleep(_POLL_SECONDS)
        # A run sends what it logged some moments after it has ended.
        patience = time.monotonic() + _LAST_WORDS_SECONDS
        while not follower.has_heard_the_end and time.monotonic() < patience:
            time.sleep(_POLL_SECONDS)
            follower.catch_up()
        if not run.state.is_completed():
            raise RunFailedError(
                f"The run {run.name} of {name} ended {run.state_name}: {run.state.message}",
                remedy="The dashboard has its log.",
            )
        return run


@dataclass(slots=True)
class _Follower:
    """Remembers what of a run, and of the runs it started, has been said."""

    client: SyncPrefectClient
    run_id: UUID
    say: Callable[[str], None]
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    said: set[UUID] = field(default_factory=set)
    has_heard_the_end: bool = False

    def catch_up(self) -> None:
        children = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id={"any_": [self.run_id]})  # type: ignore[arg-type]
        )
        for log in self._logs([self.run_id, *(child.id for child in children)]):
            if log.id is None or log.id in self.said:
                continue
            self.said.add(log.id)
            self.since = max(self.since, log.timestamp)
            line = _COLOUR.sub("", log.message.splitlines()[0])
            is_of_the_run = log.flow_run_id == self.run_id and log.task_run_id is None
            self.has_heard_the_end |= is_of_the_run and line.startswith("Finished in state")
            if not line.startswith(_QUIET) and not _DBT_STEP.match(line):
                self.say(line)

    def _logs(self, run_ids: list[UUID]) -> list[Log]:
        """What was logged lately; lines of different runs reach the server out of order, so a little overlaps."""
        logs: list[Log] = []
        while True:
            page = self.client.read_logs(
                log_filter=LogFilter(
                    flow_run_id={"any_": run_ids},  # type: ignore[arg-type]
                    level={"ge_": _INFO},  # type: ignore[arg-type]
                    timestamp={"after_": self.since - _OVERLAP},  # type: ignore[arg-type]
                ),
                sort=LogSort.TIMESTAMP_ASC,
                limit=_PAGE,
                offset=len(logs),
            )
            logs += page
            if len(page) < _PAGE:
                return logs
