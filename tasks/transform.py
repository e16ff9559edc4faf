"""dbt inside a flow: builds, docs, what is downstream, and the truth about the outcome."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbt.artifacts.schemas.results import NodeStatus
from dbt.cli.main import dbtRunner
from dbt_common.invocation import get_invocation_id
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect_dbt import PrefectDbtSettings
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.history import NodeResult
from connectors.errors import ConfigurationError, DataError
from tasks.credentials import WAREHOUSE_TRANSFORMER, PrefectConnections
from tasks.dbt_folders import DBT_PROJECT, DBT_TARGET
from tasks.dbt_graph import Graph, Outcome, named
from tasks.dbt_nodes import NodeRunner
from tasks.dbt_results import message_of, node_results, outcomes_of

_GOOD = {NodeStatus.Success, NodeStatus.Pass, NodeStatus.Warn, NodeStatus.NoOp, NodeStatus.Skipped}


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What became of a dbt build."""

    invocation_id: str
    built: int
    """Models, seeds and snapshots."""
    tested: int
    """Tests that passed or warned."""
    warned: int
    outcomes: tuple[Outcome, ...] = ()
    """Of all nodes, by the invocation itself."""
    failed: tuple[Outcome, ...] = ()
    results: tuple[NodeResult, ...] = ()
    """The same outcomes, with all that is kept of them."""
    started_at: datetime = field(default_factory=partial(datetime.now, UTC))
    ended_at: datetime = field(default_factory=partial(datetime.now, UTC))

    def check(self, consequence: str) -> None:
        """Fail if a node has failed.

        Args:
            consequence: what that means for readers; a sentence.

        Raises:
            DataError: it has; those that need it were skipped.
        """
        if not self.failed:
            return
        skipped = sum(outcome.status == NodeStatus.Skipped for outcome in self.outcomes)
        raise DataError(
            f"{len(self.failed)} dbt node{'s' if len(self.failed) != 1 else ''} failed: {named(self.failed)}."
            f"{f' {skipped} that need them were skipped.' if skipped else ''}",
            remedy=f"{consequence} Each failed node is a task run with its log in the dashboard.",
        )


def build(*, select: str | None = None, full_refresh: bool = False) -> BuildReport:
    """Build and test the project (or a selection) in the warehouse. Call it inside a flow.

    Args:
        select: dbt node selection; all of the project without it.
        full_refresh: build incremental models from the beginning.

    Raises:
        ConfigurationError: dbt could not start: a wrong selection, a model that does not compile, no warehouse.
    """
    arguments = ["build"]
    if select:
        arguments += ["--select", *select.split()]
    if full_refresh:
        arguments += ["--full-refresh", "--vars", "allow_full_refresh: true"]
    settings = PrefectDbtSettings(project_dir=DBT_PROJECT, profiles_dir=DBT_PROJECT, target_path=DBT_TARGET)
    runner = NodeRunner(settings, lambda: _artifact("manifest.json")["parent_map"])
    started_at = datetime.now(UTC)
    with dbt_environment(PrefectConnections().database(WAREHOUSE_TRANSFORMER)):
        try:
            outcome = runner.invoke(arguments)
        except ValueError as error:
            raise ConfigurationError(
                f"dbt could not build: {error}",
                remedy="See the run's log; `dbt build` in the folder dbt says it at more length.",
            ) from error
    results = outcome.result.results if outcome.result is not None else []
    outcomes = outcomes_of(results)
    failed = tuple(each for each in outcomes if each.status not in _GOOD)
    if not outcome.success and not failed:
        raise ConfigurationError(
            f"dbt did not end well, and no node says why: {outcome.exception or 'it was stopped'}.",
            remedy="See the run's log. Nothing was published; readers keep the last good generation.",
        )
    if not results:
        raise ConfigurationError(
            f"dbt selected nothing by `{select}`.",
            remedy="Correct the selection; `dbt ls --select …` shows what it takes.",
        )
    # Exposures and hooks have results too.
    is_built = [result.node.resource_type in ("model", "seed", "snapshot") for result in results]
    warned = [result for result in results if result.status == NodeStatus.Warn]
    for result in warned:
        get_run_logger().warning("%s warns: %s", result.node.name, message_of(result.message))
    return BuildReport(
        get_invocation_id(),
        sum(built and each.status == NodeStatus.Success for each, built in zip(outcomes, is_built, strict=True)),
        sum(each.status in (NodeStatus.Pass, NodeStatus.Warn) for each in outcomes),
        len(warned),
        outcomes,
        failed,
        node_results(results),
        started_at,
        datetime.now(UTC),
    )


@task(name="write dbt docs", cache_policy=NO_CACHE, persist_result=False)
def write_docs() -> None:
    """Write the project's documentation, with what the warehouse holds, as one page: `static_index.html`.

    Raises:
        ConfigurationError: dbt could not write it.
    """
    with dbt_environment(PrefectConnections().database(WAREHOUSE_TRANSFORMER)):
        # The manifest of the build that has just run is taken: nothing is parsed or compiled again.
        outcome = dbtRunner().invoke(["docs", "generate", "--static", "--no-compile", "--quiet", *_folders()])
    if not outcome.success:
        raise ConfigurationError(
            f"dbt could not write its docs: {outcome.exception}", remedy="Run `dbt docs generate` in the folder dbt."
        )


