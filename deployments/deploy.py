"""Apply prefect.yaml to the Prefect server of the environment: blocks, work pool, deployments. Safe to repeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from connectors.alerts.routing import read_routing
from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from deployments import automations
from deployments.local.layout import PROJECT_ROOT
from deployments.work_pools.pools import Kind, placed, work_pool
from tasks.alerts import register_channels
from tasks.credentials import OPTIONAL, register, requirements

PREFECT_YAML = PROJECT_ROOT / "prefect.yaml"
_PAGE = 200


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


def ensure_work_pool(kind: Kind = Kind.PROCESS) -> str:
    """Make the work pool of a kind what its template and the environment say; returns its name.

    Raises:
        ConfigurationError: the environment lacks something that the kind needs, or the server has a pool of that name
            and of another type.
    """
    wanted = work_pool(kind)
    with get_client(sync_client=True) as client:
        try:
            existing = client.read_work_pool(wanted.name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=wanted.name,
                    type=wanted.type,
                    description=wanted.description,
                    base_job_template=dict(wanted.template),
                )
            )
            return wanted.name
        if existing.type != wanted.type:
            raise ConfigurationError(
                f"The server has a work pool `{wanted.name}` of type `{existing.type}`, not `{wanted.type}`.",
                remedy=f"Delete it (prefect work-pool delete {wanted.name}); a pool's type cannot be changed.",
            )
        if (existing.description, existing.base_job_template) != (wanted.description, wanted.template):
            client.update_work_pool(
                wanted.name,
                WorkPoolUpdate(description=wanted.description, base_job_template=dict(wanted.template)),
            )
    return wanted.name


def deploy_all(kind: Kind = Kind.PROCESS) -> None:
    """Apply every deployment of prefect.yaml to the work pool of a kind, and the automations.

    Raises:
        ConfigurationError: Prefect refused one, in its own words; or nobody could tell from deployments/alerts.yaml
            where alerts go.
    """
    routing = read_routing()
    with _prefect_file(kind) as file:
        outcome = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
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


def prune() -> list[str]:
    """Delete the deployments that prefect.yaml no longer has, with what is scheduled of them.

    Only those that carry the name of the project, from prefect.yaml, as a tag: deployments of others stay.

    Returns:
        The names of those that were deleted.
    """
    content = _read_prefect_yaml()
    wanted = {(each["entrypoint"], each["name"]) for each in content["deployments"]}
    with get_client(sync_client=True) as client:
        gone = [each for each in _ours(client, content["name"]) if (each.entrypoint, each.name) not in wanted]
        names = [f"{client.read_flow(each.flow_id).name}/{each.name}" for each in gone]
        for each in gone:
            client.delete_deployment(each.id)
    return names


def _ours(client: SyncPrefectClient, tag: str) -> list[DeploymentResponse]:
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=tagged, limit=_PAGE, offset=len(found)):
        found += page
    return found


def _read_prefect_yaml() -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(PREFECT_YAML.read_text())
    return content


@contextmanager
def _prefect_file(kind: Kind) -> Iterator[Path]:
    """prefect.yaml, or for a pool other than that of processes, which it names, one that differs by that."""
    if kind is Kind.PROCESS:
        yield PREFECT_YAML
        return
    with TemporaryDirectory(prefix="headwater-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(placed(_read_prefect_yaml(), kind), sort_keys=False))
        yield file
