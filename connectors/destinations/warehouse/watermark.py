"""The watermark: a position below which every row of the source is in raw.

A read can find rows while transactions are open at the source that may yet commit earlier ones. Its position then does
not count at once: it is kept as *pending*, with the transactions that were open, and counts as soon as a later read no
longer sees any of them. Until then loads start from the earlier watermark and find most rows unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from connectors.model import SourcePosition


@dataclass(frozen=True, slots=True)
class Pending:
    """A position that counts once some transactions have ended."""

    value: str
    open_transactions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watermark:
    """A row of `ops.watermarks`."""

    value: str | None = None
    """As PostgreSQL prints the column's type with time zone UTC; None as long as no position is sure."""
    pending: tuple[Pending, ...] = ()
    """Oldest first."""
    source_state: Mapping[str, str] = field(default_factory=dict)
    """See `SourcePosition.state`; empty where the source has none."""


def advance(pending: Iterable[Pending], position: SourcePosition) -> tuple[list[str], tuple[Pending, ...]]:
    """What another read says of the positions so far.

    Returns:
        The positions that are sure now, and those that are still pending, oldest first. Of several that wait for the
        same transactions only the latest is kept.
    """
    candidates = list(pending)
    if position.highest is not None:
        candidates.append(Pending(position.highest, position.open_transactions))
    still_open = set(position.open_transactions)
    sure: list[str] = []
    waiting: dict[tuple[str, ...], Pending] = {}
    for candidate in candidates:
        # One that has ended never comes back: those that are open now are all that can still matter.
        remaining = tuple(sorted(still_open.intersection(candidate.open_transactions)))
        if remaining:
            waiting[remaining] = replace(candidate, open_transactions=remaining)
        else:
            sure.append(candidate.value)
    return sure, tuple(waiting.values())


def read_watermark(connection: psycopg.Connection, source: str, stream: str) -> Watermark:
    """A stream's committed position; an empty one before the first load."""
    row = connection.execute(
        "select value, pending, source_state from ops.watermarks where source = %s and stream = %s", [source, stream]
    ).fetchone()
    if row is None:
        return Watermark()
    value, pending, state = row
    return Watermark(
        value, tuple(Pending(item["value"], tuple(item["open_transactions"])) for item in pending), state or {}
    )


def write_watermark(
    connection: psycopg.Connection, source: str, stream: str, cursor: str, load_id: UUID, watermark: Watermark
) -> None:
    """Set a stream's committed position, inside the transaction of the commit whose rows it stands for."""
    pending: list[dict[str, Any]] = [
        {"value": item.value, "open_transactions": item.open_transactions} for item in watermark.pending
    ]
    connection.execute(
        """
        insert into ops.watermarks (source, stream, cursor_field, value, pending, source_state, load_id)
        values (%s, %s, %s, %s, %s, %s, %s)
        on conflict (source, stream) do update
        set cursor_field = excluded.cursor_field, value = excluded.value, pending = excluded.pending,
            source_state = excluded.source_state, load_id = excluded.load_id, committed_at = clock_timestamp()
        """,
        [
            source,
            stream,
            cursor,
            watermark.value,
            Jsonb(pending),
            Jsonb(dict(watermark.source_state)) if watermark.source_state else None,
            load_id,
        ],
    )


def highest_of(connection: psycopg.Connection, kind: sql.SQL, values: Iterable[str | None]) -> str | None:
    """The highest of some values of a type, as text; None when there is none."""
    row = connection.execute(
        sql.SQL(
            "select (v::{kind})::text from unnest(%s::text[]) v where v is not null order by v::{kind} desc limit 1"
        ).format(kind=kind),
        [list(values)],
    ).fetchone()
    return row[0] if row else None
