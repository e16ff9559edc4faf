"""Promises of the repository itself: layout, layers, the timetable, the README."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.errors import HeadwaterError
from connectors.registry import SOURCES
from tasks.publish import LEDGER

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return listed.stdout.splitlines()


def deployments() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return list(content["deployments"])


def flow_of(deployment: dict[str, Any]) -> str:
    """The flow's name, as Prefect shows it."""
    module, function = str(deployment["entrypoint"]).rsplit(".", 1)
    return str(getattr(importlib.import_module(module), function).name)


def test_dbt_never_becomes_a_python_package() -> None:
    """It would hide dbt's own package `dbt` from every import."""
    assert not [path for path in tracked() if path.startswith("dbt/") and path.endswith(".py")]


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("requirements.lock", 100),
        ("deployments/bi/requirements.lock", 100),
        ("deployments/containers/requirements.lock", 100),
        ("deployments/spark/requirements.lock", 50),
        (".ci/audit.lock", 40),
    ],
)
def test_a_lock_holds_hashes_and_no_address(file: str, least: int) -> None:
    lock = (ROOT / file).read_text()
    assert "://" not in lock
    assert "--index" not in lock
    packages = re.split(r"\n(?=[a-z])", lock)[1:]
    assert len(packages) > least
    assert all("--hash=sha256:" in package for package in packages)


def test_the_timetable_and_prefect_yaml_agree() -> None:
    rows = re.findall(
        r"^\| `([\w/-]+)` \| ([\w-]+) \| `([^`]+)` \|", (ROOT / "docs/timetable.md").read_text(), re.MULTILINE
    )
    scheduled = [
        (f"{flow_of(each)}/{each['name']}", schedule["slug"], schedule["cron"])
        for each in deployments()
        for schedule in each.get("schedules", ())
    ]
    assert rows == scheduled


def test_every_source_has_a_deployment_with_a_schedule() -> None:
    ingested = {each["parameters"]["source"] for each in deployments() if flow_of(each) == "ingest"}
    assert ingested == set(SOURCES)
    by_hand = {f"{flow_of(each)}/{each['name']}" for each in deployments() if not each.get("schedules")}
    assert by_hand == {"backfill/nyc", "backfill-helper/nyc"}
    assert all(each["concurrency_limit"]["limit"] == 1 for each in deployments() if each.get("schedules"))


def test_every_source_with_deletes_has_a_deployment_that_looks_for_them() -> None:
    looked_for = {each["parameters"]["source"] for each in deployments() if flow_of(each) == "deletions"}
    assert looked_for == {
        source.name for source in SOURCES.values() if any(stream.deletes for stream in source.streams)
    }


def test_every_deployment_carries_the_tag_by_which_those_that_have_gone_are_deleted() -> None:
    name = yaml.safe_load((ROOT / "prefect.yaml").read_text())["name"]
    assert [each["entrypoint"] for each in deployments() if name not in each["tags"]] == []


def test_no_parameter_of_a_deployment_holds_a_secret() -> None:
    names = {name for each in deployments() for name in each.get("parameters", {})}
    assert names <= {"source"}


def test_every_raw_table_is_a_dbt_source() -> None:
    declared = set()
    for path in (ROOT / "dbt/models/staging").glob("*/_*__sources.yml"):
        for source in yaml.safe_load(path.read_text())["sources"]:
            if source["name"] != LEDGER:
                declared |= {f"{source['name']}.{table['name']}" for table in source["tables"]}
    assert declared == {f"{source.name}.{stream.name}" for source in SOURCES.values() for stream in source.streams}


def test_the_readme_names_every_folder_and_links_to_what_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in ("connectors", "tasks", "flows", "dbt", "deployments", "tests", "docs"):
        assert f"`{folder}/`" in readme
    for target in re.findall(r"\]\((?!http)([^)#]+)", readme):
        assert (ROOT / target).exists(), target


def test_every_error_says_what_to_do() -> None:
    kinds = [HeadwaterError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    assert all(kind.__doc__ for kind in kinds)


def test_the_command_is_imported_without_prefect() -> None:
    """Prefect takes its settings when it is imported: before the stack is up there are none, and it would work on a
    server of its own."""
    script = "import sys, deployments.cli; print(sorted({'prefect', 'dbt'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
