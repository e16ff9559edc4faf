"""Forgotten rows leave what models keep, what is served, and what a rollback would bring back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.destinations.warehouse.rollback import roll_back
from connectors.errors import ConfigurationError, DataError
from connectors.forget.derived import Derived, Lineage
from connectors.ingest import Destination
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.destinations.warehouse.publishing import read
from tests.connectors.examples import load, order, shop_source
from tests.connectors.forget.forgetting import (
    MODELS,
    build_again,
    build_models,
    change_models,
    check_gone,
    forgotten,
    looked,
    publish_models,
    resumed,
)

CANARY = "canary.one@birds.test"


def source() -> RestSource:
    return shop_source(pages=None, cursor=None, since_parameter=None)


@pytest.fixture
def built(api: Api, warehouse: Warehouse, destination: Destination) -> Warehouse:
    """Rows 1 (the canary's) to 4, models of them, and two generations."""
    rows: list[dict[str, Any]] = [order(n, email=CANARY if n == 1 else f"{n}@else.test") for n in (1, 2, 3, 4)]
    api.answer = lambda _: Answer({"result": {"orders": rows}})
    load(source(), api, destination)
    build_models(warehouse)
    change_models(warehouse)
    return warehouse


def people(warehouse: Warehouse, table: str) -> list[tuple[Any, ...]]:
    return warehouse.query(f"select person_id, email from {table} order by 1")


TABLES = (
    "intermediate.int_people",
    "snapshots.snap_people",
    "marts.fct_people",
    "me_marts.fct_people",
    "published.fct_people",
    "published.dim_people",
)


def test_models_that_keep_rows_lose_them_at_once_and_others_with_the_next_build(
    built: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    before = {table: people(built, table) for table in TABLES}
    report = forgotten(source(), built, destination, "id=1", lineage=MODELS)
    assert (report.status, report.to_be_built) == ("to be built", ("marts.fct_sums",))
    for table in TABLES:
        assert people(built, table) == before[table][1:], table
        assert report.places[table] == 1, table
    assert report.places["undo.fct_people"] == report.places["undo.dim_people"] == 1
    assert report.places["failures.people_are_old_enough"] == 4
    status = "select mart, rows from serving.data_status where mart like '%people' order by 1"
    assert read(built, status) == [("dim_people", 3), ("fct_people", 3)]

    [waiting] = resumed(source(), built, destination, MODELS)
    assert waiting.status == "to be built", "nothing was built since"
    build_again(built)
    assert built.query("select count(*) from undo.\"3_3\" where length like 'canary%'") == [(1,)], "it would come back"
    [done] = resumed(source(), built, destination, MODELS)
    assert (done.status, done.to_be_built) == ("done", ())
    check_gone(built, landing_folder, CANARY)
    assert resumed(source(), built, destination, MODELS) == []
    assert built.query("select status, keys, columns, requested_by from ops.forget_requests") == [
        ("done", 1, ["id"], "a test")
    ]


def test_a_rollback_brings_back_all_others(built: Warehouse, destination: Destination, landing_folder: Path) -> None:
    forgotten(source(), built, destination, "id=1", lineage=MODELS)
    roll_back(built.url("publisher"), group="people", to=1, by="a test")
    assert people(built, "serving.fct_people") == [(str(n), f"{n}@else.test") for n in (2, 3, 4)]
    status = "select mart, rows from serving.data_status where mart_group = 'people' order by 1"
    assert read(built, status) == [("dim_people", 3), ("fct_people", 3)]


def test_what_a_publish_finds_afterwards_is_what_there_is(built: Warehouse, destination: Destination) -> None:
    forgotten(source(), built, destination, "id=1", lineage=MODELS)
    publish_models(built)
    assert people(built, "serving.fct_people") == [(str(n), f"{n}@else.test 2 3") for n in (2, 3, 4)]
    status = "select rows from serving.data_status where mart = 'fct_people'"
    assert read(built, status) == [(3,)]


def test_looking_counts_all_of_it_and_changes_nothing(
    built: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    def everything() -> list[object]:
        return [
            built.query(f"select md5(string_agg(t::text, '' order by t::text)) from {table} t")
            for (table,) in built.query(
                "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in"
                " ('pg_catalog', 'information_schema') and tablename <> 'streams' order by 1"
            )
        ] + [sorted((path.name, path.read_bytes()) for path in landing_folder.rglob("*") if path.is_file())]

    before = everything()
    report = looked(source(), built, destination, "id=1", lineage=MODELS)
    assert everything() == before
    assert report.request_id is None
    assert report.to_be_built == ("marts.fct_sums",)
    assert report.places == {
        "landing": 1,
        "raw_shop.orders": 1,
        "undo.fct_people": 1,
        "undo.dim_people": 1,
        "failures.people_are_old_enough": 4,
        **dict.fromkeys((*TABLES, "marts.dim_people"), 1),
    }


def test_a_model_that_keeps_rows_and_does_not_say_how_they_are_told_is_named_before_anything_is_erased(
    built: Warehouse, destination: Destination
) -> None:
    silent = replace(MODELS.tables[0], key=None)
    by_email = Derived("snap_emails", "snapshots", keeps_rows=True, key={"email": "email"})
    lineage = Lineage("shop.orders", (silent, by_email, *MODELS.tables[1:]))
    with pytest.raises(ConfigurationError, match="by id in `int_people`, `snap_emails`. Nothing was erased"):
        forgotten(source(), built, destination, "id=1", lineage=lineage)
    assert built.query("select count(*) from raw_shop.orders") == [(4,)]
    assert built.query("select count(*) from ops.forget_requests") == [(0,)]
    by_build = replace(silent, by_build="A build takes them out.")
    report = forgotten(
        source(), built, destination, "id=1", lineage=Lineage("shop.orders", (by_build, *MODELS.tables[1:]))
    )
    assert "intermediate.int_people" in report.to_be_built


def test_only_the_owner_begins_a_request(built: Warehouse) -> None:
    for role in ("loader", "transformer", "publisher"):
        with built.connect(role) as connection, pytest.raises(Exception, match="permission denied"):
            connection.execute("insert into ops.forgotten values (1, '', gen_random_uuid())")
    with built.connect("reader") as connection, pytest.raises(Exception, match="permission denied"):
        connection.execute("select * from ops.forgotten")


def test_the_same_command_again_takes_over_what_was_not_ended(
    built: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    [part] = landing_folder.rglob("a1-*")
    content = part.read_bytes()
    part.write_bytes(content[:-3])
    with pytest.raises(DataError, match="could not be reached"):
        forgotten(source(), built, destination, "id=1", lineage=MODELS)
    part.write_bytes(content)
    assert forgotten(source(), built, destination, "id=1", lineage=MODELS).status == "to be built"
    build_again(built)
    assert [each.status for each in resumed(source(), built, destination, MODELS)] == ["done", "done"]
    check_gone(built, landing_folder, CANARY)
