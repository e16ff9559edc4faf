"""What tests of forgetting share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors.connections import Connections, EnvironmentConnections
from connectors.forget import ForgetReport, Roles, forget, look, resume
from connectors.forget_derived import Lineage
from connectors.forget_keys import subject_of
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forget_requests import open_requests
from connectors.ingest import Destination
from connectors.model import Source
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
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


def looked(source: Source, warehouse: Warehouse, destination: Destination, *keys: str) -> ForgetReport:
    subject = subject_of(source, source.streams[0], keys, EnvironmentConnections({}))
    return look(subject, destination, roles(warehouse), lineage_of(source))


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
    assert {name for name in there if not name.endswith("manifest.json")} == listed
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]


def all_rows(warehouse: Warehouse, table: str, where: str = "true") -> Sequence[tuple[Any, ...]]:
    return warehouse.query(f"select t::text from {table} t where {where} order by 1")
