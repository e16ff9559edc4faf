"""GitHub's workflows, as far as they can be checked where GitHub is not: their form, and the commands that they run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from deployments.cli import app
from deployments.local.layout import PROJECT_ROOT

WORKFLOWS = sorted((PROJECT_ROOT / ".github/workflows").glob("*.yml"))


def scripts() -> Iterator[tuple[str, str]]:
    """Every script that a step runs, with the name of its workflow."""
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            yield from ((path.name, step["run"]) for step in job["steps"] if "run" in step)


def steps() -> Iterator[dict[str, Any]]:
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            yield from job["steps"]


def test_every_workflow_has_the_form_that_github_takes() -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.github-workflows"]
    outcome = subprocess.run([*command, *map(str, WORKFLOWS)], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(("workflow", "script"), list(scripts()))
def test_what_a_workflow_runs_is_there(workflow: str, script: str, tmp_path: Path) -> None:
    # GitHub puts these in before a shell sees the script.
    plain = re.sub(r"\$\{\{.*?\}\}", "given", script)
    subprocess.run(["bash", "-n"], input=plain, text=True, check=True)  # noqa: S607
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in plain.splitlines():
        if made := re.match(r"\s*make (?:-C \S+ )?([a-z-]+)", line):
            assert made[1] in targets
        if asked := re.match(r"\s*(?:\.venv/bin/)?headwater ((?:[a-z][a-z-]* ?)+)(.*)", line):
            check_command(asked[1].split(), re.findall(r"(--[a-z-]+)", asked[2]))


def check_command(words: list[str], options: list[str]) -> None:
    """That `headwater` has it, with those options."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert set(options) <= {name for each in command.params for name in each.opts}


def test_an_action_is_of_a_version_and_no_script_is_given_what_a_stranger_wrote() -> None:
    """A title or branch that is put into a script is run by it; through the environment it is a text."""
    for step in steps():
        assert re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)?@(v\d+|[0-9a-f]{40})", step.get("uses", "a/b@v1"))
        assert "github.event" not in step.get("run", "")
        assert "github.head_ref" not in step.get("run", "")


def test_no_job_may_more_than_it_needs() -> None:
    for path in WORKFLOWS:
        content = yaml.safe_load(path.read_text())
        assert content["permissions"]["contents"] == "read", path.name
        assert "pull_request_target" not in content[True], "it would give a fork's code our secrets"  # YAML's `on`
        assert all(job["timeout-minutes"] <= 60 for job in content["jobs"].values())
