"""Review a change before it is merged: what it does to the data, and what merging it needs."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from deployments.commands.terminal import console
from deployments.local.layout import PROJECT_ROOT

app = typer.Typer(help="Review a change before it is merged.", no_args_is_help=True)

Prefix = Annotated[str, typer.Option(help="Of the schemas that it builds in, e.g. pr_12.")]


@app.command("run")
def run(
    base: Annotated[
        str, typer.Option(help="What is deployed: a commit, a branch, or a folder with a checkout.")
    ] = "main",
    prefix: Prefix = "review",
    report_to: Annotated[Path | None, typer.Option("--report", help="Write the report here too, as Markdown.")] = None,
    seconds: Annotated[float, typer.Option(help="How long the comparison of one model may take.")] = 300.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the schemas, to look at what is in them.")] = False,
) -> None:
    """Build what differs beside the real schemas, compare it, say what merging needs. Exit code 1: a node failed."""
    from tasks.credentials import WAREHOUSE_TRANSFORMER
    from tasks.review import drop, review
    from tasks.review_report import report

    transformer = EnvironmentConnections().database(WAREHOUSE_TRANSFORMER)
    with _checkout(base) as folder:
        try:
            found = review(folder, transformer, prefix=prefix, seconds=seconds)
        finally:
            if not keep:
                drop(transformer, prefix)
    text = report(found, base)
    if report_to is not None:
        report_to.write_text(text)
    console.print(text, markup=False)
    if found.failed:
        raise typer.Exit(1)


@app.command("drop")
def drop_command(prefix: Prefix = "review") -> None:
    """Drop the schemas of a review that was kept."""
    from tasks.credentials import WAREHOUSE_TRANSFORMER
    from tasks.review import drop

    dropped = drop(EnvironmentConnections().database(WAREHOUSE_TRANSFORMER), prefix)
    console.print(f"Dropped {', '.join(dropped)}." if dropped else "There were none.")


@contextmanager
def _checkout(base: str) -> Iterator[Path]:
    """The files of a commit, for as long as they are needed; a folder is taken as it is.

    Raises:
        ConfigurationError: there is no such commit here.
    """
    if Path(base, "dbt", "dbt_project.yml").is_file():
        yield Path(base).resolve()
        return
    # An archive, not a work tree: a run that is killed leaves nothing in the repository.
    archive = subprocess.run(
        ["git", "archive", "--format=tar", "--end-of-options", base],  # noqa: S607
        cwd=PROJECT_ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        raise ConfigurationError(
            f"There is no base `{base}` here: {archive.stderr.decode(errors='replace').strip()}",
            remedy="Fetch it first (`git fetch origin main`), or give another commit, or a folder with a checkout.",
        )
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)
