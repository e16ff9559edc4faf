"""A change of the dbt project reviewed: built beside the real schemas, compared, and nothing touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connectors.definitions import Need, StreamChange
from connectors.errors import ConfigurationError
from connectors.postgres import PostgresSource
from connectors.registry import SOURCES
from connectors.sources.operations_db import operations_db
from deployments.cli import app
from deployments.local.layout import PROJECT_ROOT
from tasks.review import ModelReview, Review, drop, review
from tasks.review_report import report
from tests.dbt.conftest import Dbt, Outcome

MARTS = "models/marts/flight_operations"
_CONTENT = "select md5(string_agg(md5(t::text), '' order by md5(t::text))) from {} t"
TABLES = ("marts.fct_flights", "marts.dim_planes", "marts.fct_weather_impact", "snapshots.snap_operations_db__planes")


@pytest.fixture
def changed(dbt: Dbt, of_good_data: dict[str, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project to be changed; the base is the project."""
    project = tmp_path / "dbt"
    shutil.copytree(PROJECT_ROOT / "dbt", project, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setattr("tasks.review.DBT_PROJECT", project)
    return project


@pytest.fixture
def reviewed(dbt: Dbt, changed: Path) -> Iterator[Callable[[], Review]]:
    """Reviews the change, and checks that nothing of what is there was touched."""
    before = [dbt.warehouse.query(_CONTENT.format(table)) for table in TABLES]

    def run() -> Review:
        found = review(PROJECT_ROOT, dbt.warehouse.url("transformer"), prefix="pr_3")
        assert [dbt.warehouse.query(_CONTENT.format(table)) for table in TABLES] == before
        return found

    yield run
    drop(dbt.warehouse.url("transformer"), "pr_3")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has changed; so must this test"
    path.write_text(text.replace(old, new, 1))


def schemas(dbt: Dbt) -> list[str]:
    return [name for (name,) in dbt.warehouse.query("select nspname from pg_namespace where nspname ~ '^pr_3_'")]


def test_what_a_change_does_to_rows_columns_and_tests_is_told_with_what_merging_it_needs(
    dbt: Dbt, changed: Path, reviewed: Callable[[], Review]
) -> None:
    planes = changed / MARTS / "dim_planes.sql"
    planes.write_text(planes.read_text() + "where plane_key <> 'N101'\n")
    localized = changed / "models/intermediate/flight_operations/int_flights_localized.sql"
    edit(localized, " distance_miles,", " distance_miles + (flight_id = 1)::int as distance_miles,")
    found = reviewed()
    models = {model.name: model for model in found.models}
    [(rows,)] = dbt.warehouse.query("select count(*) from marts.fct_flights")
    [(had,)] = dbt.warehouse.query("select count(*) from marts.dim_planes")

    difference = models["dim_planes"].difference
    assert difference is not None
    assert (difference.before, difference.after, difference.added, difference.removed) == (had, had - 1, 0, 1)
    assert difference.key == ("plane_key",)
    difference = models["fct_flights"].difference
    assert difference is not None
    assert (difference.before, difference.after, difference.changed) == (rows, rows, 1)
    assert {each.name: each.changed for each in difference.columns if each.changed} == {"distance_miles": 1}
    assert models["fct_flights"].needs_full_refresh
    assert not models["dim_planes"].needs_full_refresh, "a table is built anew by the next transform"
    assert {name for name, model in models.items() if model.is_modified} == {"dim_planes", "int_flights_localized"}
    assert "stg_flights_api__flights" not in models, "what did not change is read where it is"
    assert [each.name for each in found.failed] == ["relationships_fct_flights_plane_key__plane_key__ref_dim_planes_"]

    text = report(found, "main")
    assert f"| `dim_planes` | table, modified | {had:,} | {had - 1:,} | 0 | 1 | 0 |" in text
    assert "`distance_miles` differs in 1 row (" in text
    assert "**1 node failed**" in text
    assert "-p full_refresh=true -p 'select=fct_flights+'" in text
    assert "N101" not in text.replace("fct_flights", ""), "no value of a row"
    assert schemas(dbt)
    assert len(drop(dbt.warehouse.url("transformer"), "pr_3")) > 1
    assert schemas(dbt) == []


def test_a_variable_that_differs_builds_what_asks_for_it(
    dbt: Dbt, changed: Path, reviewed: Callable[[], Review]
) -> None:
    edit(changed / "dbt_project.yml", "weather_impact_minimum_flights: 100", "weather_impact_minimum_flights: 2")
    found = reviewed()
    assert {model.name for model in found.models} == {"fct_weather_impact"}
    assert found.models[0].is_modified


def test_a_change_of_words_changes_no_data_and_needs_nothing(
    dbt: Dbt, changed: Path, reviewed: Callable[[], Review]
) -> None:
    airlines = changed / MARTS / "dim_airlines.sql"
    airlines.write_text(f"-- a remark\n{airlines.read_text()}")
    found = reviewed()
    assert found.failed == ()
    difference = {model.name: model for model in found.models}["dim_airlines"].difference
    assert difference is not None
    assert difference.is_same
    text = report(found, "main")
    assert "table, modified, as it was" in text
    assert "- Nothing: the next transform builds it." in text


def test_the_definitions_of_streams_are_compared_with_those_of_the_base(
    dbt: Dbt, changed: Path, reviewed: Callable[[], Review], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report(reviewed(), "main").endswith("\n\nNothing that builds or reads data differs.\n")
    assert isinstance(operations_db, PostgresSource)
    streams = [
        replace(each, columns={"seats": "bigint"}) if each.name == "planes" else each for each in operations_db.streams
    ]
    kept = [each for each in streams if each.name != "airlines"]
    monkeypatch.setitem(SOURCES, "operations_db", replace(operations_db, streams=tuple(kept)))
    dbt.warehouse.execute(
        "insert into ops.loads (load_id, source, stream, status, attempt, rows_extracted)"
        " values ('01900000-0000-7000-8000-000000000777', 'operations_db', 'planes', 'loaded', 1, 3322)"
    )
    found = reviewed()
    assert [each.change for each in found.streams] == [
        StreamChange("operations_db.airlines", Need.RETIRE),
        StreamChange("operations_db.planes", Need.RELOAD, ("columns",)),
    ]
    text = report(found, "main")
    assert "`operations_db.airlines` is read no more" in text
    assert (
        "`prefect deployment run 'ingest/operations-db' -p full_refresh=true -p 'streams=[\"planes\"]'` (3,322 rows)"
        in text
    )


def test_models_that_come_and_go_are_named() -> None:
    found = Review(
        "pr_3",
        (
            ModelReview("fct_new", "table", is_modified=True, status="new"),
            ModelReview("fct_gone", "incremental", is_modified=True, status="removed"),
        ),
        streams_unknown="ModuleNotFoundError: No module named '<b>'",
    )
    text = report(found, "a | b")
    assert "| `fct_new` | table, **new** |" in text
    assert "`fct_gone` is built no more" in text
    assert "full_refresh" not in text
    assert "against a \\| b" in text
    assert "&lt;b&gt;" in text


def test_a_wrong_prefix_or_base_is_one_clear_error(dbt: Dbt, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("", "Pr", "1", "a.b", 'x"; drop schema marts; --', "%"):
        with pytest.raises(ConfigurationError, match="cannot be the prefix of schemas"):
            drop(dbt.warehouse.url("transformer"), prefix)
    url = dbt.warehouse.url("transformer").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_TRANSFORMER_URL", url)
    for base in ("no-such-branch", "--output=/tmp/anything"):
        outcome = CliRunner().invoke(app, ["review", "run", f"--base={base}"])
        assert isinstance(outcome.exception, ConfigurationError)
        assert f"There is no base `{base}` here" in str(outcome.exception)
        assert "git fetch" in str(outcome.exception)
