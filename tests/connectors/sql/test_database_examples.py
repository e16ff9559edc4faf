"""The sources of docs/databases.md: each is at most 15 lines, and loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from connectors.connections import EnvironmentConnections
from connectors.ingest import Destination, ingest
from connectors.model import Source
from connectors.postgres import PostgresSource
from connectors.sql import SqlSource
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare
from tests.connectors.sql.sql_databases import MySql

_PAGE = Path(__file__).resolve().parents[3] / "docs/databases.md"


def example(number: int) -> Any:
    code = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)[number]
    assert len(code.strip().splitlines()) <= 15
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102 - the page's own example
    [source] = [value for value in namespace.values() if isinstance(value, PostgresSource | SqlSource)]
    return source


def load(source: Source, url: str, destination: Destination) -> dict[str, int]:
    [database] = source.requirements
    connections = EnvironmentConnections({database.environment_variable: url})
    return {stream.name: ingest(source, stream, connections, destination)[-1].inserted for stream in source.streams}


def test_a_postgresql_database_is_a_source_in_15_lines(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table orders (id int primary key, updated_at timestamptz default now());"
        "create table order_items (id int primary key, updated_at timestamptz default now());"
        "insert into orders values (1), (2); insert into order_items values (1)"
    )
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    assert load(example(0), url, destination) == {"orders": 2, "order_items": 1}


def test_another_database_is_a_source_in_15_lines(mysql: MySql, warehouse: Warehouse, destination: Destination) -> None:
    mysql.execute(
        "create table customers (id serial primary key, updated_at timestamp default current_timestamp)",
        "create table payments (id serial primary key, details json)",
        "insert into customers () values (), ()",
        """insert into payments (details) values ('{"amount": 1.50}')""",
    )
    source = example(1)
    assert load(source, mysql.url.render_as_string(hide_password=False), destination) == {"customers": 2, "payments": 1}
    assert warehouse.query("select details ->> 'amount' from raw_shop.payments") == [("1.50",)]
