"""What is upstream of what: the graph of `ops.lineage_nodes`, with a few nodes that only troubles have.

::

    destination → system.<source> → stream.<source>.<stream> → … (dbt's own nodes) → group.<group of marts>
    build → every model, seed and snapshot

`destination` is where all is landed and loaded, `system.<source>` a source as a whole, `build` dbt itself. A test is
made from all that it looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psycopg

DESTINATION = "destination"
BUILD = "build"
_BUILT = ("model", "seed", "snapshot")


def stream_node(source: str, stream: str) -> str:
    """The node of a stream."""
    return f"stream.{source}.{stream}"


def system_node(source: str) -> str:
    """The node of a source as a whole."""
    return f"system.{source}"


def group_node(group: str) -> str:
    """The node of a group of marts: what readers see of them."""
    return f"group.{group}"


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of a node."""

    kind: str
    name: str
    layer: str | None = None
    mart_group: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The graph.

    Args:
        nodes: by their name in `ops.lineage_nodes`.
        parents: of each node, those that it is made from.
    """

    nodes: Mapping[str, Node] = field(default_factory=dict)
    parents: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _above: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, connection: psycopg.Connection) -> Lineage:
        """The graph of the latest build; empty before the first."""
        nodes = {
            name: Node(*facts)
            for name, *facts in connection.execute(
                "select node, kind, name, layer, mart_group, owner from ops.lineage_nodes"
            )
        }
        parents: dict[str, set[str]] = {}
        for parent, child in connection.execute("select parent, child from ops.lineage_edges"):
            parents.setdefault(child, set()).add(parent)
        # Tests that are well need no place.
        for test, tested in connection.execute(
            """
            select node, tests from ops.dbt_results
            where resource_type in ('test', 'unit_test') and status not in ('pass', 'skipped')
              and invocation_id = (
                  select invocation_id from ops.dbt_invocations where selection is null order by started_at desc limit 1
              )
            """
        ):
            parents.setdefault(test, set()).update(tested)
        return cls(nodes, parents)

    def above(self, node: str) -> frozenset[str]:
        """All nodes that a node is made from, directly or through others."""
        if node not in self._above:
            self._above[node] = frozenset()  # a graph that goes round in circles ends here
            found: set[str] = set()
            for parent in self._parents_of(node):
                found |= {parent, *self.above(parent)}
            self._above[node] = frozenset(found - {node})
        return self._above[node]

    def is_above(self, upper: str, lower: str) -> bool:
        """Whether a node is another, or upstream of it."""
        return upper == lower or upper in self.above(lower)

    def marts(self, node: str) -> list[str]:
        """The names of the marts that are made from a node, itself among them."""
        return sorted(facts.name for name, facts in self._below(node) if facts.layer == "marts")

    def dashboards(self, node: str) -> list[str]:
        """The names of the exposures that show something of a node."""
        return sorted(facts.name for name, facts in self._below(node) if facts.kind == "exposure")

    def owner(self, node: str) -> str | None:
        """Who hears of a node's troubles: its owner, or the first one downstream of it."""
        if node in self.nodes and (owner := self.nodes[node].owner):
            return owner
        below = sorted((len(self.above(name)), name) for name, facts in self._below(node) if facts.owner)
        return self.nodes[below[0][1]].owner if below else None

    def _below(self, node: str) -> list[tuple[str, Node]]:
        """What is made from a node, itself included. Of tests and groups: from what they are about."""
        starts = {node}
        if node not in self.nodes or self.nodes[node].kind == "test":
            starts |= {each for each in self._parents_of(node) if each in self.nodes}
        return [
            (name, facts)
            for name, facts in self.nodes.items()
            if facts.kind != "test" and any(self.is_above(start, name) for start in starts)
        ]

    def _parents_of(self, node: str) -> set[str]:
        found = set(self.parents.get(node, ()))
        kind, _, rest = node.partition(".")
        if kind == "stream":
            found.add(system_node(rest.partition(".")[0]))
        elif kind == "system":
            found.add(DESTINATION)
        elif kind == "group":
            found |= {name for name, facts in self.nodes.items() if facts.mart_group == rest and facts.layer == "marts"}
        if node in self.nodes and self.nodes[node].kind in _BUILT:
            found.add(BUILD)
        return found
