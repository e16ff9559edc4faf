"""What a dbt invocation has returned of each node, in words that can be kept, shown and compared.

Of the invocation itself: the file run_results.json may be that of another, if this one was cut short.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from connectors.destinations.warehouse.history import NodeResult
from tasks.dbt_graph import Outcome

_MOST_CHARACTERS = 300
_BUILT = ("model", "seed", "snapshot")
_TESTS = ("test", "unit_test")
_MASKED = '"***"'
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # dbt compares the rows of a unit test in colours
# Where PostgreSQL quotes data: its further lines, and what it could not make a value of. Names are quoted otherwise.
_DETAIL = re.compile(r"\b(DETAIL|CONTEXT): .*?(?=\bHINT: |\bcompiled code at |$)")
_VALUES = (re.compile(r'(?<=: )".*"'), re.compile(r'(?<=\bvalue )".*"(?= )'))


def outcomes_of(results: Iterable[Any]) -> tuple[Outcome, ...]:
    """What became of each node, of the results that an invocation has returned."""
    return tuple(
        Outcome(result.node.unique_id, result.node.name, str(result.status), message_of(result.message))
        for result in results
    )


def node_results(results: Iterable[Any]) -> tuple[NodeResult, ...]:
    """The same, with all that is kept of it. Exposures have results too, which say nothing: they are left out."""
    return tuple(_result(result) for result in results if result.node.resource_type != "exposure")


def message_of(text: str | None) -> str:
    """What dbt says, in one line, without the values of rows that PostgreSQL quotes in its errors."""
    line = _DETAIL.sub("", " ".join(_COLOURS.sub("", text or "").replace("\0", "").split()))
    for quoted in _VALUES:
        line = quoted.sub(_MASKED, line)
    return line.strip()[:_MOST_CHARACTERS]


def _result(result: Any) -> NodeResult:
    node = result.node
    kind = str(node.resource_type)
    is_test = kind in _TESTS
    # When it runs, a unit test depends on what it is given rows for, and not on the model that it is of.
    attached = getattr(node, "attached_node", None) or getattr(node, "tested_node_unique_id", None)
    times = [each for each in result.timing if each.started_at is not None and each.completed_at is not None]
    compiled = getattr(node, "compiled_code", None)
    rows = (result.adapter_response or {}).get("rows_affected")
    return NodeResult(
        node=node.unique_id,
        name=node.name,
        resource_type=kind,
        status=str(result.status),
        layer=layer_of(node.fqn) if kind in _BUILT else None,
        materialized=str(node.config.materialized) if kind in _BUILT else None,
        severity=str(node.config.severity).lower() if kind == "test" else None,
        message=message_of(result.message) or None,
        failures=result.failures if is_test else None,
        rows_affected=rows if kind in _BUILT and isinstance(rows, int) and rows >= 0 else None,
        started_at=min((_utc(each.started_at) for each in times), default=None),
        ended_at=max((_utc(each.completed_at) for each in times), default=None),
        compiled_sha256=hashlib.sha256(compiled.encode()).hexdigest() if compiled else None,
        relation=plain(node.relation_name) if kind in _BUILT else None,
        tests=tuple([attached] if attached else node.depends_on.nodes) if is_test else (),
    )


def layer_of(fqn: list[str]) -> str | None:
    """The folder of a model below the project: staging, intermediate, marts."""
    return fqn[1] if len(fqn) > 2 else None


def plain(relation: str | None) -> str | None:
    """Schema and name of a relation, of the quoted name that dbt gives it: `"warehouse"."marts"."fct_flights"`."""
    return ".".join(re.findall(r'"([^"]+)"', relation)[-2:]) if relation else None


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
