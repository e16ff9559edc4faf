"""The shape of a raw table, and how it follows its source: created, extended, widened, as the stream's contract allows.

Called inside the transaction of a commit: a change of shape is visible together with the rows that needed it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.columns import DELETED_AT, LOAD_ID, LOADED_AT, OWN_COLUMNS, column_name, widens
from connectors.destinations.warehouse.connection import column_types, printed_types
from connectors.destinations.warehouse.windows import WindowColumn
from connectors.errors import ContractViolationError
from connectors.model import SchemaContract, Stream, Window, WriteDisposition

_TRANSFORMER = "headwater_transformer"
_LOG = logging.getLogger("headwater")


@dataclass(frozen=True, slots=True)
class Replay:
    """Which rows of an earlier load come again. Raw keeps what is newer than that load."""

    of: UUID
    """The load that landed them; also of a replay of what a replay left."""
    as_of: datetime
    """When it was loaded (`ops.loads.raw_loaded_at`): its rows tell of no later time."""
    rows: tuple[int, ...] | None
    """Their places in the load, from 1; None for all of them."""


@dataclass(frozen=True, slots=True)
class LoadContext:
    """Which load it is about: what errors name and the ledger records."""

    source: str
    stream: Stream
    load_id: UUID
    window: Window | None
    full_refresh: bool = False
    """Whether the load counts even where raw has a newer version."""
    is_rebuild: bool = False
    """Whether history is being repeated: it is acted upon again, and not recorded again."""
    replay: Replay | None = None

    def violation(self, what: str, remedy: str) -> ContractViolationError:
        return ContractViolationError(
            what,
            remedy=remedy,
            source=self.source,
            stream=self.stream.name,
            window=self.window,
            load_id=self.load_id,
        )


def raw_columns(connection: psycopg.Connection, source: str, stream: str) -> dict[str, str]:
    """Type by data column of a stream's raw table, in order; empty when there is no table yet."""
    types = column_types(connection, f"raw_{source}", stream)
    return {name: kind for name, kind in types.items() if name not in OWN_COLUMNS}


def fill_factor(stream: Stream) -> int:
    """How full the pages of a stream's raw table are written, in percent.

    Where rows are replaced, a tenth is left free: a new version that fits beside the old one needs no new entry in the
    key's index, which halves what is written.
    """
    return 90 if stream.write is WriteDisposition.MERGE else 100


def type_name(kind: str) -> sql.SQL:
    """A type as part of a statement. Only what `format_type` or our own table of types printed may come here."""
    return sql.SQL(kind)


