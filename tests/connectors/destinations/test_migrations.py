"""The shape of `ops`: an existing warehouse is upgraded with its data in it, and goes on from there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.migrations import upgrade
from connectors.errors import ConfigurationError, SourceRewoundError
from connectors.ingest import Destination
from connectors.model import Cursor
from tests.conftest import Server, Warehouse
from tests.connectors.examples import Prepare, counts, erp, load_table

FIRST = "0001"
LOAD = "01941f29-7c00-7000-8000-000000000001"
# What a load, a publish and a quarantined row left behind at the first revision, written out.
CONTENTS = f"""
insert into ops.streams values ('erp', 't', 7, null, '2025-01-01Z', 4711, '2025-01-01Z');
insert into ops.loads
    (load_id, source, stream, status, attempt, manifest_key, landed_at, loaded_at, raw_loaded_at, rows_extracted,
     rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined, rows_deleted, cursor_to)
values ('{LOAD}', 'erp', 't', 'loaded', 2, 'erp/t/dt=2025-01-01/load_id={LOAD}/manifest.json', now(), now(), now(),
        3, 2, 0, 0, 0, 1, 0, '2024-01-02 00:00:00+00');
insert into ops.loads (load_id, source, stream, status, attempt, error)
values (gen_random_uuid(), 'erp', 'other', 'failed', 1, 'The source did not answer.');
insert into ops.watermarks (source, stream, cursor_field, value, load_id)
values ('erp', 't', 'changed', '2024-01-02 00:00:00+00', '{LOAD}');
insert into ops.files values ('met', 'weather', 'a.csv', 'v1', 12, '{LOAD}');
insert into ops.schema_changes (source, stream, load_id, column_name, change, to_type)
values ('erp', 't', '{LOAD}', 'v', 'added', 'text');
insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload)
values ('erp', 't', '{LOAD}', 3, 'column id: the key is null', '{{}}');
insert into ops.publishes (generation, invocation_id) values (1, 'first');
insert into ops.published_marts values (1, 'fct', 1, 0, 0, 1);
create schema raw_erp;
create table raw_erp.t (id int primary key, v text, changed timestamptz,
                        _load_id uuid not null, _loaded_at timestamptz not null, _deleted_at timestamptz);
insert into raw_erp.t values (1, 'a', '2024-01-01Z', '{LOAD}', now()), (2, 'b', '2024-01-02Z', '{LOAD}', now());
alter schema raw_erp owner to headwater_loader;
alter table raw_erp.t owner to headwater_loader;
grant create on database DATABASE to headwater_loader;
"""
TABLES = ("streams", "loads", "watermarks", "files", "schema_changes", "quarantine", "publishes", "published_marts")


@pytest.fixture
def old(postgres: Server, warehouse: Warehouse) -> Iterator[Warehouse]:
    """A warehouse at the first revision (`warehouse` makes the roles)."""
    name = f"old_{time.monotonic_ns()}"
    postgres.create_database(name, owner="headwater_owner")
    found = Warehouse(postgres, name)
    upgrade(found.url("owner"), to=FIRST)
    found.execute(CONTENTS.replace("DATABASE", name))
    yield found
    postgres.drop_database(name)


def columns(warehouse: Warehouse, table: str) -> str:
    names = warehouse.query(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
        " order by attnum",
        [f"ops.{table}"],
    )
    return ", ".join(name for (name,) in names)


def test_the_first_released_shape_is_upgraded_with_its_data(old: Warehouse) -> None:
    shape = {table: columns(old, table) for table in TABLES}
    before = {table: old.query(f"select {shape[table]} from ops.{table} order by 1, 2") for table in TABLES}
    upgrade(old.url("owner"))
    assert {table: old.query(f"select {shape[table]} from ops.{table} order by 1, 2") for table in TABLES} == before
    assert old.query("select distinct kind, full_refresh, replay_of from ops.loads") == [("rows", False, None)]


def test_loads_go_on_where_the_old_ones_stopped(old: Warehouse, source_database: Prepare, tmp_path: Path) -> None:
    upgrade(old.url("owner"))
    connection = source_database(
        "create table t (id int primary key, v text, changed timestamptz);"
        "insert into t values (1, 'a', '2024-01-01Z'), (2, 'b', '2024-01-02Z'), (3, 'c', '2024-01-03Z')"
    )
    source = erp(name="t", primary_key=("id",), cursor=Cursor("changed"))
    destination = Destination(old.url("loader"), Landing(StoreLocation((tmp_path / "landing").as_uri())))
    report = load_table(source, connection, old, destination)
    assert counts(report) == (2, 1, 0, 1, 0, 0), "from the old watermark on"
    assert old.query("select epoch from ops.streams") == [(8,)]
    connection.execute("delete from t where id > 1")
    load_table(source, connection, old, destination)
    connection.execute("truncate t")
    with pytest.raises(SourceRewoundError):
        load_table(source, connection, old, destination)


def test_upgrades_repeat_and_meet(old: Warehouse) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: upgrade(old.url("owner")), range(3)))
    upgrade(old.url("owner"))


def test_an_upgrade_that_cannot_be_done_says_so_and_changes_nothing(old: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="headwater_reader may not upgrade the warehouse: permission denied"):
        upgrade(old.url("reader"))
    assert old.query("select version_num from alembic_version") == [(FIRST,)]
    old.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(ConfigurationError, match="A newer one has upgraded it"):
        upgrade(old.url("owner"))


def test_a_load_into_a_warehouse_that_was_not_upgraded_says_what_to_do(
    old: Warehouse, source_database: Prepare, tmp_path: Path
) -> None:
    connection = source_database("create table t (id int primary key)")
    destination = Destination(old.url("loader"), Landing(StoreLocation((tmp_path / "landing").as_uri())))
    with pytest.raises(ConfigurationError, match="Run `headwater migrate`"):
        load_table(erp(name="t", primary_key=("id",)), connection, old, destination)
