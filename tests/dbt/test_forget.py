"""`headwater forget` reaches the models of this project, by what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.destinations.warehouse.columns import column_name
from connectors.errors import ConfigurationError
from connectors.registry import SOURCES
from deployments.cli import app
from tasks.forget_lineage import lineage_of
from tests.dbt.conftest import Dbt, Outcome, bad


@pytest.fixture
def manifest(dbt: Dbt, of_good_data: dict[str, Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((dbt.target / "manifest.json").read_bytes())
    return found


@pytest.fixture
def say(dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """The command, on the warehouse of the tests."""
    for role in ("owner", "loader", "transformer", "publisher"):
        url = dbt.warehouse.url(role).render_as_string(hide_password=False)
        monkeypatch.setenv(f"HEADWATER_WAREHOUSE_{role.upper()}_URL", url)
    monkeypatch.setenv("HEADWATER_LANDING_URL", (tmp_path / "landing").as_uri())
    for table in ("raw_flights_api.flights", "raw_operations_db.planes"):
        dbt.warehouse.execute(
            f"alter table {table} owner to headwater_loader;"
            f" grant usage, create on schema {table.partition('.')[0]} to headwater_loader"
        )

    def run(*arguments: str) -> str:
        outcome = CliRunner().invoke(app, ["forget", *arguments], catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    yield run
    dbt.warehouse.execute("delete from ops.forgotten; delete from ops.forget_places; delete from ops.forget_requests")


def test_no_stream_has_a_model_that_keeps_its_rows_without_a_word(manifest: dict[str, Any]) -> None:
    for source in SOURCES.values():
        for stream in source.streams:
            columns = [column_name(name) for name in stream.primary_key]
            lineage_of(manifest, source.name, stream.name).check(columns)


def test_the_lineage_has_all_that_is_kept_of_a_stream(manifest: dict[str, Any]) -> None:
    planes = lineage_of(manifest, "operations_db", "planes")
    tables = {each.name: (each.keeps_rows, each.key, each.group) for each in planes.tables}
    assert tables["snap_operations_db__planes"] == (True, {"tailnum": "tail_number"}, None)
    assert tables["dim_planes"] == (False, None, "flight_operations")
    assert "stg_operations_db__planes" not in tables, "a view keeps nothing"
    assert ("failures", "planes_have_one_version_at_a_time") in planes.failures
    assert ("failures", "flights_equal_a_rebuild") not in planes.failures


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"key": {"id": "flight_id"}}, "does not name a `source`"),
        ({"source": "flights_api.flights"}, "both `key` and `build`, or none"),
        ({"source": "flights_api.flights", "key": "flight_id"}, "does not name columns"),
    ],
)
def test_what_a_model_says_without_sense_is_an_error(
    manifest: dict[str, Any], said: dict[str, Any], message: str
) -> None:
    [node] = [node for node in manifest["nodes"].values() if node["name"] == "fct_flights"]
    node["config"]["meta"]["forget"] = said
    with pytest.raises(ConfigurationError, match=message):
        lineage_of(manifest, "flights_api", "flights")


def test_a_flight_is_forgotten_and_what_adds_it_up_follows_with_the_next_build(
    dbt: Dbt, change: Callable[[str], None], say: Callable[..., str]
) -> None:
    [(flight,)] = dbt.warehouse.query("select min(id) from raw_flights_api.flights")
    there = "select count(*) from marts.fct_flights where flight_id = %s"
    looked = say("flights_api.flights", "--key", f"id={flight}", "--dry-run")
    assert "would be erased" in looked
    assert dbt.warehouse.query(there, [flight]) == [(1,)]
    said = say("flights_api.flights", "--key", f"id={flight}", "--why", "they asked", "--yes", "--no-build")
    assert "erased; to be built" in said
    assert "marts.fct_daily_carrier_performance" in said
    assert "Out of reach: backups" in said
    assert dbt.warehouse.query(there, [flight]) == [(0,)]
    assert "to be built" in say("--resume", "--no-build")
    assert bad(dbt.run("build", "--select", "+fct_flights+")) == {}, "the sums are those of the flights again"
    assert "1 of 1 keys were forgotten" in say("flights_api.flights", "--key", str(flight), "--allow-again")


def test_a_plane_is_forgotten_with_its_history(
    dbt: Dbt, change: Callable[[str], None], say: Callable[..., str], tmp_path: Path
) -> None:
    plane = dbt.warehouse.query("select t::text from raw_operations_db.planes t where tailnum = 'N105'")
    (tmp_path / "keys").write_text("N105\n\n")
    say("operations_db.planes", "--keys-from", str(tmp_path / "keys"), "--yes", "--no-build")
    history = "select count(*) from snapshots.snap_operations_db__planes where tail_number = 'N105'"
    assert dbt.warehouse.query(history) == [(0,)]
    change("insert into raw_operations_db.planes select * from kept.planes where tailnum = 'N105'")
    assert dbt.warehouse.query("select t::text from raw_operations_db.planes t where tailnum = 'N105'") == plane
    assert bad(dbt.run("build", "--select", "snap_operations_db__planes")) == {}  # for other tests
