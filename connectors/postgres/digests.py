"""A PostgreSQL source's table at one instant, ready to be summed up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from connectors.comparison.digests import ComparedAs, Key
from connectors.comparison.row_digests import RowDigests, texts
from connectors.model import Column


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """See `connectors.comparison.digests.SourceTable`."""

    connection: psycopg.Connection
    name: sql.Identifier
    columns: Sequence[Column]
    binary: frozenset[str]
    """The columns whose type another database has too."""
    cursor: str | None
    event_time: str | None
    initial: str | None
    """Where rows begin that a load has ever asked for, by their cursor; None for all."""
    bound: Callable[[str], sql.Composable]
    """Where rows begin that need not be in raw yet, by raw's watermark."""
    errors: Callable[[], AbstractContextManager[None]]

    def changed_since(self, compared: ComparedAs, position: str, most: int) -> list[Key]:
        statement = sql.SQL("select {} from {} t where t.{} >= {} limit {}").format(
            sql.SQL(", ").join(texts(compared.key)),
            self.name,
            sql.Identifier(self.cursor or ""),
            self.bound(position),
            sql.Literal(most),
        )
        with self.errors():
            return self.connection.execute(statement).fetchall()

    def digests(self, compared: ComparedAs, position: str | None) -> RowDigests:
        settled: sql.Composable = sql.SQL("true")
        if self.cursor is not None and position is not None:
            settled = sql.SQL("t.{} < {}").format(sql.Identifier(self.cursor), self.bound(position))
        if self.cursor is not None and self.initial is not None:
            settled += sql.SQL(" and t.{} >= {}").format(sql.Identifier(self.cursor), sql.Literal(self.initial))
        types: Mapping[str, str] = {column.name: column.type for column in self.columns}
        return RowDigests(
            self.connection,
            self.name,
            compared,
            [kind or (types[name] if name in self.binary else None) for name, kind in compared.key.items()],
            self.event_time,
            settled,
            self.errors,
        )