class RawTable:
    """One raw table."""

    def __init__(self, connection: psycopg.Connection, context: LoadContext) -> None:
        self._connection = connection
        self._context = context
        self._stream = context.stream
        self.name = sql.Identifier(f"raw_{context.source}", context.stream.name)
        self.key = [column_name(field) for field in context.stream.primary_key]
        self.columns = raw_columns(connection, context.source, context.stream.name)
        """As the table was found; empty when there was none."""
        self._declared: dict[str, str] | None = None

    def declared_types(self) -> dict[str, str]:
        """The types that the stream's definition gives, as PostgreSQL prints them (`timestamptz` has another name).

        Raises:
            ContractViolationError: one is no type of this warehouse.
        """
        if self._declared is None:
            kinds = self._stream.columns.values()
            found = printed_types(self._connection, list(kinds))
            for kind, printed in zip(kinds, found, strict=True):
                if printed is None:
                    raise self._context.violation(
                        f"`{kind}` is no type of the warehouse.",
                        "Correct the stream's columns; use PostgreSQL's names.",
                    )
            self._declared = dict(zip(map(column_name, self._stream.columns), map(str, found), strict=True))
        return self._declared

    def retyped(self) -> dict[str, tuple[str, str]]:
        """The columns that have another type than the definition gives them by now: theirs, and the definition's."""
        return {
            name: (self.columns[name], kind)
            for name, kind in self.declared_types().items()
            if self.columns.get(name, kind) != kind
        }

    def follow(self, incoming: Mapping[str, str], *, typed: Collection[str]) -> dict[str, str]:
        """Create or alter the table so that it can take a load with these columns.

        Args:
            incoming: type by column, as the load asks for them.
            typed: those that the source typed; in others a value that does not fit is judged by itself, later.

        Returns:
            The types that the table has then.

        Raises:
            ContractViolationError: the contract forbids the change, or values would change with it.
        """
        if not self.columns:
            self._create(incoming)
            return dict(incoming)
        types = dict(self.columns)
        for name, kind in incoming.items():
            if self._stream.contract.keeps_columns:
                continue  # what does not fit is judged by itself, later
            if name not in types:
                self._refuse_if_frozen(f"The column `{name}` is new.")
                self._alter(sql.SQL("add column {} {}").format(sql.Identifier(name), type_name(kind)))
                self._note(name, "added", None, kind)
                types[name] = kind
            elif types[name] != kind:
                types[name] = self._reconcile(name, types[name], kind, is_typed=name in typed)
        if typed:
            self._note_removed(incoming)
        self._warn_of_retyped(types)
        return types

    def _warn_of_retyped(self, types: Mapping[str, str]) -> None:
        """Say that raw has columns of another type than the definition gives them, which no load changes."""
        for name, (_, declared) in self.retyped().items():
            if types[name] != declared:
                _LOG.warning(
                    "The definition of %s.%s has `%s` as %s, and raw has it as %s until `headwater rebuild %s.%s`.",
                    self._context.source,
                    self._stream.name,
                    name,
                    declared,
                    types[name],
                    self._context.source,
                    self._stream.name,
                )

    def _reconcile(self, name: str, old: str, new: str, *, is_typed: bool) -> str:
        """What becomes of a column whose type here differs from the load's."""
        if widens(old, new):
            self._refuse_if_frozen(f"The column `{name}` changed from {old} to {new}.")
            self._widen(name, new)
            self._note(name, "widened", old, new)
            return new
        if is_typed and not widens(new, old) and old != "text":
            raise self._context.violation(
                f"The source changed `{name}` from {old} to {new}, and raw cannot follow without changing its values.",
                "Declare a type in the stream's columns that holds both, or text, and run `headwater rebuild "
                f"{self._context.source}.{self._stream.name}`: it makes the table anew, with that type.",
            )
        return old

    def _widen(self, name: str, new: str) -> None:
        """Change a column's type. A column that dbt's views read is made anew instead, and the views fall with the old
        one: PostgreSQL would refuse, and the next build creates them again. What BI reads is not among them."""
        column = sql.Identifier(name)
        try:
            with self._connection.transaction():
                self._alter(sql.SQL("alter column {} type {}").format(column, type_name(new)))
        except psycopg.errors.FeatureNotSupported:
            interim = sql.Identifier("_widened")
            self._alter(sql.SQL("add column {} {}").format(interim, type_name(new)))
            self._connection.execute(sql.SQL("update {} set {} = {}").format(self.name, interim, column))
            self._alter(sql.SQL("drop column {} cascade").format(column))
            self._alter(sql.SQL("rename column {} to {}").format(interim, column))
            if name in self.key:
                self._alter(sql.SQL("add {}").format(self._primary_key()))

    def _create(self, types: Mapping[str, str]) -> None:
        schema = sql.Identifier(f"raw_{self._context.source}")
        # `if not exists` still collides when two streams of a source are first loaded at one instant.
        self._connection.execute(
            sql.SQL("select pg_advisory_xact_lock(hashtextextended({}, 0))").format(
                sql.Literal(f"headwater.raw_{self._context.source}")
            )
        )
        self._connection.execute(sql.SQL("create schema if not exists {}").format(schema))
        self._connection.execute(sql.SQL("grant usage on schema {} to {}").format(schema, sql.Identifier(_TRANSFORMER)))
        columns = [sql.SQL("{} {}").format(sql.Identifier(name), type_name(kind)) for name, kind in types.items()]
        columns += [
            sql.SQL("{} uuid not null").format(sql.Identifier(LOAD_ID)),
            sql.SQL("{} timestamptz not null").format(sql.Identifier(LOADED_AT)),
            sql.SQL("{} timestamptz").format(sql.Identifier(DELETED_AT)),
        ]
        if self.key:
            columns.append(self._primary_key())
        self._connection.execute(
            sql.SQL("create table {} ({}) with (fillfactor = {})").format(
                self.name, sql.SQL(", ").join(columns), sql.Literal(fill_factor(self._stream))
            )
        )
        self._describe()

    def become(self, schema: str, relation: str, loaded_at: sql.Composable) -> bool:
        """Put a table that holds a whole first load in the place of this one, which was just made and is empty.

        Args:
            schema: where that table is.
            relation: its name there. It has this one's data columns, and no others.
            loaded_at: what the rows say of when they were loaded.

        Returns:
            Whether it was done. It is not when a key occurs twice in it, or is null; nothing has changed then.
        """
        table = sql.Identifier(schema, relation)
        steps = [
            # A default that is a constant is not written into the rows.
            sql.SQL("add column {} uuid not null default {}").format(
                sql.Identifier(LOAD_ID), sql.Literal(self._context.load_id)
            ),
            sql.SQL("add column {} timestamptz not null default {}").format(sql.Identifier(LOADED_AT), loaded_at),
            sql.SQL("add column {} timestamptz").format(sql.Identifier(DELETED_AT)),
        ]
        if self.key:
            steps.append(sql.SQL("add {}").format(self._primary_key()))
        change = sql.SQL("alter table {} {}")
        try:
            with self._connection.transaction():
                self._connection.execute(change.format(table, sql.SQL(", ").join(steps)))
        except (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation):
            return False
        defaults = [sql.SQL("alter column {} drop default").format(sql.Identifier(c)) for c in (LOAD_ID, LOADED_AT)]
        self._connection.execute(change.format(table, sql.SQL(", ").join(defaults)))
        self._connection.execute(change.format(table, sql.SQL("reset (autovacuum_enabled)")))
        self._connection.execute(sql.SQL("drop table {}").format(self.name))
        raw_schema = f"raw_{self._context.source}"
        moved = sql.Identifier(raw_schema, relation)
        self._connection.execute(change.format(table, sql.SQL("set schema {}").format(sql.Identifier(raw_schema))))
        self._connection.execute(
            change.format(moved, sql.SQL("rename to {}").format(sql.Identifier(self._stream.name)))
        )
        self._describe()
        return True

    def _describe(self) -> None:
        """Who may read the table, what it is, and how its windows are found."""
        columns = raw_columns(self._connection, self._context.source, self._stream.name)
        if (column := WindowColumn.of(self._stream, columns)) is not None:
            self._connection.execute(sql.SQL("create index on {} ({})").format(self.name, column.identifier))
        self._connection.execute(sql.SQL("grant select on {} to {}").format(self.name, sql.Identifier(_TRANSFORMER)))
        about = f"What {self._context.source} said of {self._stream.name}; written by loads alone"
        self._connection.execute(sql.SQL("comment on table {} is {}").format(self.name, sql.Literal(about)))

    def _primary_key(self) -> sql.Composed:
        return sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.key)))

    def _refuse_if_frozen(self, what: str) -> None:
        if self._stream.contract is SchemaContract.FREEZE:
            raise self._context.violation(
                f"{what} The stream's contract is `freeze`.",
                "Agree the change with the source's owner, then declare it, or set the contract to `evolve`.",
            )

    def _alter(self, change: sql.Composed) -> None:
        self._connection.execute(sql.SQL("alter table {} {}").format(self.name, change))

    def _note_removed(self, incoming: Mapping[str, str]) -> None:
        """Columns that a typed source no longer has (its rows then hold null), and those that came back."""
        if self._context.is_rebuild:
            return
        latest: dict[str, str] = dict(
            self._connection.execute(
                "select distinct on (column_name) column_name, change from ops.schema_changes"
                " where source = %s and stream = %s and change <> 'discarded' order by column_name, id desc",
                [self._context.source, self._stream.name],
            ).fetchall()
        )
        for name, kind in self.columns.items():
            if name not in incoming and latest.get(name) != "removed":
                self._refuse_if_frozen(f"The column `{name}` is gone.")
                self._note(name, "removed", kind, None)
            elif name in incoming and latest.get(name) == "removed":
                self._note(name, "returned", None, kind)

    def note_discarded(self, column: str, kind: str | None, wanted: str | None, rows: int) -> None:
        """Record that rows came into raw without their value of a column.

        Args:
            kind: raw's type of the column; None if raw has no such column.
            wanted: the type that the load asked for, if it is another.
        """
        self._note(column, "discarded", kind, wanted, rows)

    def _note(self, column: str, change: str, old: str | None, new: str | None, rows: int | None = None) -> None:
        if self._context.is_rebuild:
            return
        self._connection.execute(
            "insert into ops.schema_changes"
            " (source, stream, load_id, column_name, change, from_type, to_type, rows_discarded)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [self._context.source, self._stream.name, self._context.load_id, column, change, old, new, rows],
        )
