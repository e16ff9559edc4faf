"""One warehouse for the tests of a file that empty it themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Server, Warehouse, empty_warehouse


@pytest.fixture(scope="module")
def module_warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        yield warehouse
