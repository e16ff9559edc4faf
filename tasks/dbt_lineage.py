"""The project's lineage from its manifest: streams → sources → models, seeds and snapshots → exposures.

Tests are nodes without edges: nothing is made from them, and they would hide the graph that people walk. What a test
looks at is in `ops.dbt_results.tests`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from connectors.destinations.warehouse.history import Lineage, LineageNode
from connectors.destinations.warehouse.marts import UNGROUPED
from connectors.model import Source
from tasks.dbt_results import layer_of, plain

_BUILT = ("model", "seed", "snapshot")


def stream_node(source: str, stream: str) -> str:
    """What a stream is called in `ops.lineage_nodes`."""
    return f"stream.{source}.{stream}"


def lineage(manifest: Mapping[str, Any], sources: Iterable[Source]) -> Lineage:
    """The graph of a manifest, with the registered streams that feed it.

    An owner is the address of the group's or exposure's owner, or else its name; without a group it is `owner` of the
    node's `meta`. A stream has that of the dbt source that reads it, a test that of the first node that it tests.
    """
    nodes = {node.node: node for node in _nodes(manifest)}
    of_stream = {(source["source_name"], source["name"]): name for name, source in manifest["sources"].items()}
    edges = set()
    for source in sources:
        for stream in source.streams:
            name = stream_node(source.name, stream.name)
            reader = of_stream.get((source.name, stream.name))
            nodes[name] = LineageNode(
                name,
                "stream",
                stream.name,
                label=f"{source.name}.{stream.name}",
                owner=nodes[reader].owner if reader else None,
            )
            if reader:
                edges.add((name, reader))
    for child, parents in manifest["parent_map"].items():
        if child in nodes:
            edges |= {(parent, child) for parent in parents if parent in nodes}
    nodes |= {test.node: test for test in _tests(manifest, nodes)}
    return Lineage(tuple(nodes.values()), tuple(sorted(edges)))


def _nodes(manifest: Mapping[str, Any]) -> Iterator[LineageNode]:
    owners = {group["name"]: _contact(group["owner"]) for group in manifest["groups"].values()}
    for name, node in manifest["nodes"].items():
        if node["resource_type"] not in _BUILT:
            continue
        group, layer = node.get("group"), layer_of(node["fqn"])
        yield LineageNode(
            name,
            node["resource_type"],
            node["name"],
            layer=layer,
            mart_group=group or (UNGROUPED if layer == "marts" else None),
            owner=owners.get(group) or _meta_owner(node),
            relation=plain(node["relation_name"]),
            description=node["description"] or None,
            materialized=node["config"].get("materialized"),
        )
    for name, source in manifest["sources"].items():
        yield LineageNode(
            name,
            "source",
            source["name"],
            label=f"{source['source_name']}.{source['name']}",
            layer="raw" if source["schema"].startswith("raw_") else source["schema"],
            owner=_meta_owner(source),
            relation=plain(source["relation_name"]),
            description=source["description"] or None,
        )
    for name, exposure in manifest["exposures"].items():
        yield LineageNode(
            name,
            "exposure",
            exposure["name"],
            label=exposure.get("label"),
            owner=_contact(exposure["owner"]),
            url=exposure.get("url"),
            description=exposure["description"] or None,
        )


def _tests(manifest: Mapping[str, Any], nodes: Mapping[str, LineageNode]) -> Iterator[LineageNode]:
    for name, node in {**manifest["nodes"], **manifest.get("unit_tests", {})}.items():
        if node["resource_type"] not in ("test", "unit_test"):
            continue
        attached = node.get("attached_node")
        tested = [nodes[each] for each in ([attached] if attached else node["depends_on"]["nodes"]) if each in nodes]
        yield LineageNode(
            name,
            "test",
            node["name"],
            layer=tested[0].layer if tested else None,
            owner=_meta_owner(node) or (tested[0].owner if tested else None),
            description=node["description"] or None,
        )


def _contact(owner: Mapping[str, Any]) -> str | None:
    email = owner.get("email")
    address = email[0] if isinstance(email, list) and email else email
    return address or owner.get("name") or None


def _meta_owner(node: Mapping[str, Any]) -> str | None:
    owner = node["config"].get("meta", {}).get("owner") or node.get("meta", {}).get("owner")
    return str(owner) if owner else None
