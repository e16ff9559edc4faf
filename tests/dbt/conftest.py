"""dbt in this process, on a warehouse of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dbt.artifacts.schemas.results import NodeStatus
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from deployments.local.layout import PROJECT_ROOT
from tests.conftest import ROLE_PASSWORD, Server, Warehouse, empty_warehouse

PASSED = {NodeStatus.Pass, NodeStatus.Success}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a node."""

    status: NodeStatus
    message: str | None
    failures: int | None


@dataclass(slots=True)
class Dbt:
    """A dbt project, run as the transformer; it is parsed once."""

    warehouse: Warehouse
    project: Path
    target: Path
    manifest: Manifest | None = None

    def parse(self) -> Manifest:
        with self._environment():
            outcome = dbtRunner().invoke(["--quiet", "parse", *self._folders()])
        assert outcome.success, outcome.exception
        assert isinstance(outcome.result, Manifest)
        self.manifest = outcome.result
        return outcome.result

    def install(self) -> None:
        """`dbt deps`."""
        with self._environment():
            folders = ["--project-dir", str(self.project), "--log-path", str(self.target)]
            assert dbtRunner().invoke(["--quiet", "deps", *folders]).success

    def run(self, *arguments: str) -> dict[str, Outcome]:
        """The outcome of each node by name. An error of dbt itself is raised; a node that fails is an outcome."""
        if self.manifest is None:
            self.parse()
        with self._environment():
            outcome = dbtRunner(manifest=self.manifest).invoke(["--quiet", *arguments, *self._folders()])
        if outcome.exception is not None:
            raise outcome.exception
        return {
            result.node.name: Outcome(result.status, result.message, result.failures)
            for result in outcome.result.results
        }

    def bad(self, *arguments: str) -> dict[str, str]:
        """The nodes that neither passed nor were skipped, each with its status."""
        return {
            name: str(outcome.status)
            for name, outcome in self.run(*arguments).items()
            if outcome.status not in PASSED and outcome.status != NodeStatus.Skipped
        }

    def _folders(self) -> list[str]:
        return [
            *("--project-dir", str(self.project), "--profiles-dir", str(PROJECT_ROOT / "dbt")),
            *("--target-path", str(self.target), "--log-path", str(self.target)),
        ]

    @contextmanager
    def _environment(self) -> Iterator[None]:
        url = self.warehouse.url("transformer")
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("HEADWATER_")]:
                patch.delenv(name)
            patch.setenv("HEADWATER_WAREHOUSE_HOST", str(url.host))
            patch.setenv("HEADWATER_WAREHOUSE_PORT", str(url.port))
            patch.setenv("HEADWATER_WAREHOUSE_DATABASE", self.warehouse.database)
            patch.setenv("DBT_ENV_SECRET_HEADWATER_TRANSFORMER_PASSWORD", ROLE_PASSWORD)
            patch.setenv("DO_NOT_TRACK", "1")
            yield


@pytest.fixture(scope="module")
def module_warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    """One warehouse for the tests of a file."""
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        yield warehouse
