"""The history of builds, in `ops`: dbt's invocations and what became of each node, how far streams were, the lineage.

Written by a role that can do nothing else, over a connection whose every statement and lock has a bound: what is
written down here must not hold up what it tells of. Each part is a transaction of its own, so that one that cannot be
written leaves the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.marts import Feed
from connectors.destinations.warehouse.positions import Position
from connectors.errors import ConfigurationError

STATEMENT_SECONDS = 2.0
LOCK_SECONDS = 1.0
"""How long a statement that writes history takes at most, and how long of it may be waiting for a lock."""
_DELETE_SECONDS = 30.0
KEPT = timedelta(days=90)
"""How long results are kept. What the marts of the group `pipeline` have made of them stays."""
_LEAST_KEPT = timedelta(days=7)
"""The marts count days anew for as long as a build may still change them."""
_FORGOTTEN = (
    ("dbt_invocations", "invocation_id", "started_at", 20),
    ("freshness", "source, stream, checked_at", "checked_at", 5_000),
)
"""Table, key, instant that its age counts from, and how many rows are deleted at once. Results go with invocations."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What became of a node in an invocation; a row of `ops.dbt_results`, whose words these are."""

    node: str
    """dbt's unique_id."""
    name: str
    resource_type: str
    status: str
    layer: str | None = None
    materialized: str | None = None
    severity: str | None = None
    message: str | None = None
    failures: int | None = None
    rows_affected: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    compiled_sha256: str | None = None
    relation: str | None = None
    tests: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took; None if it did not run."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Invocation:
    """A build; a row of `ops.dbt_invocations`."""

    invocation_id: str
    command: str
    selection: str | None
    is_full_refresh: bool
    dbt_version: str
    is_success: bool
    started_at: datetime
    ended_at: datetime
    generation: int | None = None
    run_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A row of `ops.lineage_nodes`."""

    node: str
    kind: str
    name: str
    label: str | None = None
    layer: str | None = None
    mart_group: str | None = None
    owner: str | None = None
    relation: str | None = None
    url: str | None = None
    description: str | None = None
    materialized: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The graph of a project: what is made from what."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str], ...]
    """Parent and child."""


@contextmanager
def bounded_connection(watcher: URL, *, statement_seconds: float = STATEMENT_SECONDS) -> Iterator[psycopg.Connection]:
    """A connection to write history with.

    Raises:
        ConfigurationError: the warehouse refuses the role.
        DestinationUnavailableError: it does not answer.
    """
    with translated_errors(), connect(watcher, "history", autocommit=True) as connection:
        connection.execute(
            "select set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)",
            [f"{statement_seconds * 1000:.0f}ms", f"{LOCK_SECONDS * 1000:.0f}ms"],
        )
        yield connection


def record_invocation(
    connection: psycopg.Connection, invocation: Invocation, results: Sequence[NodeResult] = ()
) -> None:
    """Write down an invocation with its results. One that is there already is left as it is."""
    with connection.transaction():
        new = connection.execute(
            """
            insert into ops.dbt_invocations
                (invocation_id, command, selection, is_full_refresh, dbt_version, is_success, started_at, ended_at,
                 generation, run_id, error)
            values (%(invocation_id)s, %(command)s, %(selection)s, %(is_full_refresh)s, %(dbt_version)s,
                %(is_success)s, %(started_at)s, %(ended_at)s, %(generation)s, %(run_id)s, %(error)s)
            on conflict do nothing
            """,
            asdict(invocation),
        )
        if new.rowcount and results:
            connection.execute(
                """
                insert into ops.dbt_results
                    (invocation_id, node, name, resource_type, layer, materialized, status, severity, message, failures,
                     rows_affected, started_at, ended_at, compiled_sha256, relation, tests)
                select %s, node, name, resource_type, layer, materialized, status, severity, message, failures,
                    rows_affected, started_at, ended_at, compiled_sha256, relation, coalesce(tests, '{}')
                from jsonb_to_recordset(%s::jsonb) as given (
                    node text, name text, resource_type text, layer text, materialized text, status text, severity text,
                    message text, failures bigint, rows_affected bigint, started_at timestamptz, ended_at timestamptz,
                    compiled_sha256 text, relation text, tests text[])
                """,
                [invocation.invocation_id, _json(map(asdict, results))],
            )


def record_lineage(connection: psycopg.Connection, lineage: Lineage) -> None:
    """Make the graph that is kept this one; only what differs is written."""
    nodes = _json(map(asdict, lineage.nodes))
    edges = _json({"parent": parent, "child": child} for parent, child in lineage.edges)
    given_edges = "jsonb_to_recordset(%(edges)s::jsonb) as given (parent text, child text)"
    with connection.transaction():
        connection.execute(
            f"delete from ops.lineage_edges where (parent, child) not in (select parent, child from {given_edges})",  # noqa: S608 - a constant
            {"edges": edges},
        )
        connection.execute(
            """
            with given as materialized (
                select * from jsonb_to_recordset(%s::jsonb) as given (
                    node text, kind text, name text, label text, layer text, mart_group text, owner text, relation text,
                    url text, description text, materialized text)
            ), gone as (
                delete from ops.lineage_nodes where node not in (select node from given)
            )
            insert into ops.lineage_nodes as kept
                (node, kind, name, label, layer, mart_group, owner, relation, url, description, materialized)
            select node, kind, name, label, layer, mart_group, owner, relation, url, description, materialized
            from given order by node
            on conflict (node) do update set
                kind = excluded.kind, name = excluded.name, label = excluded.label, layer = excluded.layer,
                mart_group = excluded.mart_group, owner = excluded.owner, relation = excluded.relation,
                url = excluded.url, description = excluded.description, materialized = excluded.materialized
            where kept is distinct from excluded
            """,
            [nodes],
        )
        connection.execute(
            f"insert into ops.lineage_edges (parent, child) select parent, child from {given_edges}"  # noqa: S608 - a constant
            " on conflict do nothing",
            {"edges": edges},
        )


def record_freshness(
    connection: psycopg.Connection,
    positions: Iterable[Position],
    feeds: Iterable[Feed],
    *,
    checked_at: datetime,
    run_id: str | None = None,
) -> None:
    """Write down how far each stream was, and whether that was too old; by the rules of `serving.data_status`.

    Args:
        positions: of all streams, read by marts or not, as they were at `checked_at`.
        feeds: how old each may be. A stream without one, or whose feed has no bounds, is not watched.
    """
    bounds = {(feed.source, feed.stream): feed for feed in feeds}
    rows = []
    for position in positions:
        feed = bounds.get((position.source, position.stream), Feed(position.source, position.stream))
        late_at, stale_at = (
            position.seen_at + bound if position.seen_at is not None and bound is not None else None
            for bound in (feed.warn_after, feed.error_after)
        )
        rows.append(
            {
                "source": position.source,
                "stream": position.stream,
                "as_of": position.as_of,
                "late_at": late_at,
                "stale_at": stale_at,
                "status": _status(position, late_at, stale_at, checked_at),
            }
        )
    connection.execute(
        """
        insert into ops.freshness (checked_at, source, stream, as_of, late_at, stale_at, status, run_id)
        select %s, source, stream, as_of, late_at, stale_at, status, %s
        from jsonb_to_recordset(%s::jsonb) as given (
            source text, stream text, as_of timestamptz, late_at timestamptz, stale_at timestamptz, status text)
        on conflict do nothing
        """,
        [checked_at, run_id, _json(rows)],
    )


def _status(position: Position, late_at: datetime | None, stale_at: datetime | None, now: datetime) -> str:
    if position.as_of is None:
        return "never loaded"
    if stale_at is not None and stale_at <= now:
        return "stale"
    if late_at is not None and late_at <= now:
        return "late"
    return "not watched" if late_at is None and stale_at is None else "fresh"


def check_kept(kept: timedelta) -> None:
    """Refuse to keep history for so short a time that the marts would miss some.

    Raises:
        ConfigurationError: it is less than a week.
    """
    if kept < _LEAST_KEPT:
        raise ConfigurationError(
            f"History cannot be kept for only {kept.total_seconds() / 86400:g} days.",
            remedy="Give a week at least: the marts of the group `pipeline` have to see each day first.",
        )


def forget_history(watcher: URL, *, kept: timedelta = KEPT, seconds: float = 60.0) -> tuple[int, int]:
    """Delete invocations with their results, and freshness, that are older; in small transactions, the oldest first.

    Args:
        seconds: how long to go on. What is left then is for the next time.

    Returns:
        How many invocations and how many rows of freshness were deleted.

    Raises:
        ConfigurationError: `kept` is less than a week.
        DestinationUnavailableError: the warehouse does not answer, or not in time.
    """
    check_kept(kept)
    deadline = time.monotonic() + seconds
    counts = []
    with bounded_connection(watcher, statement_seconds=_DELETE_SECONDS) as connection:
        for table, key, at, at_once in _FORGOTTEN:
            statement = (
                f"delete from ops.{table} where ({key}) in (select {key} from ops.{table}"  # noqa: S608 - constants
                f" where {at} < now() - %s::interval order by {at} limit %s)"
            )
            total = 0
            while time.monotonic() < deadline:
                deleted = connection.execute(statement.encode(), [kept, at_once]).rowcount
                total += deleted
                if deleted < at_once:
                    break
            counts.append(total)
    return counts[0], counts[1]


def _json(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), default=datetime.isoformat)
