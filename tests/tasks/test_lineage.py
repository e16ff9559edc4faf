"""The lineage of a project: from what its dashboards read to the fields of its sources, and what it costs again."""

from __future__ import annotations

import json
import time
from typing import Any

from connectors.connections import Secret, Setting
from connectors.model import Cursor
from connectors.privacy import Hashed
from connectors.registry import SOURCES
from connectors.rest import ApiKeyHeader, RestSource, RestStream
from tasks.lineage import lineage
from tests.tasks.manifests import CATALOG, SHOP, large, manifest

CRM = RestSource(
    name="crm",
    base_url=Setting("crm_url"),
    auth=ApiKeyHeader("X-Key", Secret("crm_key")),
    streams=(
        RestStream(
            name="people",
            path="/people",
            records="items",
            primary_key=("id",),
            cursor=Cursor("updatedAt"),
            since_parameter="since",
            privacy={"eMail": Hashed(Secret("people_key"))},
        ),
    ),
)
ALL_SOURCES = [*SOURCES.values(), CRM]


def columns(graph: dict[str, Any], name: str) -> dict[str, Any]:
    """By column of a node: what it comes from, by the names of nodes; or what is said of it instead."""
    [node] = [each for each in graph["nodes"] if each["name"] == name and each["kind"] != "stream"]
    return {
        column: [(graph["nodes"][number]["name"], origin, str(kind)) for number, origin, kind in (rest or [[]])[0]]
        if rest and rest[0]
        else str(remark)
        for column, remark, *rest in node["columns"]
    }


def graph_of(content: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = lineage(content, CATALOG, ALL_SOURCES, **arguments)["graph"]
    return found


def test_a_mart_leads_to_the_fields_of_its_source() -> None:
    graph = graph_of(manifest(SHOP))
    assert columns(graph, "fct_flights") == {
        "airport": [("stg_flights", "airport", "passthrough")],
        "flights": [("stg_flights", None, "aggregate")],
        "seven": "constant",
        "at": "generated",
    }
    assert columns(graph, "stg_flights")["airport"] == [("flights_api.flights", "dest", "passthrough")]
    raw = columns(graph, "flights_api.flights")
    assert raw["dest"] == [("flights_api.flights", "data[].dest", "passthrough")]
    assert raw["_load_id"] == "generated"
    [stream] = [node for node in graph["nodes"] if node["id"] == "stream.flights_api.flights"]
    assert stream["place"] == "GET /v1/flights"


def test_a_private_field_says_what_becomes_of_it() -> None:
    [stream] = [node for node in graph_of(manifest({}))["nodes"] if node["id"] == "stream.crm.people"]
    assert stream["columns"] == [["items[].id", ""], ["items[].eMail", "hashed"]]


def test_tables_are_connected_from_streams_to_dashboards() -> None:
    graph = graph_of(manifest(SHOP))
    ids = [node["id"] for node in graph["nodes"]]
    assert {(ids[parent], ids[child]) for parent, child in graph["edges"]} == {
        ("stream.flights_api.flights", "source.shop.flights_api.flights"),
        ("stream.crm.people", "source.shop.crm.people"),
        ("source.shop.flights_api.flights", "model.shop.stg_flights"),
        ("model.shop.stg_flights", "model.shop.fct_flights"),
        ("model.shop.fct_flights", "exposure.shop.board"),
    }
    assert all(parent < child for parent, child in graph["edges"])


def test_an_ephemeral_model_is_seen_through() -> None:
    models = {
        "stg_flights": SHOP["stg_flights"],
        "stg_between": ("select * from staging.stg_flights", ["stg_flights"]),
        "fct_flights": (
            "with __dbt__cte__stg_between as (select * from staging.stg_flights) select * from __dbt__cte__stg_between",
            ["stg_between"],
        ),
    }
    content = manifest(models, stg_between={"config": {"materialized": "ephemeral"}})
    assert columns(graph_of(content), "fct_flights")["airport"] == [("stg_flights", "airport", "passthrough")]


def test_a_snapshot_adds_its_columns_and_a_seed_is_written_down() -> None:
    snapshot = {
        "resource_type": "snapshot",
        "config": {
            "materialized": "snapshot",
            "snapshot_meta_column_names": {"dbt_valid_to": "valid_to", "dbt_scd_id": None},
            "hard_deletes": "new_record",
        },
    }
    models = {
        "stg_flights": SHOP["stg_flights"],
        "history": ("select * from staging.stg_flights", ["stg_flights"]),
        "codes": ("", []),
    }
    content = manifest(models, history=snapshot, codes={"resource_type": "seed", "compiled_code": None})
    graph = lineage(content, {**CATALOG, ("marts", "codes"): ["code", "label"]}, ALL_SOURCES)["graph"]
    assert list(columns(graph, "history")) == [
        *("flight_id", "airport", "time_hour"),
        *("dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "valid_to", "dbt_is_deleted"),
    ]
    assert columns(graph, "history")["valid_to"] == "generated"
    assert columns(graph, "codes") == {"code": "constant", "label": "constant"}


def test_a_model_in_python_or_without_sql_is_not_known() -> None:
    content = manifest(SHOP, fct_flights={"language": "python"}, stg_flights={"compiled_code": None})
    nodes = {node["name"]: node for node in graph_of(content)["nodes"]}
    assert nodes["fct_flights"]["is_partial"]
    assert nodes["stg_flights"]["is_partial"]


def test_a_model_that_this_build_did_not_compile_is_what_it_was_unless_its_file_changed() -> None:
    kept = json.loads(json.dumps(lineage(manifest(SHOP), CATALOG, ALL_SOURCES)))
    selected = manifest(SHOP, stg_flights={"compiled_code": None})
    assert graph_of(selected, kept=kept) == lineage(manifest(SHOP), CATALOG, ALL_SOURCES)["graph"]
    edited = manifest(SHOP, stg_flights={"compiled_code": None, "checksum": {"checksum": "another"}})
    [staging] = [node for node in graph_of(edited, kept=kept)["nodes"] if node["name"] == "stg_flights"]
    assert staging["is_partial"]


def test_what_is_kept_follows_what_is_read_not_only_the_sql() -> None:
    models = {**SHOP, "fct_all": ("select * from staging.stg_flights", ["stg_flights"])}
    kept = lineage(manifest(models), CATALOG, ALL_SOURCES)
    models["stg_flights"] = (
        "select id as flight_id, 1 as number from raw_flights_api.flights",
        ["flights_api.flights"],
    )
    assert list(columns(graph_of(manifest(models), kept=kept), "fct_all")) == ["flight_id", "number"]


def test_what_the_project_does_not_know_is_a_relation_outside_of_it() -> None:
    graph = graph_of(manifest({"fct_zones": ("select name from pg_timezone_names", [])}))
    assert columns(graph, "fct_zones") == {"name": [("pg_timezone_names", "name", "passthrough")]}
    assert [node["kind"] for node in graph["nodes"] if node["name"] == "pg_timezone_names"] == ["relation"]


def test_five_hundred_models_are_looked_at_once() -> None:
    content = large(500, 12)
    kept = json.loads(json.dumps(lineage(content, CATALOG, ALL_SOURCES)))
    started = time.process_time()
    again = lineage(content, CATALOG, ALL_SOURCES, kept)
    assert time.process_time() - started < 2  # some 0.04 s; the first time 1.2
    assert json.loads(json.dumps(again)) == kept
    [mart] = [node for node in kept["graph"]["nodes"] if node["name"] == "fct_499"]
    assert len(mart["columns"]) == 12
    assert all(column[2] for column in mart["columns"])
