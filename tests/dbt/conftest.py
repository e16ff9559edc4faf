"""dbt in this process, on a warehouse of the tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dbt.artifacts.schemas.results import NodeStatus
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from deployments.local.layout import PROJECT_ROOT
from tests.conftest import ROLE_PASSWORD, Server, Warehouse, empty_warehouse
from tests.dbt.raw_data import create_raw_tables, keep_raw_tables, restore_raw_tables

GOOD = {NodeStatus.Pass, NodeStatus.Success, NodeStatus.NoOp, NodeStatus.Skipped}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a node."""

    status: NodeStatus
    message: str | None
    failures: int | None


def bad(outcomes: dict[str, Outcome]) -> dict[str, str]:
    """The nodes that failed or warned, each with its status; those that were skipped did neither."""
    return {name: str(outcome.status) for name, outcome in outcomes.items() if outcome.status not in GOOD}


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

    def list(self, *arguments: str) -> list[str]:
        """Names of the nodes that are selected."""
        with self._environment():
            outcome = dbtRunner(manifest=self.manifest or self.parse()).invoke(
                ["--quiet", "list", "--output", "name", *arguments, *self._folders()]
            )
        assert outcome.success, outcome.exception
        return list(outcome.result)

    def _folders(self) -> list[str]:
        return [
            *("--project-dir", str(self.project), "--profiles-dir", str(PROJECT_ROOT / "dbt")),
            *("--target-path", str(self.target), "--log-path", str(self.target)),
        ]

    def variables(self) -> dict[str, str]:
        """What dbt/profiles.yml reads."""
        url = self.warehouse.url("transformer")
        return {
            "HEADWATER_WAREHOUSE_HOST": str(url.host),
            "HEADWATER_WAREHOUSE_PORT": str(url.port),
            "HEADWATER_WAREHOUSE_DATABASE": self.warehouse.database,
            "DBT_ENV_SECRET_HEADWATER_TRANSFORMER_PASSWORD": ROLE_PASSWORD,
            "DO_NOT_TRACK": "1",
        }

    @contextmanager
    def _environment(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("HEADWATER_")]:
                patch.delenv(name)
            for name, value in self.variables().items():
                patch.setenv(name, value)
            yield


@pytest.fixture(scope="module")
def module_warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    """One warehouse for the tests of a file."""
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        yield warehouse


@pytest.fixture(scope="session")
def dbt(postgres: Server, _warehouse_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dbt]:
    """The project, on raw tables that are made up."""
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        create_raw_tables(warehouse)
        keep_raw_tables(warehouse)
        yield Dbt(warehouse, PROJECT_ROOT / "dbt", tmp_path_factory.mktemp("dbt"))


@pytest.fixture(scope="session")
def of_good_data(dbt: Dbt) -> dict[str, Outcome]:
    """What became of each node in the first build."""
    return dbt.run("build")


@pytest.fixture
def change(dbt: Dbt, of_good_data: dict[str, Outcome]) -> Iterator[Callable[[str], None]]:
    """Change raw, built once, until the end of the test."""
    yield dbt.warehouse.execute
    restore_raw_tables(dbt.warehouse)
