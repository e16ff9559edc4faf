"""A change reviewed before it is merged: what it builds, what that does to the data, and what merging it will need.

What differs from the base in the dbt project, and what depends on it, is built in schemas of its own; all else is read
where the last transform built it. Then each model is compared with what is there, and the definitions of the streams
with those of the base. Nothing that readers or flows use is touched.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dbt.artifacts.schemas.results import NodeStatus
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.definitions import Need, StreamChange, changes, described
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.table_comparison import Relation, TableDifference, compare
from connectors.destinations.warehouse.windows import unbuilt_windows
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.registry import SOURCES
from tasks.dbt_folders import DBT_PROJECT
from tasks.dbt_graph import Outcome
from tasks.dbt_results import outcomes_of
from tasks.transform import dbt_environment, parsed

_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,30}")
_BUILT = ("model", "seed", "snapshot")
_DEFINITIONS = """
import json
from connectors.definitions import described
from connectors.registry import SOURCES
print(json.dumps(described(SOURCES.values())))
"""


@dataclass(frozen=True, slots=True)
class ModelReview:
    """One model that was built, or is built no more."""

    name: str
    kind: str
    """table, view, incremental, snapshot …"""
    is_modified: bool
    """Itself; not only what it is built from."""
    status: str
    """What dbt says of it; `removed`: the base has it, this project does not."""
    difference: TableDifference | None = None
    """From what is there; None: it is new, or was not compared."""
    why_not: str = ""
    """Why it was not compared."""

    @property
    def needs_full_refresh(self) -> bool:
        """Whether rows that were built before the merge will stay as they were, and are not what the change makes."""
        if self.kind != "incremental" or self.status != NodeStatus.Success:
            return False
        return self.difference is None or not self.difference.is_same


@dataclass(frozen=True, slots=True)
class StreamNeed:
    """A stream whose definition changes, and how much there is to read again."""

    change: StreamChange
    windows: int = 0
    rows: int = 0
    """Of these windows; of the last whole load, where there are none."""


@dataclass(frozen=True, slots=True)
class Review:
    """What came of it."""

    prefix: str
    models: tuple[ModelReview, ...] = ()
    streams: tuple[StreamNeed, ...] = ()
    streams_unknown: str = ""
    """Why the definitions of the base could not be read."""
    failed: tuple[Outcome, ...] = ()
    """Nodes that failed, tests among them."""
    passed: int = 0
    """Tests that passed or warned."""
    unbuilt: Mapping[str, int] | None = None
    """Windows by stream that loads have changed since the last transform: what they brought is in the comparison."""


def check_prefix(prefix: str) -> str:
    """A prefix that schemas can have.

    Raises:
        ConfigurationError: it is none.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"`{prefix}` cannot be the prefix of schemas.",
            remedy="Use lower-case letters, digits and underscores, 31 at most, a letter first: pr_12.",
        )
    return prefix


