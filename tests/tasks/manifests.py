"""Manifests of dbt, made up: as much of one as lineage reads."""

from __future__ import annotations

from typing import Any


def manifest(
    models: dict[str, tuple[str, list[str]]], *, generated_at: str = "2026-01-01T00:00:00Z", **changed: dict[str, Any]
) -> dict[str, Any]:
    """A project of models over the raw tables `raw_flights_api.flights` and `raw_crm.people`.

    Args:
        models: the compiled SQL of each by name, and the names of what it reads.
        changed: by name, what of a node is otherwise.
    """
    nodes = {}
    for name, (sql, reads) in models.items():
        layer = "staging" if name.startswith("stg_") else "marts"
        node = {
            "resource_type": "model",
            "name": name,
            "alias": name,
            "schema": layer,
            "fqn": ["shop", layer, name],
            "language": "sql",
            "compiled_code": sql,
            "checksum": {"checksum": f"sum of {name}"},
            "columns": {},
            "description": "",
            "config": {"materialized": "table", "meta": {}},
            "depends_on": {"nodes": [_id(each) for each in reads]},
            **changed.get(name, {}),
        }
        nodes[_id(name)] = node
    return {
        "metadata": {"generated_at": generated_at, "adapter_type": "postgres"},
        "nodes": nodes,
        "sources": {
            f"source.shop.{source}.{table}": {
                "source_name": source,
                "name": table,
                "schema": f"raw_{source}",
                "identifier": table,
                "columns": {},
                "description": "",
                "config": {"meta": {"owner": "data-platform"}},
            }
            for source, table in (("flights_api", "flights"), ("crm", "people"))
        },
        "exposures": {
            "exposure.shop.board": {
                "name": "board",
                "label": "The board",
                "url": "https://bi.example/board",
                "owner": {"name": "Ada"},
                "depends_on": {"nodes": [each for each in nodes if ".fct_" in each]},
            }
        },
        "groups": {},
    }


def _id(name: str) -> str:
    return f"source.shop.{name}" if "." in name else f"model.shop.{name}"


CATALOG = {
    ("raw_flights_api", "flights"): ["id", "dest", "time_hour", "_load_id", "_loaded_at", "_deleted_at"],
    ("raw_crm", "people"): ["id", "e_mail"],
}
SHOP = {
    "stg_flights": (
        'select id as flight_id, dest as airport, time_hour from "db"."raw_flights_api"."flights"',
        ["flights_api.flights"],
    ),
    "fct_flights": (
        """with f as (select * from "db"."staging"."stg_flights")
           select airport, count(*) as flights, 7 as seven, now() as at from f group by airport""",
        ["stg_flights"],
    ),
}


def large(models: int, columns: int) -> dict[str, Any]:
    """A project of many models in ten layers, each of many columns and two parents."""
    found: dict[str, tuple[str, list[str]]] = {}
    per_layer = models // 10
    names = [f"c{number}" for number in range(columns)]
    for number in range(models):
        layer, place = divmod(number, per_layer)
        if layer == 0:
            selected = ", ".join(f"id as {name}" for name in names)
            found[f"stg_{number}"] = (
                f'select {selected} from "db"."raw_flights_api"."flights"',
                ["flights_api.flights"],
            )
            continue
        name = f"fct_{number}" if layer == 9 else f"stg_{number}"
        one, other = (f"stg_{(layer - 1) * per_layer + (place + shift) % per_layer}" for shift in (0, 1))
        half = columns // 2
        selected = ", ".join(
            [f"p.{each}" for each in names[:half]]
            + [f"coalesce(q.{each}, p.{each}) + 1 as {each}" for each in names[half:-1]]
            + [f"sum(p.{names[-1]}) over (partition by p.c0) as {names[-1]}"]
        )
        found[name] = (
            f"""with p as (select * from "db"."staging"."{one}"), q as (select * from "db"."staging"."{other}"),
                joined as (select {selected} from p left join q on p.c0 = q.c0), final as (select * from joined)
                select * from final""",
            [one, other],
        )
    return manifest(found)
