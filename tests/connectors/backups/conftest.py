"""A drill on a shop's orders and what models make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Api, Warehouse
from tests.connectors.backups.drill import Drill
from tests.connectors.examples import Shop, order, shop_source


@pytest.fixture
def drill(api: Api, warehouse: Warehouse, tmp_path: Path) -> Drill:
    return Drill(warehouse, tmp_path, api, shop_source(reject_limit=0.5))


@pytest.fixture
def shop(api: Api) -> Shop:
    return Shop(api, [order(n, email=f"{n}@birds.test") for n in range(1, 8)])
