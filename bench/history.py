"""History: what it takes to write down a build, of what the build itself takes.

The build is a project of 500 models and as many tests, by dbt alone: in a flow it takes longer still. What is timed of
history is all that comes after the build, from dbt's results to the last commit.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from dbt.cli.main import dbtRunner

import tasks.transform
from bench.results import Result
from bench.scene import Scene
from tasks.dbt_results import node_results, outcomes_of
from tasks.history import BuildHistory, write
from tasks.transform import BuildReport

_MODELS = 500


def run(scene: Scene, rounds: int) -> Iterator[Result]:
    """The benchmark: in each round a build, then its history."""
    scene.fresh_warehouse()
    limits, times = [], []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-dbt-") as folder:
        project = Path(folder)
        _write_project(project, scene)
        for _ in range(rounds):
            limit, taken = _build(scene, project)
            limits.append(limit)
            times.append(taken)
    ratio = median(mine / other for mine, other in zip(times, limits, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield Result(
        "history_of_a_build", 2 * _MODELS, median(times), median(limits), ratio, peak, "that build, by dbt alone"
    )


def _build(scene: Scene, project: Path) -> tuple[float, float]:
    """Seconds of a build, and of its history; all of its nodes have to be in `ops` afterwards."""
    begun = time.monotonic()
    started_at = datetime.now(UTC)
    folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
    outcome: Any = dbtRunner().invoke(["--quiet", "build", *folders])
    limit = time.monotonic() - begun
    if not outcome.success:
        sys.exit(f"The project does not build: {outcome.exception}")
    tasks.transform.DBT_TARGET = project / "target"  # type: ignore[attr-defined]  # where this build left its manifest
    invocation = json.loads((project / "target" / "manifest.json").read_bytes())["metadata"]["invocation_id"]

    begun = time.monotonic()
    results = outcome.result.results
    outcomes = outcomes_of(results)
    build = BuildReport(
        invocation, _MODELS, _MODELS, 0, outcomes, (), node_results(results), started_at, datetime.now(UTC)
    )
    problems = write(BuildHistory("bench", None, False, (), started_at, build), scene.warehouse("watcher"))
    taken = time.monotonic() - begun
    with scene.connect("warehouse") as connection:
        [(nodes,)] = connection.execute(
            "select count(*) from ops.dbt_results where invocation_id = %s", [invocation]
        ).fetchall()
    if problems or nodes != 2 * _MODELS:
        sys.exit(f"The history is not whole: {nodes} nodes. {' '.join(problems)}")
    return limit, taken


def _write_project(project: Path, scene: Scene) -> None:
    os.environ["DO_NOT_TRACK"] = "1"
    url = scene.warehouse("transformer")
    target = {
        "type": "postgres",
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
        "user": url.username,
        "password": str(url.password),
        "schema": "bench",
        "threads": 4,
    }
    files = {
        "dbt_project.yml": {"name": "bench", "profile": "bench", "flags": {"send_anonymous_usage_stats": False}},
        "profiles.yml": {"bench": {"target": "bench", "outputs": {"bench": target}}},
        "models/models.yml": {
            "models": [
                {"name": f"m_{number}", "columns": [{"name": "id", "data_tests": ["not_null"]}]}
                for number in range(_MODELS)
            ]
        },
    }
    for name, content in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(json.dumps(content))
    for number in range(_MODELS):
        # A tree: each is made from one before it.
        source = f"{{{{ ref('m_{(number - 1) // 2}') }}}}" if number else "generate_series(1, 1000) as id"
        (project / "models" / f"m_{number}.sql").write_text(
            f"{{{{ config(materialized='table') }}}}\nselect id from {source}"
        )
