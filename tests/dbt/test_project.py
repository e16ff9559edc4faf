"""What a team expects of a dbt project: owners, docs, a history of planes, slim runs, full refreshes on purpose."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dbt.contracts.graph.nodes import ModelNode, SnapshotNode

from deployments.local.environment import write_environment_file
from deployments.local.layout import PROJECT_ROOT
from tests.dbt.conftest import Dbt, Outcome, bad

PLANES = "raw_operations_db.planes"
HISTORY = "snap_operations_db__planes"


@pytest.fixture(scope="module")
def models(dbt: Dbt) -> list[ModelNode]:
    manifest = dbt.manifest or dbt.parse()
    return [node for node in manifest.nodes.values() if isinstance(node, ModelNode)]


def layer(models: list[ModelNode], name: str) -> list[ModelNode]:
    return [model for model in models if model.fqn[1] == name]


def test_every_model_has_an_owner_and_every_column_is_described(dbt: Dbt, models: list[ModelNode]) -> None:
    assert dbt.manifest is not None
    snapshots = [node for node in dbt.manifest.nodes.values() if isinstance(node, SnapshotNode)]
    assert len(snapshots) == 1
    for model in [*models, *snapshots]:
        assert model.config.meta["owner"], model.name
        assert model.description, model.name
        assert model.columns, model.name
        assert not [column.name for column in model.columns.values() if not column.description], model.name


def test_marts_are_contracts_of_a_group_and_steps_are_its_own_business(models: list[ModelNode]) -> None:
    for mart in layer(models, "marts"):
        assert mart.contract.enforced, mart.name
        assert [constraint.type for constraint in mart.constraints] == ["primary_key"], mart.name
        assert (mart.access, mart.group) == ("public", mart.fqn[2]), mart.name
    for step in layer(models, "intermediate"):
        assert (step.access, step.group) == ("private", step.fqn[2]), step.name


def test_every_mart_is_behind_an_exposure_with_an_owner(dbt: Dbt, models: list[ModelNode]) -> None:
    assert dbt.manifest is not None
    exposures = dbt.manifest.exposures.values()
    assert all(exposure.owner.email and exposure.description for exposure in exposures)
    exposed = {name for exposure in exposures for name in exposure.depends_on.nodes}
    assert {mart.unique_id for mart in layer(models, "marts")} <= exposed


def test_every_selector_selects_what_its_source_can_change(dbt: Dbt) -> None:
    names = [each["name"] for each in yaml.safe_load((PROJECT_ROOT / "dbt/selectors.yml").read_text())["selectors"]]
    assert names
    for name in names:
        selected = dbt.list("--selector", name, "--resource-type", "model")
        assert "fct_flights" in selected, name


def test_docs_are_comments_in_the_warehouse(dbt: Dbt, of_good_data: dict[str, Outcome]) -> None:
    without = dbt.warehouse.query(
        "select n.nspname || '.' || c.relname || '.' || a.attname from pg_attribute a"
        " join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('staging', 'intermediate', 'marts', 'snapshots') and c.relkind in ('r', 'v')"
        " and a.attnum > 0 and not a.attisdropped"
        " and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)"
    )
    assert without == []


def versions(dbt: Dbt, tail_number: str) -> list[tuple[Any, ...]]:
    return dbt.warehouse.query(
        "select seat_count, valid_to is null, valid_from = lag(valid_to) over (order by valid_from)"
        " from snapshots.snap_operations_db__planes where tail_number = %s order by valid_from",
        [tail_number],
    )


def test_the_history_has_each_version_of_a_plane_and_when_it_was_gone(dbt: Dbt, change: Callable[[str], None]) -> None:
    snapshot = ("build", "--select", HISTORY)
    everything = f"select count(*), count(valid_to) from snapshots.{HISTORY}"
    assert dbt.warehouse.query(everything) == [(10, 0)]
    assert bad(dbt.run(*snapshot)) == {}
    assert dbt.warehouse.query(everything) == [(10, 0)], "nothing changed, so nothing is written"

    change(f"update {PLANES} set seats = 160 where tailnum = 'N101'")  # with the time of change that it had
    assert bad(dbt.run(*snapshot)) == {}
    assert versions(dbt, "N101") == [(150, False, None), (160, True, True)]

    change(f"update {PLANES} set _deleted_at = now() where tailnum = 'N102'")
    assert bad(dbt.run(*snapshot)) == {}
    assert versions(dbt, "N102") == [(150, False, None)]
    change(f"update {PLANES} set _deleted_at = null where tailnum = 'N102'")
    assert bad(dbt.run(*snapshot, "--full-refresh")) == {}
    assert versions(dbt, "N102") == [(150, False, None), (150, True, False)], "it was gone in between"
    assert len(versions(dbt, "N101")) == 2, "a full refresh leaves the history alone"


def test_tests_of_the_history_fail_for_versions_that_overlap(dbt: Dbt, change: Callable[[str], None]) -> None:
    table = f"snapshots.{HISTORY}"
    dbt.warehouse.execute(f"update {table} set valid_to = null where tail_number = 'N103'")
    dbt.warehouse.execute(
        f"insert into {table} select (jsonb_populate_record(t, jsonb_build_object('version_id', 'another',"
        f" 'valid_to', valid_from))).* from {table} as t where tail_number = 'N103';"
        f"insert into {table} select (jsonb_populate_record(t, jsonb_build_object('version_id', 'a third'))).*"
        f" from {table} as t where version_id <> 'another' and tail_number = 'N103';"
        f"update {table} set valid_to = now() where tail_number = 'N104'"
    )
    try:
        assert bad(dbt.run("test", "--select", HISTORY)) == {
            "planes_have_one_version_at_a_time": "fail",
            "plane_versions_end_after_they_begin": "fail",
            "assert_valid_plane_versions_are_the_register": "warn",
        }
    finally:
        dbt.warehouse.execute(
            f"delete from {table} where version_id in ('another', 'a third');"
            f"update {table} set valid_to = null where tail_number = 'N104'"
        )


def test_a_full_refresh_of_a_large_model_is_refused_unless_it_is_allowed(
    dbt: Dbt, of_good_data: dict[str, Outcome]
) -> None:
    rows = "select min(xmin::text), count(*) from marts.fct_flights"
    before = dbt.warehouse.query(rows)
    refused = dbt.run("run", "--select", "fct_flights+", "--full-refresh")
    assert refused["fct_flights"].message is not None
    assert "add --vars 'allow_full_refresh: true'" in refused["fct_flights"].message
    assert bad(refused) == {"fct_flights": "error"}, "what depends on it was skipped"
    assert dbt.warehouse.query(rows) == before
    allowed = ("--full-refresh", "--vars", "allow_full_refresh: true")
    assert bad(dbt.run("run", "--select", "+fct_flights", *allowed)) == {}
    [(written_by, count)] = dbt.warehouse.query(rows)
    assert written_by != before[0][0]
    assert [(count,)] == dbt.warehouse.query("select count(*) from raw_flights_api.flights")


def test_a_slim_run_builds_what_changed_and_what_depends_on_it(
    dbt: Dbt, of_good_data: dict[str, Outcome], tmp_path: Path
) -> None:
    shutil.copytree(PROJECT_ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    home = tmp_path / "home"
    home.mkdir()
    write_environment_file(home / "env", {**dbt.variables(), "HEADWATER_DBT_TARGET": str(dbt.target)})
    edited = tmp_path / "dbt/models/marts/flight_operations/dim_planes.sql"
    edited.write_text(edited.read_text() + "where plane_key <> 'N101'\n")
    command = ["make", "-f", str(PROJECT_ROOT / "Makefile"), "-o", ".venv/.installed", "slim", "PREFIX=pr_7"]
    outcome = subprocess.run(
        [*command, f"HEADWATER_HOME={home}"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    results = json.loads((tmp_path / "dbt/target/slim/run_results.json").read_text())["results"]
    built = {result["unique_id"] for result in results if result["unique_id"].startswith("model.")}
    assert built == {"model.headwater.dim_planes"}, outcome.stdout
    counts = "select (select count(*) from pr_7_marts.dim_planes), (select count(*) from marts.dim_planes)"
    assert dbt.warehouse.query(counts) == [(10, 11)]
    schemas = dbt.warehouse.query("select nspname from pg_namespace where nspname like 'pr_7%' order by 1")
    assert schemas == [("pr_7_failures",), ("pr_7_marts",)], "the rest is read where it was built"
    failed = {result["unique_id"].split(".")[2] for result in results if result["status"] == "fail"}
    assert failed == {"relationships_fct_flights_plane_key__plane_key__ref_dim_planes_"}, "with the flights as they are"
    assert outcome.returncode != 0