def docs_page() -> Path:
    """Where `write_docs` leaves the documentation."""
    return DBT_TARGET / "static_index.html"


def graph(build: BuildReport) -> Graph:
    """The graph that a build has built.

    Raises:
        ConfigurationError: see `manifest_of`.
    """
    return Graph(manifest_of(build))


def manifest_of(build: BuildReport) -> dict[str, Any]:
    """dbt's manifest of a build.

    Raises:
        ConfigurationError: it is not here, or another invocation has written over it.
    """
    manifest = _artifact("manifest.json")
    if manifest["metadata"]["invocation_id"] != build.invocation_id:
        raise ConfigurationError(
            "The manifest here is not that of this build: another dbt has run in the same folder meanwhile.",
            remedy=f"Give each its own HEADWATER_DBT_TARGET; it is {DBT_TARGET} here. Then run the transform again.",
        )
    return manifest


def parsed(transformer: URL, project: Path = DBT_PROJECT) -> dict[str, Any]:
    """The manifest of the project (or of another one) as it is now, whatever a build has left.

    Raises:
        ConfigurationError: the project does not parse.
    """
    with TemporaryDirectory() as target, dbt_environment(transformer):
        folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
        outcome = dbtRunner().invoke(["parse", "--quiet", *folders, "--target-path", target, "--log-path", target])
        if not outcome.success:
            raise ConfigurationError(
                f"dbt could not read its project: {outcome.exception}", remedy="Run `dbt parse` in the folder dbt."
            )
        manifest: dict[str, Any] = json.loads(Path(target, "manifest.json").read_bytes())
    return manifest


@dataclass(frozen=True, slots=True)
class Downstream:
    """A model that reads a stream, directly or through others."""

    model: str
    how: str
    """What of it a build writes when windows of the stream have changed, and why."""


def downstream(source: str, stream: str) -> list[Downstream]:
    """The models that a stream's rows end up in, in the order in which dbt builds them.

    Raises:
        ConfigurationError: the project does not parse.
    """
    try:
        manifest = _artifact("manifest.json")
    except ConfigurationError:
        with dbt_environment(PrefectConnections().database(WAREHOUSE_TRANSFORMER)):
            outcome = dbtRunner().invoke(["parse", "--quiet", *_folders()])
        if not outcome.success:
            raise ConfigurationError(
                f"dbt could not read its project: {outcome.exception}", remedy="Run `dbt parse` in the folder dbt."
            ) from None
        manifest = _artifact("manifest.json")
    found: dict[str, Downstream] = {}
    reached = [
        name for name, node in manifest["sources"].items() if (node["source_name"], node["name"]) == (source, stream)
    ]
    for name in reached:  # grows while it is walked
        for child in manifest["child_map"].get(name, ()):
            node = manifest["nodes"].get(child)
            if node is not None and node["resource_type"] == "model":
                reached.append(child)
                found.pop(child, None)  # the last way to it is the longest
                found[child] = Downstream(node["name"], _rebuilt(node["config"]))
    return list(found.values())


def _rebuilt(config: Mapping[str, Any]) -> str:
    kind = config["materialized"]
    if kind == "view":
        return "nothing: a view"
    if kind == "incremental" and config.get("event_time"):
        return f"the rows of these windows that changed, by {config['event_time']}"
    if kind == "incremental":
        return "the rows that changed"
    return f"in full: a {kind}, which dbt makes anew"


def _artifact(name: str) -> dict[str, Any]:
    """One of dbt's files.

    Raises:
        ConfigurationError: it is not there, or torn: dbt was killed while it wrote it.
    """
    path = DBT_TARGET / name
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        raise ConfigurationError(
            f"dbt left no whole {name} here.",
            remedy="Run the transform first: `prefect deployment run 'transform/nyc'`.",
        ) from None
    return content


def _folders() -> list[str]:
    return ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT), "--target-path", str(DBT_TARGET)]


@contextmanager
def dbt_environment(transformer: URL) -> Iterator[None]:
    """What dbt/profiles.yml reads, for as long as dbt runs."""
    values = {
        "HEADWATER_WAREHOUSE_HOST": transformer.host or "",
        "HEADWATER_WAREHOUSE_PORT": str(transformer.port or 5432),
        "HEADWATER_WAREHOUSE_DATABASE": transformer.database or "",
        "HEADWATER_TRANSFORMER_USER": transformer.username or "",
        "DBT_ENV_SECRET_HEADWATER_TRANSFORMER_PASSWORD": str(transformer.password or ""),
        # Of a dbt that was killed, a statement that runs goes soon, and its locks with it: dbt cannot set this itself.
        "PGOPTIONS": f"{os.environ.get('PGOPTIONS', '')} -c client_connection_check_interval=5s".strip(),
        "DO_NOT_TRACK": "1",
    }
    if "sslmode" in transformer.query:
        values["HEADWATER_WAREHOUSE_SSLMODE"] = str(transformer.query["sslmode"])
    # What dbt's own profile has no place for, its driver takes from these.
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if name in transformer.query:
            values[f"PG{name.upper()}"] = str(transformer.query[name])
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