def review(base: Path, transformer: URL, *, prefix: str, seconds: float = 300.0) -> Review:
    """Build what differs from a base beside the real schemas, and compare it.

    Args:
        base: a checkout of what is deployed: with its folder dbt and its connectors.
        transformer: the warehouse, as the role that dbt runs as.
        prefix: of the schemas, `<prefix>_marts`. They are made anew, and stay.
        seconds: how long the comparison of one model may take.

    Raises:
        ConfigurationError: a project that does not parse or compile, a prefix that is none.
        DestinationUnavailableError: the warehouse does not answer.
    """
    drop(transformer, prefix)
    streams, streams_unknown = _streams(base, transformer)
    before = parsed(transformer, base / "dbt")
    with TemporaryDirectory() as folder, _prefixed(prefix, transformer):
        state = Path(folder, "state")
        state.mkdir()
        (state / "manifest.json").write_text(json.dumps(before))
        folders = ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
        folders += ["--target-path", str(Path(folder, "target")), "--log-path", folder, "--state", str(state)]
        modified = _listed(["state:modified"], folders)
        outcomes: tuple[Outcome, ...] = ()
        variables = _changed_variables(base / "dbt", DBT_PROJECT)
        if variables:
            modified |= _readers(json.loads(Path(folder, "target", "manifest.json").read_bytes()), variables)
        if modified:
            names = [name.split(".")[2] for name in sorted(modified) if name.startswith(("model.", "snapshot."))]
            selection = ["--select", "state:modified+", *(f"{name}+" for name in names), "--defer", "--favor-state"]
            outcome = dbtRunner().invoke(["build", "--no-use-colors", *selection, *folders])
            if not isinstance(outcome.result, RunExecutionResult):
                raise ConfigurationError(
                    f"dbt could not build what has changed: {outcome.exception}",
                    remedy="Run `dbt build --select …` in the folder dbt, which says it at more length.",
                )
            outcomes = outcomes_of(outcome.result.results)
        after = json.loads(Path(folder, "target", "manifest.json").read_bytes())
    statuses = {each.unique_id: each.status for each in outcomes}
    models = [
        _reviewed(
            after["nodes"][name], before["nodes"].get(name), status, name in modified, transformer, seconds, after
        )
        for name, status in statuses.items()
        if name in after["nodes"] and after["nodes"][name]["resource_type"] in _BUILT
    ]
    models += [
        ModelReview(node["name"], node["config"]["materialized"], is_modified=True, status="removed")
        for name, node in before["nodes"].items()
        if node["resource_type"] in _BUILT and name not in after["nodes"]
    ]
    tested = [each for each in outcomes if not each.unique_id.startswith(tuple(f"{kind}." for kind in _BUILT))]
    return Review(
        prefix,
        tuple(models),
        streams,
        streams_unknown,
        tuple(each for each in outcomes if each.status in (NodeStatus.Error, NodeStatus.Fail, NodeStatus.RuntimeErr)),
        sum(each.status in (NodeStatus.Pass, NodeStatus.Warn) for each in tested),
        Counter(f"{each.source}.{each.stream}" for each in unbuilt_windows(transformer)),
    )


def drop(transformer: URL, prefix: str) -> list[str]:
    """Drop the schemas of a review, those that dbt makes and no others; their names.

    Raises:
        ConfigurationError: the prefix is none, or a schema is another role's.
    """
    check_prefix(prefix)
    with connect(transformer, "review", autocommit=True) as connection, translated_errors():
        found = [
            name
            for (name,) in connection.execute(
                "select nspname from pg_catalog.pg_namespace where nspname ~ %s and nspowner = current_user::regrole",
                [f"^{prefix}_(staging|intermediate|marts|snapshots|failures|scratch)$"],
            )
        ]
        for name in found:
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))
    return found


def _reviewed(
    node: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    status: str,
    is_modified: bool,
    transformer: URL,
    seconds: float,
    manifest: Mapping[str, Any],
) -> ModelReview:
    kind = "snapshot" if node["resource_type"] == "snapshot" else node["config"]["materialized"]
    name = node["name"]
    if status != NodeStatus.Success:
        return ModelReview(name, kind, is_modified, status, why_not="it was not built")
    if before is None:
        return ModelReview(name, kind, is_modified, "new")
    if kind == "snapshot":
        return ModelReview(name, kind, is_modified, status, why_not="here its history begins with this build")
    try:
        difference = compare(
            transformer,
            Relation(before["schema"], before["alias"]),
            Relation(node["schema"], node["alias"]),
            key=key_of(node, manifest),
            seconds=seconds,
        )
    except HeadwaterError as error:
        return ModelReview(name, kind, is_modified, status, why_not=str(error))
    return ModelReview(name, kind, is_modified, status, difference)


