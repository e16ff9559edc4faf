"""What dbt's manifest says of the tables that a stream's rows end up in: for forgetting them there.

A model or snapshot that keeps rows from build to build says how they are told, in its yml::

    config:
      meta:
        forget:
          - source: crm_db.people
            key: {id: person_id}  # its column by raw's
          - source: crm_db.towns
            build: A row is built again when its town has changed or gone.  # no row of it is a town's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.destinations.warehouse.marts import UNGROUPED
from connectors.errors import ConfigurationError
from connectors.forget.derived import Derived, Lineage

_MADE_ANEW = ("table", "materialized_view")
_NOTHING_KEPT = ("view", "ephemeral")


def lineage_of(manifest: Mapping[str, Any], source: str, stream: str) -> Lineage:
    """The tables that are built from a stream, directly or through others, and those of the tests of all of them.

    Raises:
        ConfigurationError: what a model says of forgetting makes no sense.
    """
    name = f"{source}.{stream}"
    behind = [
        found for found, node in manifest["sources"].items() if (node["source_name"], node["name"]) == (source, stream)
    ]
    nodes = manifest["nodes"]
    for each in behind:  # grows while it is walked
        for child in manifest["child_map"].get(each, ()):
            kind = nodes[child]["resource_type"] if child in nodes else ""
            if kind in ("model", "snapshot") and child not in behind:
                behind.append(child)
    tables = [_derived(nodes[each], name) for each in behind if each in nodes]
    failures = [
        (node["schema"], node["alias"])
        for node in nodes.values()
        if node["resource_type"] == "test" and not set(behind).isdisjoint(node["depends_on"]["nodes"])
    ]
    return Lineage(name, tuple(each for each in tables if each is not None), tuple(failures))


def _derived(node: Mapping[str, Any], stream: str) -> Derived | None:
    """A model's table; None if it keeps none."""
    config = node["config"]
    if config["materialized"] in _NOTHING_KEPT:
        return None
    said = (config.get("meta") or {}).get("forget") or []
    entries = [each for each in (said if isinstance(said, list) else [said]) if _source(each, node) == stream]
    if len(entries) > 1:
        raise _senseless(node, f"names {stream} twice")
    entry = entries[0] if entries else {}
    key, build = entry.get("key"), entry.get("build")
    if entries and (key is None) == (build is None):
        raise _senseless(node, f"says of {stream} both `key` and `build`, or none of them")
    if key is not None and not (isinstance(key, dict) and key and all(isinstance(each, str) for each in key.values())):
        raise _senseless(node, "has a `key` that does not name columns by columns of raw")
    is_mart = node["resource_type"] == "model" and node["fqn"][1] == "marts"
    return Derived(
        name=node["alias"],
        schema=node["schema"],
        keeps_rows=config["materialized"] not in _MADE_ANEW,
        key=key,
        by_build=build,
        group=(node.get("group") or UNGROUPED) if is_mart else None,
    )


def _source(entry: object, node: Mapping[str, Any]) -> str:
    source = entry.get("source") if isinstance(entry, dict) else None
    if not isinstance(source, str):
        raise _senseless(node, "does not name a `source`")
    return source


def _senseless(node: Mapping[str, Any], what: str) -> ConfigurationError:
    return ConfigurationError(
        f"`meta: forget` of {node['name']} {what}.",
        remedy="Write it as docs/privacy.md shows: `source`, and one of `key` and `build`.",
    )
