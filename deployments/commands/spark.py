"""The commands `headwater lake` and `headwater spark …`: the landing and the dbt project on another engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Annotated

import typer
from rich.table import Table

from connectors.connections import EnvironmentConnections, ObjectStore
from connectors.destinations.landing import Landing
from connectors.ingest import LANDING, Destination
from connectors.lake import refresh
from connectors.registry import SOURCES
from deployments.commands.terminal import OTHER, console, step, stream_named
from deployments.local.environment import process_environment
from deployments.local.errors import LocalStackError
from deployments.local.layout import PROJECT_ROOT, default_home

LAKE = ObjectStore("lake")
_PYTHON = PROJECT_ROOT / ".venv-spark" / "bin" / "python"

app = typer.Typer()
spark = typer.Typer(help="The dbt project on Spark (make spark installs it).", no_args_is_help=True)
app.add_typer(spark, name="spark", rich_help_panel=OTHER)


@app.command("lake", rich_help_panel=OTHER)
def lake_command(
    streams: Annotated[list[str] | None, typer.Argument(help="E.g. flights_api.flights; all, without any.")] = None,
) -> None:
    """Write what has been loaded since as Parquet into the lake, for other engines (HEADWATER_LAKE_URL)."""
    connections = EnvironmentConnections()
    destination, lake = Destination.of(connections), Landing(connections.object_store(LAKE))
    named = map(stream_named, streams) if streams else ((s, t) for s in SOURCES.values() for t in s.streams)
    table = Table("stream", "loads", "written now", box=None, pad_edge=False)
    for source, stream in named:
        report = refresh(source, stream, destination, lake)
        if report is not None:
            table.add_row(f"{source.name}.{stream.name}", f"{report.loads:,}", f"{report.written:,}")
    console.print(table)


@spark.command("build", context_settings={"ignore_unknown_options": True})
def build_command(
    dbt: Annotated[list[str] | None, typer.Argument(help="What dbt is to do, after `--`; `build` without any.")] = None,
) -> None:
    """Build raw and the marts on a Spark in a process of its own: the lake first, then raw, then dbt's target spark."""
    check_installed()
    connections = EnvironmentConnections()
    with step("lake"):
        lake_command(None)
    urls = [_for_spark(connections.object_store(store).url) for store in (LAKE, LANDING)]
    command = [str(_PYTHON), "-m", "deployments.spark.run", "--lake", urls[0], "--landing", urls[1]]
    command += ["--home", str(default_home() / "spark"), "--", *(dbt or ["build"])]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, env=process_environment(os.environ), check=False)
    if finished.returncode:
        raise typer.Exit(1)


def check_installed() -> None:
    """See that Spark can be started here.

    Raises:
        LocalStackError: it cannot, with what to install.
    """
    if not _PYTHON.exists():
        raise LocalStackError("Spark is not installed.", where=str(_PYTHON), remedy="Install it: `make spark`.")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise LocalStackError(
            "There is no Java, and Spark runs on it.",
            where="PATH and JAVA_HOME",
            remedy="Install Java 17 or 21, such as Debian's openjdk-17-jre-headless.",
        )


def _for_spark(url: str) -> str:
    """Hadoop's name for S3 is another."""
    return url.replace("s3://", "s3a://", 1) if url.startswith("s3://") else url
