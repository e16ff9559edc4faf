"""Where the page is put, what it needs, and what is kept of one for the next."""

from __future__ import annotations

import json
from pathlib import Path

import obstore
import pytest
from typer.testing import CliRunner

from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.errors import ConfigurationError
from connectors.object_store import open_store
from connectors.published_files import beside
from connectors.registry import SOURCES
from deployments.cli import app
from tasks.status_page.document import VERSION
from tasks.status_page.site import place, write_page
from tests.conftest import Warehouse
from tests.tasks.manifests import SHOP, manifest
from tests.tasks.status_page.conftest import Site, connections, create_raw_tables
from tests.tasks.status_page.filled import fill

PRIVATE = ("payload canary", "secret", "N12345")
"""What is in quarantine and in messages of PostgreSQL, and on no page."""


@pytest.fixture
def made(warehouse: Warehouse, tmp_path: Path) -> Site:
    fill(warehouse)
    create_raw_tables(warehouse)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(SHOP)))
    made = Site(warehouse, tmp_path / "page")
    made.make()
    return made


def test_no_value_of_anybodys_row_is_on_the_page(made: Site) -> None:
    for file in made.folder.iterdir():
        text = file.read_text()
        assert [canary for canary in PRIVATE if canary in text] == [], file.name
    [reason, *_] = [row["reason"] for row in made.document["quarantine"] if row["stream"] == "flights"]
    assert reason == 'column dep_time: invalid input syntax for type integer: "…"'


def test_the_page_and_its_json_are_the_same(made: Site) -> None:
    embedded = (made.folder / "index.html").read_text().split('id="data">')[1].split("</script>")[0]
    assert json.loads(embedded) == made.document
    assert made.document["version"] == VERSION


def test_every_part_of_the_json_is_documented(made: Site) -> None:
    documented = (Path(__file__).parents[3] / "docs" / "status-page.md").read_text()
    assert [name for name in made.document if f"`{name}`" not in documented] == []


def test_lineage_outlasts_the_manifest(made: Site, tmp_path: Path) -> None:
    lineage = made.document["lineage"]
    assert lineage["nodes"]
    made.make(tmp_path / "on another machine.json")
    assert made.document["lineage"] == lineage


def test_an_older_manifest_does_not_undo_what_a_later_build_has_shown(made: Site, tmp_path: Path) -> None:
    older = tmp_path / "older.json"
    older.write_text(json.dumps(manifest({}, generated_at="2025-01-01T00:00:00Z")))
    lineage = made.document["lineage"]
    made.make(older)
    assert made.document["lineage"] == lineage


def test_without_any_manifest_the_page_leaves_lineage_out(warehouse: Warehouse, tmp_path: Path) -> None:
    empty = Site(warehouse, tmp_path / "page")
    empty.make(tmp_path / "none.json")
    assert empty.document["lineage"] is None
    assert empty.document["verdict"] == {"level": "warning", "text": "Nothing is served yet.", "since": None}
    assert [stream["status"] for stream in empty.document["streams"]] == ["not checked"] * 5


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[1]", b'{"format": 0}'])
def test_kept_lineage_that_cannot_be_read_is_made_anew(made: Site, rubbish: bytes) -> None:
    before = made.document["lineage"]
    (made.folder / "lineage.json").write_bytes(rubbish)
    made.make()
    assert made.document["lineage"] == before


def test_a_page_goes_to_a_bucket_as_a_page(warehouse: Warehouse, s3: StoreLocation, tmp_path: Path) -> None:
    location = beside(s3, "page")
    assert location.url == "s3://landing/below/page"
    for _ in range(2):
        write_page(connections(warehouse, tmp_path), SOURCES.values(), to=location, manifest=tmp_path / "none")
    found = obstore.get(open_store(location), "index.html")
    assert found.attributes["Content-Type"] == "text/html; charset=utf-8"
    assert bytes(found.bytes()).startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("landing", "page"),
    [
        ("file:///home/ada/landing", "file:///home/ada/page"),
        ("file:///landing/", "file:///page"),
        ("s3://bucket/prefix/landing", "s3://bucket/prefix/page"),
        ("s3://bucket/landing", "s3://bucket/page"),
        ("s3://bucket", "s3://bucket/page"),
    ],
)
def test_the_page_is_beside_the_landing_unless_it_is_told_another_place(landing: str, page: str) -> None:
    assert place(EnvironmentConnections({"HEADWATER_LANDING_URL": landing})).url == page
    told = {"HEADWATER_LANDING_URL": landing, "HEADWATER_STATUS_PAGE_URL": "s3://other/status"}
    assert place(EnvironmentConnections(told)).url == "s3://other/status"


def test_the_command_writes_it_anywhere_and_says_where(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = warehouse.url("watcher").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_WATCHER_URL", url)
    outcome = CliRunner().invoke(app, ["page", "--out", str(tmp_path / "here")], catch_exceptions=False)
    assert outcome.exit_code == 0
    assert outcome.stdout.strip() == (tmp_path / "here" / "index.html").as_uri()
    assert (tmp_path / "here" / "index.html").read_bytes().startswith(b"<!doctype html>")


def test_a_warehouse_that_was_not_migrated_says_what_to_do(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.execute("drop view serving.data_status")
    with pytest.raises(ConfigurationError, match="headwater migrate"):
        write_page(connections(warehouse, tmp_path / "landing"), SOURCES.values(), manifest=tmp_path / "none")
