"""Lineage of tables and columns, from the manifest that dbt left: from a dashboard to the field of the source.

Pure functions of the manifest, of the columns that the warehouse's tables have, and of what was kept from before. What
a model's columns come from follows from its SQL and the columns of what it reads, so it is kept by the hash of these
and not looked for again: in a project of 500 models only what changed costs. A model that the manifest has no compiled
SQL of (a build of a selection compiles no others) is what it was, as long as its file is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from connectors.fields import field_of, place_of
from connectors.model import Source, Stream
from tasks.column_lineage import (
    NOTHING_KNOWN,
    Kind,
    Origin,
    OutputColumn,
    QueryLineage,
    Relation,
    Remark,
    query_lineage,
)

FORMAT = 1
"""Of what is kept; another number makes all of it be looked for again."""

_QUERIES = ("model", "snapshot", "seed")
_SNAPSHOT_COLUMNS = ("dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to")


def lineage(
    manifest: Mapping[str, Any],
    catalog: Mapping[Relation, Sequence[str]],
    sources: Iterable[Source],
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The lineage of a project.

    Args:
        manifest: `manifest.json`, as a build has left it.
        catalog: the columns that tables of the warehouse have. Those of raw begin every path; a model's own serve only
            where its SQL gives a column no name.
        sources: those that raw's tables are loaded from.
        kept: what this has returned before.

    Returns:
        What can be kept as JSON: `graph` is what the page shows (docs/status-page.md), the rest spares work.
    """
    usable = kept if kept is not None and kept.get("format") == FORMAT else {}
    builder = _Builder(manifest, catalog, sources, usable.get("queries", {}), usable.get("latest", {}))
    return {
        "format": FORMAT,
        "graph": builder.graph(),
        "queries": {key: builder.queries[key] for key, _ in builder.latest.values()},
        "latest": builder.latest,
    }


