"""A new source in each of the lists: they stay what they were, and have it where it belongs."""

from __future__ import annotations

import ast
import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local.layout import PROJECT_ROOT
from deployments.scaffold_edits import registered, scheduled, timetabled

names = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,9}_[a-z0-9]{1,9}", fullmatch=True), max_size=4, unique=True)
REGISTRY = (PROJECT_ROOT / "connectors/registry.py").read_text()
PREFECT = (PROJECT_ROOT / "prefect.yaml").read_text()
TIMETABLE = (PROJECT_ROOT / "docs/timetable.md").read_text()


def words(name: str) -> dict[str, str]:
    return {"source": name, "deployment": name.replace("_", "-")}


def listed(text: str) -> list[str]:
    [found] = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Tuple) and len(node.elts) > 2]
    return [ast.unparse(each) for each in found.elts]


def imported(text: str) -> list[str]:
    return re.findall(r"(?m)^from connectors\.sources\.(\w+) import \1$", text)


def deployments(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load(text)["deployments"])


@given(names)
def test_the_registry_has_them_at_the_end_and_their_imports_in_order(new: list[str]) -> None:
    text = REGISTRY
    for name in new:
        text = registered(text, words(name))
    assert listed(text) == [*listed(REGISTRY), *new]
    assert sorted(imported(text)) == sorted([*imported(REGISTRY), *new])
    assert imported(text) == sorted(imported(text), key=lambda name: f"from connectors.sources.{name} import")


@settings(max_examples=20)  # each parses all of prefect.yaml
@given(names)
def test_prefect_yaml_and_the_timetable_have_them_in_one_order(new: list[str]) -> None:
    prefect, timetable = PREFECT, TIMETABLE
    for name in new:
        prefect, timetable = scheduled(prefect, words(name)), timetabled(timetable, words(name))
    before, after = deployments(PREFECT), deployments(prefect)
    added = [each for each in after if each not in before]
    assert [each["parameters"]["source"] for each in added] == new
    assert [each for each in after if each not in added] == before
    assert all(each["work_pool"] == before[0]["work_pool"] for each in added)
    rows = re.findall(r"(?m)^\| `ingest/([\w-]+)` \|", timetable)
    assert rows == [each["name"] for each in after if each["entrypoint"] == "flows.ingest.ingest"]


def test_a_comment_stays_with_the_deployment_that_it_is_about() -> None:
    comment = "  # Whoever changes this one asks first.\n"
    place = PREFECT.index("  - name: operations-db\n    description: Planes and airports that")
    edited = scheduled(PREFECT[:place] + comment + PREFECT[place:], words("tickets_api"))
    assert comment + PREFECT[place:] in edited


def test_a_source_can_be_the_last_of_them() -> None:
    end = PREFECT.index("\n  - name: operations-db\n    description: Planes and airports that")
    edited = scheduled(PREFECT[:end], words("tickets_api"))
    assert deployments(edited)[-1]["name"] == "tickets-api"
