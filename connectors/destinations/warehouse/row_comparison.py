"""Rows that were read again, in an attempt's table, held against raw: nothing of them is written.

They are judged as a load of them would be, so that what would go to quarantine, or lose a value to the contract, is no
difference; and compared as they would be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from connectors.comparison.differences import Kind
from connectors.comparison.digests import Key
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import DELETED_AT, LOADED_AT, REJECTED, ROW, column_name
from connectors.destinations.warehouse.judgement import Judgement
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, type_name
from connectors.destinations.warehouse.windows import WindowColumn
from connectors.model import Window


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row that raw does not have as it was read."""

    key: Key
    kind: Kind
    event_time: datetime | None
    """None of a stream without windows, or where the row has none."""
    cursor: str | None
    columns: tuple[str, ...] = ()


class RowComparison:
    """One read against its raw table. Use it inside a transaction, once all rows are in.

    Args:
        began_at: when the read began; rows that raw has got since are not judged by it.
        position: raw's watermark then. Rows from it on (less the cursor's lag) are a matter of the next load.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        context: LoadContext,
        *,
        began_at: datetime,
        position: str | None,
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._stream = context.stream
        self._contract = context.stream.contract
        self._table = RawTable(connection, context)
        self._types = self._table.columns
        self._key = self._table.key
        self._began_at = began_at
        self._position = position
        self._column = WindowColumn.of(self._stream, self._types)
        self._compared = [name for name in self._types if self._is_compared(name)]

    def _is_compared(self, name: str) -> bool:
        """Of a source that types its columns one may be gone; a document without a field says that it is null."""
        gone = not self._attempt.types and name not in self._attempt.source_types and bool(self._attempt.typed_fields)
        return name not in self._key and not gone

    def judge(self) -> int:
        """Mark what a load would not bring into raw, by raw's columns as they are; how many rows that is."""
        declared, asked = self._table.declared_types(), self._attempt.asked
        cursor = column_name(self._stream.cursor.field) if self._stream.cursor else None
        relied_on: dict[str, str | None] = dict.fromkeys(self._key, "the key is null")
        if cursor is not None:
            relied_on.setdefault(cursor, "the cursor is null" if self._stream.rejects_null_cursors else None)
        incoming = {name: declared.get(name) or asked[name] or self._types.get(name, "text") for name in asked}
        self._attempt.prepare_judgement()
        brought = self._attempt.columns
        judgement = Judgement(
            self._connection,
            self._attempt,
            self._table,
            self._contract,
            relied_on={name: why for name, why in relied_on.items() if name in brought},
            incoming=incoming,
            types=self._types,
        )
        lacking = [name for name in brought if name not in self._types] if self._contract.keeps_columns else []
        return judgement.run([name for name in brought if name in self._types], lacking) + self._attempt.unreadable

    def count_changed(self) -> int:
        """The rows that are a matter of the next load."""
        return int(self._rows("select count(*) from {read} r where not {settled}")[0][0])

    def differing(self, most: int) -> list[DifferingRow]:
        """Rows that raw lacks, or has otherwise; no more than so many, by their key."""
        found = self._rows(
            "select t.{first} is null or t.{deleted_at} is not null, {event_time}, {cursor},"
            " case when t.{first} is null then '{{}}' when t.{deleted_at} is not null then array[{deleted}]"
            " else array_remove(array[{columns}]::text[], null) end, {keys}"
            " from {read} r left join {raw} t on {same}"
            " where {settled} and (t.{first} is null or coalesce(t.{loaded_at}, '-infinity') <= {began_at} and"
            " (t.{deleted_at} is not null or {differs})) order by {order} limit {most}",
            alias="r",
            most=most,
        )
        return [
            DifferingRow(tuple(key), Kind.MISSING if is_missing else Kind.DIFFERENT, at, cursor, tuple(columns))
            for is_missing, at, cursor, columns, *key in found
        ]

    def deleted(self, window: Window | None, most: int) -> list[DifferingRow]:
        """Live rows of raw, in a window if one was read, that were not read; no more than so many, by their key."""
        found = self._rows(
            "select {event_time}, {cursor}, {keys} from {raw} t where t.{deleted_at} is null"
            " and t.{loaded_at} <= {began_at} and {within} and not {present} order by {order} limit {most}",
            alias="t",
            most=most,
            within=sql.SQL("true") if window is None or self._column is None else self._column.within(window),
        )
        return [DifferingRow(tuple(key), Kind.DELETED, at, cursor) for at, cursor, *key in found]

    def present(self, keys: Sequence[Key]) -> set[Key]:
        """Those keys that a row which was read has, also one that would go to quarantine."""
        values = sql.SQL(", ").join(sql.SQL("r.{}::text").format(sql.Identifier(name)) for name in self._key)
        places = range(len(self._key))
        asked = sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Literal([key[p] for key in keys])) for p in places)
        found = self._connection.execute(
            sql.SQL(
                "select distinct {values} from {read} r where ({values}) in (select * from unnest({asked}))"
            ).format(values=values, read=self._keys(), asked=asked)
        )
        return {tuple(row) for row in found}

    def _rows(self, statement: str, *, alias: str = "t", **parts: Any) -> list[tuple[Any, ...]]:
        event_time: sql.Composable = sql.SQL("null::timestamptz")
        cursor: sql.Composable = sql.SQL("null::text")
        if self._column is not None:
            # Others Python may not even hold.
            event_time = sql.SQL("case when {} then {} end").format(
                self._column.has_window(alias), self._column.instant(alias)
            )
        if self._stream.cursor is not None:
            cursor = sql.SQL("{}::text").format(sql.Identifier(alias, column_name(self._stream.cursor.field)))
        same = sql.SQL(" and ").join(sql.SQL("r.{0} = t.{0}").format(sql.Identifier(name)) for name in self._key)
        changed = [sql.SQL("record_image_ne(row(t.{0}), row(r.{0}))").format(sql.Identifier(n)) for n in self._compared]
        return self._connection.execute(
            sql.SQL(statement).format(
                raw=self._table.name,
                read=self._read(),
                same=same,
                present=sql.SQL("exists (select from {} r where {})").format(self._keys(), same),
                first=sql.Identifier(self._key[0]),
                event_time=event_time,
                cursor=cursor,
                columns=sql.SQL(", ").join(
                    sql.SQL("case when {} then {} end").format(test, sql.Literal(name))
                    for name, test in zip(self._compared, changed, strict=True)
                ),
                differs=sql.SQL("({})").format(sql.SQL(" or ").join(changed)) if changed else sql.SQL("false"),
                keys=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in self._key),
                order=sql.SQL(", ").join(sql.Identifier(alias, name) for name in self._key),
                settled=self._settled(),
                began_at=sql.Literal(self._began_at),
                deleted=sql.Literal(DELETED_AT),
                deleted_at=sql.Identifier(DELETED_AT),
                loaded_at=sql.Identifier(LOADED_AT),
                **parts,
            )
        ).fetchall()

    def _settled(self) -> sql.Composable:
        """The condition that a load must have brought a row `r`."""
        cursor = self._stream.cursor
        if cursor is None or self._position is None:
            return sql.SQL("true")
        name = column_name(cursor.field)
        kind = self._types[name]
        bound = sql.SQL("{}::{}").format(sql.Literal(self._position), type_name(kind))
        if cursor.lag and kind.startswith(("timestamp", "date")):
            bound = sql.SQL("{} - {}::interval").format(bound, sql.Literal(cursor.lag))
        return sql.SQL("coalesce(r.{} < {}, false)").format(sql.Identifier(name), bound)

    def _keys(self) -> sql.Composed:
        """The keys of all rows that were read, typed as raw is; null where one is no value of the type."""
        values = [
            sql.SQL("case when pg_input_is_valid({0}::text, {1}) then {0}::text::{2} end as {0}").format(
                sql.Identifier(name), sql.Literal(self._types[name]), type_name(self._types[name])
            )
            if name in self._attempt.columns
            else sql.SQL("null::{} as {}").format(type_name(self._types[name]), sql.Identifier(name))
            for name in self._key
        ]
        return sql.SQL("(select {} from {})").format(sql.SQL(", ").join(values), self._attempt.name)

    def _read(self) -> sql.Composed:
        """The rows that a load would bring, typed as raw is; of those with one key the latest."""
        brought = set(self._attempt.columns)
        columns = {
            name: sql.SQL("{}::{}").format(
                sql.Identifier(name) if name in brought else sql.SQL("null"), type_name(kind)
            )
            for name, kind in self._types.items()
        }
        key = sql.SQL(", ").join(columns[name] for name in self._key)
        newest = (
            sql.SQL(", {} desc nulls last").format(columns[column_name(self._stream.cursor.field)])
            if self._stream.cursor
            else sql.SQL("")
        )
        return sql.SQL(
            "(select distinct on ({key}) {values} from {table} where {rejected} is null"
            " order by {key}{newest}, {row} desc)"
        ).format(
            key=key,
            values=sql.SQL(", ").join(
                sql.SQL("{} as {}").format(value, sql.Identifier(name)) for name, value in columns.items()
            ),
            table=self._attempt.name,
            rejected=sql.Identifier(REJECTED),
            newest=newest,
            row=sql.Identifier(ROW),
        )
