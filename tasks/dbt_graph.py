"""What dbt's manifest says of its graph: the marts, what they are built from, and which a failed node holds back.

Pure functions of the manifest and of the outcomes of one invocation. A mart may be published only if everything that it
is built from, and every test of that, is known to have succeeded in that invocation: what was skipped, or has left no
outcome at all, counts against it. The one exception is a test that was skipped because it also looks at another model,
which failed and which the mart is not built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from connectors.destinations.warehouse.marts import UNGROUPED, Feed, Index, Mart, Verdict

_MOST_NAMED = 5
_BUILT = ("model", "seed", "snapshot")
_GOOD = frozenset({"success", "pass", "warn"})
_NOT_RUN = frozenset({"skipped", "missing"})
_PERIODS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a node in an invocation."""

    unique_id: str
    name: str
    status: str
    """In dbt's words: success, pass, warn, fail, error, skipped …"""
    message: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message or self.status}"


class Graph:
    """The graph of a manifest."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._nodes: Mapping[str, Any] = {**manifest["nodes"], **manifest.get("unit_tests", {})}
        self._sources: Mapping[str, Any] = manifest["sources"]
        self._behind: dict[str, frozenset[str]] = {}
        self._marts = {
            name: node
            for name, node in manifest["nodes"].items()
            if node["resource_type"] == "model" and node["fqn"][1] == "marts"
        }

    def marts(self) -> list[Mart]:
        """The models of the marts layer."""
        return [self._mart(name, node) for name, node in self._marts.items()]

    def feeds(self) -> list[Feed]:
        """The raw tables that the project reads, whether marts are built from them or not."""
        return [self._feed(source) for source in self._sources.values()]

    def judge(self, outcomes: Iterable[Outcome]) -> dict[str, Verdict]:
        """What an invocation says of each mart, by its name.

        A model that failed holds back the marts that are built from it, itself among them. So does a test: of the
        model or source that it is declared on, or, if it is declared on none (a singular test), of all that it names.
        """
        by_id = {outcome.unique_id: outcome for outcome in outcomes}
        hooks = [
            each for each in by_id.values() if each.unique_id.startswith("operation.") and each.status not in _GOOD
        ]
        tests = {
            name: self._targets(node)
            for name, node in self._nodes.items()
            if node["resource_type"] in ("test", "unit_test")
        }
        verdicts = {}
        for name, mart in self._marts.items():
            behind = self.behind(name)
            built = [self._outcome(each, by_id) for each in sorted(behind) if self._leaves_outcome(each)]
            tested = [
                self._outcome(each, by_id)
                for each, targets in tests.items()
                if not behind.isdisjoint(targets) and not self._is_excused(each, behind, by_id)
            ]
            statuses = [outcome.status for outcome in tested]
            verdicts[mart["alias"]] = Verdict(
                passed=statuses.count("pass"),
                failed=sum(status not in _GOOD | _NOT_RUN for status in statuses),
                warned=statuses.count("warn"),
                why=_why([*hooks, *built, *tested]),
            )
        return verdicts

    def behind(self, name: str) -> frozenset[str]:
        """What a node is built from, directly or through others, itself among it."""
        if name not in self._behind:
            node = self._nodes.get(name)
            above = [self.behind(each) for each in node["depends_on"]["nodes"]] if node else []
            self._behind[name] = frozenset({name}).union(*above)
        return self._behind[name]

    def _is_excused(self, test: str, behind: frozenset[str], by_id: Mapping[str, Outcome]) -> bool:
        """Whether a test was skipped for want of a node that the mart is not built from: not its fault."""
        return self._outcome(test, by_id).status == "skipped" and any(
            self._outcome(each, by_id).status not in _GOOD
            for each in self._nodes[test]["depends_on"]["nodes"]
            if each not in behind and self._leaves_outcome(each)
        )

    def _mart(self, name: str, node: Mapping[str, Any]) -> Mart:
        behind = self.behind(name)
        return Mart(
            name=node["alias"],
            schema=node["schema"],
            key=tuple(
                column
                for constraint in node.get("constraints", ())
                if constraint["type"] == "primary_key"
                for column in constraint["columns"]
            ),
            description=node["description"],
            columns={column: facts["description"] for column, facts in node["columns"].items()},
            group=node.get("group") or UNGROUPED,
            indexes=tuple(
                # A `unique` one tests dbt's table; here it would forbid to exchange two rows' values.
                Index(tuple(index["columns"]), index.get("type") or "btree")
                for index in node["config"].get("indexes") or ()
            ),
            is_incremental=node["config"]["materialized"] == "incremental",
            reads=frozenset(other["alias"] for each, other in self._marts.items() if each in behind and each != name),
            feeds=tuple(self._feed(self._sources[each]) for each in sorted(behind) if each in self._sources),
        )

    @staticmethod
    def _feed(source: Mapping[str, Any]) -> Feed:
        freshness = source.get("freshness") or {}
        return Feed(
            source["source_name"],
            source["name"],
            _span(freshness.get("warn_after")),
            _span(freshness.get("error_after")),
        )

    @staticmethod
    def _targets(test: Mapping[str, Any]) -> frozenset[str]:
        attached = test.get("attached_node")
        return frozenset([attached] if attached else test["depends_on"]["nodes"])

    def _leaves_outcome(self, name: str) -> bool:
        node = self._nodes.get(name)
        return (
            node is not None and node["resource_type"] in _BUILT and node["config"].get("materialized") != "ephemeral"
        )

    def _outcome(self, name: str, by_id: Mapping[str, Outcome]) -> Outcome:
        return by_id.get(name) or Outcome(name, self._nodes[name]["name"], "missing")


def _span(threshold: Mapping[str, Any] | None) -> timedelta | None:
    if not threshold or threshold.get("count") is None:
        return None
    return int(threshold["count"]) * _PERIODS[threshold["period"]]


def _why(outcomes: Sequence[Outcome]) -> str:
    """The failures among them; what was not run only if that is all there is, for it follows from them."""
    failed = [outcome for outcome in outcomes if outcome.status not in _GOOD | _NOT_RUN]
    if failed:
        return named(failed)
    not_run = [outcome.name for outcome in outcomes if outcome.status in _NOT_RUN]
    if not not_run:
        return ""
    more = f" and {len(not_run) - _MOST_NAMED} more" if len(not_run) > _MOST_NAMED else ""
    return f"not run by this build: {', '.join(not_run[:_MOST_NAMED])}{more}"


def named(failed: Sequence[Outcome]) -> str:
    """Some of them by name, with what they say, and how many more there are."""
    more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
    return f"{'; '.join(map(str, failed[:_MOST_NAMED]))}{more}"
