"""A browser for the file's tests, and a page of a bad night to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.connections import EnvironmentConnections
from connectors.registry import SOURCES
from tasks.status_page.site import write_page
from tests.browser import Tab, browser, found
from tests.conftest import Server, Warehouse, empty_warehouse
from tests.tasks.manifests import CATALOG, SHOP, manifest
from tests.tasks.status_page.filled import fill


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    command = found()
    if command is None:
        pytest.skip("There is no Chromium here: `make chromium` unpacks one where apt-get has it.")
    with browser(command) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Site:
    """A page that was made of a warehouse, and where it is."""

    warehouse: Warehouse
    folder: Path

    @property
    def address(self) -> str:
        return (self.folder / "index.html").as_uri()

    @property
    def document(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "status.json").read_bytes())
        return content

    def make(self, manifest_file: Path | None = None) -> None:
        write_page(
            connections(self.warehouse, self.folder.parent / "landing"),
            SOURCES.values(),
            manifest=manifest_file or self.folder.parent / "manifest.json",
            run="a test",
        )


def connections(warehouse: Warehouse, landing: Path) -> EnvironmentConnections:
    """What the page needs to be told, and no more: the watcher, who may read `ops`, and where the landing is."""
    return EnvironmentConnections(
        {
            "HEADWATER_WAREHOUSE_WATCHER_URL": warehouse.url("watcher").render_as_string(hide_password=False),
            "HEADWATER_LANDING_URL": landing.as_uri(),
        }
    )


def create_raw_tables(warehouse: Warehouse) -> None:
    """Empty raw tables with the columns of the made-up manifest."""
    for (schema, table), names in CATALOG.items():
        columns = ", ".join(f"{name} text" for name in names)
        warehouse.execute(f"create schema if not exists {schema}; create table {schema}.{table} ({columns})")


@pytest.fixture(scope="module")
def site(postgres: Server, _warehouse_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page of a bad night."""
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        fill(warehouse)
        create_raw_tables(warehouse)
        home = tmp_path_factory.mktemp("site")
        (home / "manifest.json").write_text(json.dumps(manifest(SHOP)))
        made = Site(warehouse, home / "page")
        made.make()
        yield made
