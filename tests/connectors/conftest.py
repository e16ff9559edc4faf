"""A scene for each test, by write disposition."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.ingest import Destination
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare
from tests.connectors.scene import Scene


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
) -> Scene:
    return Scene(source_database("select"), warehouse, destination, landing_folder, request.param)