class _Builder:
    """Numbers nodes in the order in which they are made of each other, and follows the columns of each."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        catalog: Mapping[Relation, Sequence[str]],
        sources: Iterable[Source],
        queries: Mapping[str, Any],
        latest: Mapping[str, Any],
    ) -> None:
        self._manifest = manifest
        self._catalog = catalog
        self._streams: dict[Relation, tuple[Source, Stream]] = {
            (f"raw_{source.name}", stream.name): (source, stream) for source in sources for stream in source.streams
        }
        self._latest_before = latest
        self.queries = dict(queries)
        """What was found for each hash."""
        self.latest: dict[str, tuple[str, str | None]] = {}
        """By node: the hash that it is found by, and its file's."""
        self._nodes: list[dict[str, Any]] = []
        self._edges: set[tuple[int, int]] = set()
        self._numbers: dict[str | Relation, int] = {}
        """Of nodes, by dbt's id and by relation."""
        self._known: dict[Relation, list[str]] = {}

    def graph(self) -> dict[str, Any]:
        for unique_id, node in self._manifest["sources"].items():
            self._add_source(unique_id, node)
        for unique_id in self._in_order():
            self._add_query(unique_id, self._manifest["nodes"][unique_id])
        for unique_id, node in self._manifest.get("exposures", {}).items():
            self._add(unique_id, "exposure", node["name"], node, label=node.get("label"), url=node.get("url"))
            self._connect(unique_id, node["depends_on"]["nodes"])
        as_of = self._manifest["metadata"]["generated_at"]
        return {"as_of": as_of, "nodes": self._nodes, "edges": sorted(self._edges)}

    def _in_order(self) -> Iterator[str]:
        """Models, snapshots and seeds, each after what it reads."""
        nodes = self._manifest["nodes"]
        done: set[str] = set()
        pending = list(reversed(nodes))
        while pending:
            unique_id = pending[-1]
            if unique_id in done or unique_id not in nodes or nodes[unique_id]["resource_type"] not in _QUERIES:
                pending.pop()
                continue
            before = [each for each in _parents(nodes[unique_id]) if each in nodes and each not in done]
            if before:
                pending += before
                continue
            done.add(pending.pop())
            yield unique_id

    def _add(self, unique_id: str | Relation, kind: str, name: str, node: Mapping[str, Any], **more: Any) -> int:
        facts = {"kind": kind, "name": name, "owner": self._owner(node), "description": node.get("description"), **more}
        number = self._numbers[unique_id] = len(self._nodes)
        self._nodes.append(
            {"id": unique_id if isinstance(unique_id, str) else _text(unique_id), **_without_empty(facts)}
        )
        return number

    def _connect(self, unique_id: str, parents: Iterable[str]) -> None:
        child = self._numbers[unique_id]
        self._edges |= {(self._numbers[each], child) for each in parents if each in self._numbers}

    def _owner(self, node: Mapping[str, Any]) -> str | None:
        groups = (each for each in self._manifest.get("groups", {}).values() if each["name"] == node.get("group"))
        owner = next(groups, node).get("owner") or {}
        found = owner.get("name") or owner.get("email") or (node.get("config") or {}).get("meta", {}).get("owner")
        return str(found) if found else None

    def _add_source(self, unique_id: str, node: Mapping[str, Any]) -> None:
        relation = (node["schema"], node["identifier"])
        names = list(self._catalog.get(relation) or node["columns"])
        columns: list[list[Any]] = [[name, Remark.NOT_KNOWN] for name in names]
        stream_id = None
        if relation in self._streams:
            source, stream = self._streams[relation]
            stream_id = f"stream.{source.name}.{stream.name}"
            columns = self._add_stream(stream_id, f"{source.name}.{stream.name}", stream, names)
        self._numbers[relation] = self._add(
            unique_id,
            "source",
            f"{node['source_name']}.{node['name']}",
            node,
            layer="raw",
            relation=_text(relation),
            columns=columns,
            rows_of=[self._numbers[stream_id]] if stream_id is not None else None,
            is_partial=relation not in self._catalog,
        )
        if relation in self._catalog:
            self._known[relation] = names
        if stream_id is not None:
            self._connect(unique_id, [stream_id])

    def _add_stream(self, stream_id: str, name: str, stream: Stream, columns: Iterable[str]) -> list[list[Any]]:
        """Add a stream with its fields.

        Returns:
            The columns of its raw table.
        """
        fields = {column: field_of(stream, column) for column in columns}
        own = [[each.path, each.treatment or ""] for each in fields.values() if each.path is not None]
        number = self._add(stream_id, "stream", name, {}, layer="source", place=place_of(stream), columns=own)
        return [
            [column, Remark.GENERATED] if each.path is None else [column, "", [[number, each.path, Kind.PASSTHROUGH]]]
            for column, each in fields.items()
        ]

    def _add_query(self, unique_id: str, node: Mapping[str, Any]) -> None:
        relation = (node["schema"], node["alias"])
        found = self._found(unique_id, node, relation)
        columns = [self._numbered(column) for column in found.columns]
        columns += [[name, Remark.GENERATED] for name in _added_by_snapshot(node)]
        self._numbers[relation] = self._add(
            unique_id,
            node["resource_type"],
            node["name"],
            node,
            layer=_layer(node),
            group=node.get("group"),
            relation=_text(relation),
            materialized=node["config"].get("materialized"),
            columns=columns,
            rows_of=sorted({self._number(each) for each in found.rows_of}),
            is_partial=not found.is_complete,
        )
        if found.is_complete:
            self._known[relation] = [column[0] for column in columns]
        self._connect(unique_id, _parents(node))

    def _found(self, unique_id: str, node: Mapping[str, Any], relation: Relation) -> QueryLineage:
        """What is known of a node's columns."""
        if node["resource_type"] == "seed":
            names = self._catalog.get(relation) or node["columns"]
            return QueryLineage(tuple(OutputColumn(name, (), Remark.CONSTANT) for name in names))
        sql = node.get("compiled_code")
        checksum = (node.get("checksum") or {}).get("checksum")
        if not sql or node.get("language", "sql") != "sql":
            key, checksum_before = self._latest_before.get(unique_id, (None, None))
            if sql or key not in self.queries or checksum != checksum_before:
                return NOTHING_KNOWN
            self.latest[unique_id] = (key, checksum)
            return _parsed(self.queries[key])
        read = {each: self._known[each] for each in sorted({*self._read_by(node)}) if each in self._known}
        names = self._catalog.get(relation, ())
        if names:
            read[relation] = list(names)
        facts = json.dumps([FORMAT, sql, relation, [[*each, *columns] for each, columns in read.items()]])
        key = hashlib.sha256(facts.encode()).hexdigest()
        self.latest[unique_id] = (key, checksum)
        if key not in self.queries:
            of_model = names if node["resource_type"] == "model" else ()
            self.queries[key] = _written(query_lineage(sql, read, own=relation, names=of_model))
        return _parsed(self.queries[key])

    def _read_by(self, node: Mapping[str, Any]) -> Iterator[Relation]:
        """The relations that its SQL names: those of an ephemeral model are written into the SQL of who reads it."""
        for unique_id in _parents(node):
            parent = self._manifest["nodes"].get(unique_id) or self._manifest["sources"].get(unique_id)
            if parent is None:
                continue
            if (parent.get("config") or {}).get("materialized") == "ephemeral":
                yield from self._read_by(parent)
            else:
                yield (parent["schema"], parent.get("alias") or parent["identifier"])

    def _number(self, relation: Relation) -> int:
        """The node of a relation; one of its own for what the project does not know, such as a view of the system."""
        if relation not in self._numbers:
            self._add(relation, "relation", _text(relation), {})
        return self._numbers[relation]

    def _numbered(self, column: OutputColumn) -> list[Any]:
        origins = [[self._number(each.relation), each.column, each.kind] for each in column.origins]
        return [column.name, column.remark, origins] if origins else [column.name, column.remark]


