"""What tests of forgetting share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors.connections import Connections, EnvironmentConnections
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forget_requests import open_requests
from connectors.destinations.warehouse.marts import Mart
from connectors.forget.derived import Derived, Lineage
from connectors.forget.keys import subject_of
from connectors.forget.run import ForgetReport, Roles, forget, look, resume
from connectors.ingest import Destination
from connectors.model import Source
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import run
from tests.telling import landing_telling, tables_telling


def roles(warehouse: Warehouse) -> Roles:
    return Roles(warehouse.url("owner"), warehouse.url("transformer"), warehouse.url("publisher"))


def lineage_of(source: Source) -> Lineage:
    """A stream that no model reads."""
    return Lineage(f"{source.name}.{source.streams[0].name}")


def forgotten(
    source: Source,
    warehouse: Warehouse,
    destination: Destination,
    *keys: str,
    connections: Connections | None = None,
    lineage: Lineage | None = None,
    **options: Any,
) -> ForgetReport:
    subject = subject_of(source, source.streams[0], keys, connections or EnvironmentConnections({}))
    return forget(subject, destination, roles(warehouse), lineage or lineage_of(source), by="a test", **options)


def looked(
    source: Source, warehouse: Warehouse, destination: Destination, *keys: str, lineage: Lineage | None = None
) -> ForgetReport:
    subject = subject_of(source, source.streams[0], keys, EnvironmentConnections({}))
    return look(subject, destination, roles(warehouse), lineage or lineage_of(source))


def resumed(
    source: Source, warehouse: Warehouse, destination: Destination, lineage: Lineage | None = None
) -> list[ForgetReport]:
    """All requests that are not done, taken up again."""
    with connect(warehouse.url("owner"), "test") as connection:
        requests = open_requests(connection)
    return [
        resume(each, source, source.streams[0], destination, roles(warehouse), lineage or lineage_of(source))
        for each in requests
    ]


def check_gone(warehouse: Warehouse, landing: Path, *texts: str) -> None:
    """No text is anywhere."""
    assert landing_telling(landing, texts) == []
    assert tables_telling(warehouse, texts) == []


def check_whole(warehouse: Warehouse, destination: Destination, landing: Path, source: Source) -> None:
    """Raw comes out of the landing as it is, every object of the landing is listed, and the ledger adds up."""
    table = f"raw_{source.name}.{source.streams[0].name}"
    before = all_rows(warehouse, table)
    rebuild(source, source.streams[0], destination)
    assert all_rows(warehouse, table) == before
    listed = {
        landed.key
        for manifest in destination.landing.manifests(source.name, source.streams[0].name)
        for landed in manifest.objects
    }
    there = {path.relative_to(landing).as_posix() for path in landing.rglob("*") if path.is_file()}
    assert {
        name for name in there if not name.endswith("manifest.json") and not name.startswith("_forgotten/")
    } == listed
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]


def all_rows(warehouse: Warehouse, table: str, where: str = "true") -> Sequence[tuple[Any, ...]]:
    return warehouse.query(f"select t::text from {table} t where {where} order by 1")


PEOPLE = Mart("fct_people", "marts", ("version_id",), group="people", is_incremental=True)
TOWNS = Mart("dim_people", "marts", ("person_id",), group="people")
SUMS = Mart("fct_sums", "marts", ("length",), group="sums")

MODELS = Lineage(
    "shop.orders",
    (
        Derived("int_people", "intermediate", keeps_rows=True, key={"id": "person_id"}),
        Derived("snap_people", "snapshots", keeps_rows=True, key={"id": "person_id"}),
        Derived("fct_people", "marts", keeps_rows=True, key={"id": "person_id"}, group="people"),
        Derived("dim_people", "marts", keeps_rows=False, key={"id": "person_id"}, group="people"),
        Derived("fct_sums", "marts", keeps_rows=False, group="sums"),
    ),
    (("failures", "people_are_old_enough"), ("failures", "a_test_that_passes")),
)

_SELECT = "select id::text as person_id, email, 'v-' || email as version_id from raw_shop.orders"
_SUMS = "select email as length, count(*) as n from raw_shop.orders group by 1"


def build_models(warehouse: Warehouse) -> None:
    """What dbt would make of `shop.orders`: tables that keep rows, others that are made anew; published."""
    _transform(
        warehouse,
        "create schema if not exists marts; create schema if not exists intermediate;"
        " create schema if not exists snapshots; create schema if not exists failures;"
        " create schema if not exists me_marts;"
        + "".join(
            f" create table {table} as {_SELECT};"
            for table in ("intermediate.int_people", "snapshots.snap_people", "marts.fct_people", "marts.dim_people")
        )
        + f" create table me_marts.fct_people as {_SELECT}; create table marts.fct_people__dbt_backup as {_SELECT};"
        f" create table failures.people_are_old_enough as {_SELECT}; create table marts.fct_sums as {_SUMS}",
    )
    publish_models(warehouse)


def build_again(warehouse: Warehouse) -> None:
    """The next build: what keeps rows gets what is new, all else is made anew."""
    _transform(
        warehouse,
        "truncate marts.dim_people, marts.fct_sums;"
        f" insert into marts.dim_people {_SELECT}; insert into marts.fct_sums {_SUMS};"
        + "".join(
            f" insert into {table} select * from ({_SELECT}) s where not exists"
            f" (select from {table} t where t.person_id = s.person_id);"
            for table in ("intermediate.int_people", "snapshots.snap_people", "marts.fct_people")
        ),
    )
    publish_models(warehouse)


def change_models(warehouse: Warehouse) -> None:
    """Every row of the marts is written anew and published, so that a rollback has something to bring back."""
    _transform(
        warehouse,
        "update marts.fct_people set email = email || ' 2'; update marts.dim_people set email = email || ' 2';"
        " update marts.fct_sums set n = n + 1",
    )
    publish_models(warehouse)
    _transform(warehouse, "update marts.fct_people set email = email || ' 3'")  # noted for the next publish


def publish_models(warehouse: Warehouse) -> None:
    run(warehouse, PEOPLE, TOWNS, SUMS)


def _transform(warehouse: Warehouse, statements: str) -> None:
    with warehouse.connect("transformer") as connection:
        connection.execute(statements.encode())