def key_of(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a model's rows apart, as it says itself: its primary key, its `unique_key`, or a column tested to be
    unique; none otherwise."""
    for constraint in node.get("constraints") or ():
        if constraint["type"] == "primary_key":
            return tuple(constraint["columns"])
    if unique_key := node["config"].get("unique_key"):
        return (unique_key,) if isinstance(unique_key, str) else tuple(unique_key)
    tests = (
        each["column_name"]
        for each in manifest["nodes"].values()
        if each["resource_type"] == "test"
        and each.get("attached_node") == node["unique_id"]
        and (each.get("test_metadata") or {}).get("name") == "unique"
        and each.get("column_name")
    )
    first = min(tests, default=None)
    return (first,) if first else ()


def _changed_variables(before: Path, after: Path) -> set[str]:
    """Variables of the project that have another value, are new or gone; `state:modified` looks at none of them."""
    then, now = ((yaml.safe_load((each / "dbt_project.yml").read_text()).get("vars") or {}) for each in (before, after))
    return {name for name in {*then, *now} if then.get(name) != now.get(name)}


def _readers(manifest: Mapping[str, Any], variables: set[str]) -> set[str]:
    """The nodes whose code, or a macro of theirs, asks for one of some variables."""
    asks = re.compile(rf"""\bvar\(\s*["'](?:{"|".join(map(re.escape, sorted(variables)))})["']""")
    macros = manifest["macros"]
    asking = {name for name, macro in macros.items() if asks.search(macro["macro_sql"])}
    while more := {name for name, each in macros.items() if asking.intersection(each["depends_on"]["macros"])} - asking:
        asking |= more
    return {
        name
        for name, node in manifest["nodes"].items()
        if asks.search(node.get("raw_code") or "") or asking.intersection(node["depends_on"].get("macros", ()))
    }


def _listed(selection: list[str], folders: list[str]) -> set[str]:
    """The nodes of a selection that can be built."""
    listing = ["ls", "--log-level", "none", "--select", *selection, "--output", "json", "--output-keys", "unique_id"]
    kinds = [f"--resource-type={kind}" for kind in (*_BUILT, "test", "unit_test")]
    outcome = dbtRunner().invoke([*listing, *kinds, *folders])
    if not outcome.success:
        raise ConfigurationError(
            f"dbt could not tell what has changed: {outcome.exception}", remedy="Run `dbt parse` in the folder dbt."
        )
    lines = outcome.result if isinstance(outcome.result, list) else []
    return {json.loads(line)["unique_id"] for line in lines}


@contextmanager
def _prefixed(prefix: str, transformer: URL) -> Iterator[None]:
    name = "HEADWATER_SCHEMA_PREFIX"
    before = os.environ.get(name)
    os.environ[name] = prefix
    try:
        with dbt_environment(transformer):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _streams(base: Path, transformer: URL) -> tuple[tuple[StreamNeed, ...], str]:
    """The streams whose definitions differ from the base's; or why nobody can say."""
    asked = subprocess.run(
        [sys.executable, "-c", _DEFINITIONS],
        cwd=base,
        env={**os.environ, "PYTHONPATH": str(base)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if asked.returncode != 0:
        last = asked.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return (), last[0]
    found = changes(json.loads(asked.stdout), described(SOURCES.values()))
    with connect(transformer, "review", autocommit=True) as connection, translated_errors():
        return tuple(StreamNeed(each, *_size(connection, each)) for each in found), ""


def _size(connection: Any, change: StreamChange) -> tuple[int, int]:
    """Windows and rows that a reload reads."""
    if change.need is not Need.RELOAD:
        return 0, 0
    windows, rows = connection.execute(
        "select count(*), coalesce(sum(rows), 0)::bigint from ops.windows where (source, stream) = (%s, %s)",
        change.stream.split("."),
    ).fetchone()
    if not windows:
        [rows] = connection.execute(
            "select coalesce(max(rows_extracted), 0)::bigint from ops.loads"
            " where (source, stream) = (%s, %s) and status = 'loaded'",
            change.stream.split("."),
        ).fetchone()
    return windows, rows