def _parents(node: Mapping[str, Any]) -> list[str]:
    return list((node.get("depends_on") or {}).get("nodes") or ())


def _text(relation: Relation) -> str:
    return ".".join(filter(None, relation))


def _without_empty(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", False, [])}


def _layer(node: Mapping[str, Any]) -> str:
    """The folder of a model's layer, as the project lays them out."""
    return str(node["fqn"][1]) if node["resource_type"] == "model" and len(node["fqn"]) > 2 else node["resource_type"]


def _added_by_snapshot(node: Mapping[str, Any]) -> list[str]:
    """The columns that dbt adds to what a snapshot selects."""
    if node["resource_type"] != "snapshot":
        return []
    renamed = {name: new for name, new in (node["config"].get("snapshot_meta_column_names") or {}).items() if new}
    names = list(_SNAPSHOT_COLUMNS)
    if node["config"].get("hard_deletes") == "new_record":
        names.append("dbt_is_deleted")
    return [renamed.get(name, name) for name in names]


def _written(found: QueryLineage) -> dict[str, Any]:
    """What is known of a query, as JSON."""
    columns = [
        [each.name, each.remark, [[*origin.relation, origin.column, origin.kind] for origin in each.origins]]
        for each in found.columns
    ]
    return {"columns": columns, "rows_of": list(map(list, found.rows_of)), "is_complete": found.is_complete}


def _parsed(written: Mapping[str, Any]) -> QueryLineage:
    columns = tuple(
        OutputColumn(
            name,
            tuple(Origin((schema, table), column, Kind(kind)) for schema, table, column, kind in origins),
            Remark(remark),
        )
        for name, remark, origins in written["columns"]
    )
    rows_of = tuple((schema, table) for schema, table in written["rows_of"])
    return QueryLineage(columns, rows_of, is_complete=written["is_complete"])
