"""Apply prefect.yaml to the Prefect server of the environment: blocks, work pool, deployments. Safe to repeat."""

from __future__ import annotations

import os
import subprocess
import sys

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from connectors.alerts.routing import read_routing
from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from deployments import automations
from deployments.local.layout import PROJECT_ROOT
from tasks.alerts import register_channels
from tasks.credentials import OPTIONAL, register, requirements

WORK_POOL = "headwater"


def register_blocks() -> list[str]:
    """Write the blocks and variables that the flows need, from HEADWATER_* in the environment.

    Returns:
        What was written, as Prefect names it.

    Raises:
        ConfigurationError: a value is missing or malformed.
    """
    given = [each for each in OPTIONAL if os.environ.get(each.environment_variable)]
    environment = EnvironmentConnections()
    return register(environment, [*requirements(), *given]) + register_channels(environment, read_routing())


def ensure_work_pool() -> None:
    """Make the process work pool that prefect.yaml names, unless there is one of that name."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return


def deploy_all() -> None:
    """Apply every deployment of prefect.yaml, and the automations.

    Raises:
        ConfigurationError: Prefect refused one, in its own words; or nobody could tell from deployments/alerts.yaml
            where alerts go.
    """
    routing = read_routing()
    outcome = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        lines = [line for line in (outcome.stdout + outcome.stderr).splitlines() if line.strip()]
        raise ConfigurationError(
            "Prefect refused prefect.yaml: " + " ".join(lines[-5:]),
            remedy="Correct it; `prefect --no-prompt deploy --all` says it at more length.",
        )
    automations.apply(routing)
