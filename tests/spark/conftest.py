"""Spark in a process of its own, as `headwater spark build` starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.commands.spark import check_installed
from deployments.local.errors import LocalStackError
from deployments.local.layout import PROJECT_ROOT

RunSpark = Callable[..., str]
_SECONDS = 3000


@pytest.fixture(scope="session")
def run_spark() -> RunSpark:
    """Build raw from a lake, and have dbt do something; what was printed. Skips where Spark cannot run."""
    try:
        check_installed()
    except LocalStackError as error:
        pytest.skip(str(error))

    def run(lake: Path, landing: Path, home: Path, *dbt: str, expect: int = 0) -> str:
        command = [str(PROJECT_ROOT / ".venv-spark/bin/python"), "-m", "deployments.spark.run"]
        command += ["--lake", lake.as_uri(), "--landing", landing.as_uri(), "--home", str(home)]
        if dbt:
            command += ["--", *dbt, "--target-path", str(home / "target"), "--log-path", str(home / "target")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        finished = subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            env={**environment, "DO_NOT_TRACK": "1", "HEADWATER_DBT_THREADS": "2"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        said = finished.stdout + finished.stderr
        assert finished.returncode == expect, said[-20_000:]
        return said

    return run


def tables(home: Path, schema: str, table: str) -> Path:
    """The folder of a table of Spark's."""
    return home / "tables" / f"{schema}.db" / table
