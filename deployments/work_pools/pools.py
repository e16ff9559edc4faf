"""The kinds of work pools, and what a pool of each is to be like in this environment. No Prefect is imported here.

The pool of processes is called `headwater`, the others `headwater-docker` and so on, so that one server may have
several while a team moves.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from connectors.errors import ConfigurationError

KIND_VARIABLE = "HEADWATER_WORK_POOL"
"""Names the kind for `headwater deploy`."""
PROCESS_POOL = "headwater"
"""The pool that prefect.yaml names."""
_FOLDER = Path(__file__).resolve().parent


class Kind(StrEnum):
    """Where runs run."""

    PROCESS = "process"
    DOCKER = "docker"
    ECS = "ecs"
    KUBERNETES = "kubernetes"

    @property
    def pool(self) -> str:
        """The name of its pool."""
        return PROCESS_POOL if self is Kind.PROCESS else f"{PROCESS_POOL}-{self}"


@dataclass(frozen=True, slots=True)
class WorkPool:
    """A pool as it is to be."""

    name: str
    type: str
    """As Prefect calls it."""
    description: str
    template: Mapping[str, Any]
    """Prefect's base job template."""


def work_pool(kind: Kind, environment: Mapping[str, str] | None = None) -> WorkPool:
    """The pool of a kind, its variables filled from the environment.

    Raises:
        ConfigurationError: the environment lacks what the kind cannot do without; all of it is named.
    """
    environment = os.environ if environment is None else environment
    content = read_template(kind)
    properties: dict[str, dict[str, Any]] = content["variables"]
    missing = []
    for name, variable in properties.items():
        source = variable.pop("environment", None)
        given = environment.get(source, "").strip() if source else ""
        if given:
            variable["default"] = _value(given, variable["type"])
        elif name in content["required"]:
            missing.append(f"{source} ({variable['title'].lower()})")
    if missing:
        raise ConfigurationError(
            f"The work pool `{kind.pool}` cannot be made: {', '.join(missing)} not set.",
            remedy=f"Set them in the environment, or choose another kind with {KIND_VARIABLE}; docs/work-pools.md.",
        )
    schema = {"type": "object", "properties": properties, "required": []}
    template = {"job_configuration": content["job_configuration"], "variables": schema}
    return WorkPool(kind.pool, content["type"], content["description"], template)


def read_template(kind: Kind) -> dict[str, Any]:
    """The file of a kind, as it is written."""
    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{kind}.yaml").read_text())
    return content


def read_sizes() -> dict[str, dict[str, dict[str, Any]]]:
    """Job variables by size and kind."""
    sizes: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((_FOLDER / "sizes.yaml").read_text())
    return sizes


def placed(prefect_yaml: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The content of prefect.yaml with each deployment on the pool of a kind, as large as its `size` says.

    Raises:
        ConfigurationError: a deployment has a size that sizes.yaml does not.
    """
    sizes = read_sizes()
    content = copy.deepcopy(dict(prefect_yaml))
    for deployment in content["deployments"]:
        # YAML's anchors are one object, here too: each deployment is given its own.
        on = deployment["work_pool"] = copy.deepcopy(deployment["work_pool"])
        on["name"] = kind.pool
        variables = on.setdefault("job_variables", {})
        size = variables.get("size", "small")
        if size not in sizes:
            raise ConfigurationError(
                f"The deployment `{deployment['name']}` of {deployment['entrypoint']} has the size `{size}`.",
                remedy=f"Give it one of {', '.join(sizes)} in prefect.yaml, or add one to work_pools/sizes.yaml.",
            )
        variables.update(sizes[size].get(kind, {}))
    return content


def _value(text: str, type_: str) -> str | list[str]:
    """What a variable of the environment says: lists are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()] if type_ == "array" else text
