"""What tests of publishing share: marts made by hand, as dbt would make them, and publishes of them."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.marts import Mart, PublishReport, Verdict
from connectors.destinations.warehouse.positions import Position
from connectors.destinations.warehouse.publish import publish
from tests.conftest import Warehouse

ORDERS = Mart("fct_orders", "marts", ("id",), group="sales", is_incremental=True)
SUMS = Mart("fct_sums", "marts", ("kind",), group="sales", reads=frozenset({"fct_orders"}))
STAFF = Mart("dim_staff", "marts", ("id",), group="people")
ALL = (ORDERS, SUMS, STAFF)

BUILD = """
create schema marts;
create table marts.fct_orders as
    select n as id, (n * 10)::numeric as total, 'k' || n % 3 as kind from generate_series(1, 100) n;
create table marts.fct_sums as select kind, sum(total) as total from marts.fct_orders group by kind;
create table marts.dim_staff as select n as id, 'name ' || n as name from generate_series(1, 10) n;
"""
"""`fct_sums` always adds up `fct_orders`."""

RAISE_TOTALS = """
update marts.fct_orders set total = total + 1;
drop table marts.fct_sums cascade;
create table marts.fct_sums as select kind, sum(total) as total from marts.fct_orders group by kind;
"""


def change(warehouse: Warehouse, statements: str) -> None:
    """Do what dbt would."""
    with warehouse.connect("transformer") as connection:
        connection.execute(statements.encode())


def read(warehouse: Warehouse, statement: str) -> list[tuple[object, ...]]:
    """Rows, as BI sees them."""
    with warehouse.connect("reader") as connection:
        return connection.execute(statement.encode()).fetchall()


def run(
    warehouse: Warehouse,
    *marts: Mart,
    verdicts: Mapping[str, Verdict] | None = None,
    positions: tuple[Position, ...] = (),
) -> PublishReport:
    """Publish, as after a build."""
    marts = marts or ALL
    prepare(warehouse.url("transformer"), marts)
    return publish(warehouse.url("publisher"), marts, invocation_id="test", verdicts=verdicts, positions=positions)


def content(warehouse: Warehouse, relation: str) -> list[tuple[object, ...]]:
    """All rows of a table or view, to the byte."""
    columns = warehouse.query(
        "select string_agg(format('%%I', attname), ', ' order by attname) from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [relation],
    )[0][0]
    return (
        warehouse.query(f"select encode(record_send(row({columns})), 'hex') from {relation} order by 1")
        if columns
        else []
    )
