"""A real dbt project of two groups and one mart of none, and the warehouse that it is built in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from dbt.cli.main import dbtRunner

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.marts import PublishReport
from connectors.destinations.warehouse.publish import publish
from tasks.dbt_graph import Graph, Outcome
from tasks.dbt_results import outcomes_of
from tests.conftest import ROLE_PASSWORD, Server, Warehouse, create_warehouse

FILES = {
    "dbt_project.yml": """
name: shop
profile: shop
flags: {send_anonymous_usage_stats: false}
models:
  shop:
    staging: {+schema: staging, +materialized: view}
    marts:
      +schema: marts
      +materialized: table
      sales: {+group: sales}
      people: {+group: people}
""",
    "profiles.yml": """
shop:
  target: test
  outputs:
    test: {{type: postgres, host: {host}, port: {port}, dbname: {database}, user: headwater_transformer,
            password: {password}, schema: scratch, threads: 2}}
""",
    "macros/schema.sql": """
{% macro generate_schema_name(name, node) %}{{ return(name or target.schema) }}{% endmacro %}
""",
    "models/groups.yml": """
groups:
  - {name: sales, owner: {name: sales}}
  - {name: people, owner: {name: people}}
""",
    "models/sources.yml": """
sources:
  - name: shop
    schema: raw_shop
    config:
      loaded_at_field: at
      freshness: {warn_after: {count: 2, period: day}, error_after: {count: 96, period: hour}}
    tables:
      - name: orders
        columns: [{name: id, data_tests: [unique]}]
      - name: staff
        config: {freshness: null}
""",
    "models/staging/stg_orders.sql": "select id, total, staff_id from {{ source('shop', 'orders') }}",
    "models/staging/stg_staff.sql": "select id, name, (100 / size) as part from {{ source('shop', 'staff') }}",
    "models/staging/staging.yml": """
models:
  - name: stg_orders
    columns: [{name: total, data_tests: [not_null, {accepted_values: {values: [1, 2], config: {severity: warn}}}]}]
""",
    "models/marts/sales/fct_orders.sql": """
{{ config(materialized='incremental', unique_key='id', incremental_strategy='delete+insert') }}
select * from {{ ref('stg_orders') }}
""",
    "models/marts/people/dim_staff.sql": "select * from {{ ref('stg_staff') }}",
    "models/marts/all_in_one.sql": """
select o.id, s.name from {{ ref('fct_orders') }} o join {{ ref('dim_staff') }} s on s.id = o.staff_id
""",
    "models/marts/marts.yml": """
models:
  - name: fct_orders
    constraints: [{type: primary_key, columns: [id]}]
    columns:
      - {name: id}
      - name: staff_id
        data_tests: [{relationships: {to: ref('dim_staff'), field: id}}]
  - {name: dim_staff, constraints: [{type: primary_key, columns: [id]}], columns: [{name: id}]}
  - {name: all_in_one, constraints: [{type: primary_key, columns: [id]}], columns: [{name: id}]}
""",
    "tests/assert_orders_and_staff_agree.sql": """
select 1 from {{ ref('fct_orders') }} o join {{ ref('dim_staff') }} s on s.id = o.staff_id where s.name = 'nobody'
""",
}

GOOD = """
drop schema if exists raw_shop cascade;
create schema raw_shop;
create table raw_shop.orders as select n as id, 1 as total, 1 as staff_id, now() as at from generate_series(1, 3) n;
create table raw_shop.staff as select n as id, 'name ' || n as name, 1 as size from generate_series(1, 2) n;
grant usage on schema raw_shop to headwater_transformer;
grant select on all tables in schema raw_shop to headwater_transformer;
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """The project, and the warehouse that it is built in."""

    folder: Path
    warehouse: Warehouse

    def build(self) -> tuple[Graph, tuple[Outcome, ...]]:
        folders = ["--project-dir", str(self.folder), "--profiles-dir", str(self.folder)]
        outcome = dbtRunner().invoke(["build", "--quiet", *folders])
        manifest = json.loads((self.folder / "target" / "manifest.json").read_bytes())
        return Graph(manifest), outcomes_of(outcome.result.results)

    def run(self, spoil: str = "") -> PublishReport:
        """Load good data, spoil it, build, publish."""
        self.warehouse.execute(GOOD + spoil)
        graph, outcomes = self.build()
        prepare(self.warehouse.url("transformer"), graph.marts())
        return publish(
            self.warehouse.url("publisher"), graph.marts(), invocation_id="test", verdicts=graph.judge(outcomes)
        )

    def tests(self) -> list[tuple[object, ...]]:
        return self.warehouse.query(
            "select mart, tests_passed, tests_failed, tests_warned from serving.data_status order by mart"
        )


@pytest.fixture(scope="module")
def shop(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    os.environ["DO_NOT_TRACK"] = "1"
    warehouse = create_warehouse(postgres, f"dbt_graph_{uuid4().hex[:8]}")
    folder = tmp_path_factory.mktemp("shop")
    where = {
        "password": ROLE_PASSWORD,
        "host": postgres.url.host,
        "port": postgres.url.port,
        "database": warehouse.database,
    }
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.format(**where) if name == "profiles.yml" else text)
    try:
        yield Shop(folder, warehouse)
    finally:
        postgres.drop_database(warehouse.database)
