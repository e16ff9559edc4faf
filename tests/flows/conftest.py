"""Transforms that run against the Prefect server of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import Server, Warehouse, empty_warehouse
from tests.dbt.raw_data import create_raw_tables, keep_raw_tables
from tests.flows.transforms import Nursery, Transforms, small_project
from tests.shop import shop

__all__ = ["shop"]


@pytest.fixture(scope="session")
def nursery(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    folder = tmp_path_factory.mktemp("transforms")
    project = small_project(folder / "dbt")
    variables = {"HEADWATER_DBT_PROJECT": str(project), "PREFECT_API_URL": prefect_server, "DO_NOT_TRACK": "1"}
    with Nursery(folder, variables) as nursery:
        yield nursery


@pytest.fixture(scope="session")
def _transforms(
    postgres: Server, _warehouse_template: str, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transforms]:
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        create_raw_tables(warehouse)
        keep_raw_tables(warehouse)
        transforms = Transforms(nursery, warehouse, tmp_path_factory.mktemp("target"))
        transforms.register()
        transforms.run()
        yield transforms


@pytest.fixture
def transforms(_transforms: Transforms) -> Transforms:
    """A warehouse in which a first generation is served, and transforms of it."""
    _transforms.register()
    return _transforms


@pytest.fixture
def new_warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Callable[[], Warehouse]]:
    """Makes warehouses with raw tables, of which nothing has been built."""
    with ExitStack() as stack:

        def new() -> Warehouse:
            warehouse = stack.enter_context(empty_warehouse(postgres, _warehouse_template))
            create_raw_tables(warehouse)
            return warehouse

        yield new
