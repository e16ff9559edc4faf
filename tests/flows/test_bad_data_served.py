"""Ten kinds of bad data on their way to readers: they see none of it, and what was waiting behind it once it is mended.

The transform is the real one; which test finds what among all of the project's is told by tests/dbt/test_bad_data.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.sources.operations_db import operations_db
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare
from tests.dbt.bad_data import IN_SOURCES, IN_STAGING
from tests.dbt.raw_data import restore_raw_tables
from tests.flows.transforms import Nursery, ServingReader, Transforms

FAILING = {kind: each for kind, each in {**IN_SOURCES, **IN_STAGING}.items() if each.status == "fail"}


def test_nine_kinds_reach_raw() -> None:
    """The tenth, a type that changes, does not."""
    assert len(FAILING) == 9


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("missing day", "frozen source"), id="two at once"),
        *(pytest.param((kind,), id=kind, marks=pytest.mark.chaos) for kind in FAILING),
    ],
)
def test_bad_data_are_not_served_and_what_waits_behind_them_is_once_they_are_mended(
    transforms: Transforms, kinds: tuple[str, ...]
) -> None:
    warehouse = transforms.warehouse
    renamed = f"update raw_operations_db.airlines set name = 'JetBlue, after {kinds[0]}' where carrier = 'B6'"
    restore_raw_tables(warehouse)
    warehouse.execute(renamed)
    for kind in kinds:
        warehouse.execute(FAILING[kind].statement)
    generation, completed, content = transforms.generation(), transforms.completed(), transforms.content()
    with ServingReader(warehouse) as reader:
        assert transforms.try_to_run() == 1
        assert (transforms.generation(), transforms.completed()) == (generation, completed)
        assert transforms.content() == content
        check_told(transforms, [FAILING[kind].test for kind in kinds])

        restore_raw_tables(warehouse)
        warehouse.execute(renamed)
        transforms.run()
        check_told(transforms, [])
    assert [seen for (seen,), _ in reader.seen][:1] == [generation]
    assert transforms.content() == transforms.content("marts") != content
    shown = "select airline_name from serving.dim_airlines where carrier_code = 'B6'"
    assert warehouse.query(shown) == [(f"JetBlue, after {kinds[0]}",)]


def check_told(transforms: Transforms, failed: list[str]) -> None:
    """That whoever looks is told of just these tests: by the trust record, and by an incident for each trouble."""
    marts = transforms.warehouse.query("select status = 'held back', tests_failed, why from serving.data_status")
    assert {is_held_back for is_held_back, _, _ in marts} == {bool(failed)}
    assert max(count for _, count, _ in marts) == len(failed)
    assert all(test in why for _, _, why in marts for test in failed)
    # Of freshness there is no end here: raw was filled by hand, so the ledger knows of no load.
    signs = transforms.warehouse.query(
        "select kind, title, incident_id from ops.signs where severity <> 'warning' and kind <> 'stream stale'"
    )
    tests = [(title, incident_id) for kind, title, incident_id in signs if kind == "test failed"]
    assert len(tests) == len(failed)
    assert all(any(test in title for title, _ in tests) for test in failed)
    # What is held back for want of these tests is of the same incidents, and they are over with them.
    assert [each for each in signs if each[2] not in {incident_id for _, incident_id in tests}] == []


@pytest.mark.chaos
def test_a_type_that_changes_is_not_served_and_what_waits_behind_it_is_once_it_is_mended(
    nursery: Nursery, new_warehouse: Callable[[], Warehouse], source_database: Prepare, tmp_path: Path
) -> None:
    warehouse = new_warehouse()
    planes = warehouse.query("select tailnum from raw_operations_db.planes order by 1")
    source = source_database(
        "create table planes (tailnum text primary key, year integer, type text, manufacturer text, model text,"
        " engines integer, seats integer, speed integer, engine text, updated_at timestamptz not null);"
        "insert into planes select 'N' || n, 1990, 'Fixed wing multi engine', 'BOEING', '737', 2, 150, null,"
        " 'Turbo-fan', '2012-12-01Z' from generate_series(101, 110) n"
    )
    warehouse.execute(
        "drop table raw_operations_db.planes; alter schema raw_operations_db owner to headwater_loader;"
        "grant usage on schema raw_operations_db to headwater_transformer"
    )
    url = warehouse.server.url.set(database=source.info.dbname).render_as_string(hide_password=False)
    connections = EnvironmentConnections({"HEADWATER_OPERATIONS_DB_URL": url})
    destination = Destination(warehouse.url("loader"), Landing(StoreLocation((tmp_path / "landing").as_uri())))

    def load() -> None:
        ingest(operations_db, operations_db.streams[0], connections, destination)

    load()
    assert warehouse.query("select tailnum from raw_operations_db.planes order by 1") == planes
    transforms = Transforms(nursery, warehouse, tmp_path / "target")
    transforms.register()
    transforms.run()
    content = transforms.content()
    with ServingReader(warehouse):
        source.execute("alter table planes alter seats type text")
        source.execute("update planes set seats = 'about 160', updated_at = '2013-01-02Z' where tailnum = 'N102'")
        with pytest.raises(ContractViolationError):
            load()
        transforms.run()
        assert transforms.content() == content, "a transform has what the last good load has brought"

        source.execute("update planes set seats = '160' where tailnum = 'N102'")
        source.execute("alter table planes alter seats type integer using seats::integer")
        load()
        transforms.run()
    assert warehouse.query("select seat_count from serving.dim_planes where plane_key = 'N102'") == [(160,)]
