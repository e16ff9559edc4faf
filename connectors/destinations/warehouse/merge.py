"""Bringing an attempt's rows into raw, by the stream's contract and write disposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import (
    BESIDE,
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    REJECTED,
    ROW,
    column_name,
    widens,
)
from connectors.destinations.warehouse.connection import LOADING
from connectors.destinations.warehouse.judgement import Judgement
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, type_name
from connectors.destinations.warehouse.replayed import ReplayedRows
from connectors.destinations.warehouse.typed_documents import UnfitError
from connectors.destinations.warehouse.windows import WindowChange, WindowColumn, counted
from connectors.model import WriteDisposition
from connectors.privacy import masked_fields


@dataclass(frozen=True, slots=True)
class Past:
    """What a load did not bring when it was loaded; a rebuild does not bring it either."""

    quarantined: tuple[int, ...] = ()
    """Places of rows in the load, from 1."""
    discarded: Mapping[str, str | None] = field(default_factory=dict)
    """By column: the type that some values did not fit; None where raw had no such column."""


_BEFORE = "quarantined before"
_NOTHING = {"inserted": 0, "updated": 0, "unchanged": 0, "duplicate": 0, "deleted": 0}


class Merge:
    """One attempt's way into raw, inside a transaction: first `judge`, then `write`.

    Args:
        loaded_at: what the rows say of when they were loaded.
        past: what to leave out because history did.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        context: LoadContext,
        *,
        loaded_at: datetime,
        past: Past | None = None,
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._context = context
        self._stream = context.stream
        self._table = RawTable(connection, context)
        self.raw = self._table.name
        self._key = self._table.key
        self._when = sql.Literal(loaded_at)
        self._past = past or Past()
        self.cursor = column_name(self._stream.cursor.field) if self._stream.cursor else None
        self.types: dict[str, str] = {}
        """Raw's types once judged; empty when the load has nothing to bring."""
        self.is_raw = False
        """Whether the attempt's table has become the raw table, every row of it: there is nothing more to judge."""
        self.window_column: WindowColumn | None = None
        """What the stream's windows are cut by, once judged."""
        self.window_changes: list[WindowChange] = []
        """What was written to each of them."""
        self._columns: list[str] = []
        self._replayed = (
            ReplayedRows(connection, attempt, context, context.replay, self._table, self.cursor)
            if context.replay is not None
            else None
        )

    def judge(self) -> None:
        """Have raw follow the load's columns, and mark the rows that it cannot hold. A first load that has no such rows
        may be raw then.

        Raises:
            ContractViolationError: the columns break the contract.
            UnfitError: documents were assumed to fit, and have to be judged; or they were taken apart by what raw was
                before another load changed it.
        """
        if self._attempt.is_outdated:
            raise UnfitError
        if self._replayed or self._past.quarantined:
            self._attempt.prepare_judgement()
        if self._replayed:
            self._replayed.narrow()
        self._mark(self._past.quarantined, _BEFORE)
        left_out = {name for name, kind in self._past.discarded.items() if kind is None}
        incoming = {name: kind for name, kind in self._incoming_types().items() if name not in left_out}
        if not self._has_columns_it_relies_on(incoming):
            return
        self.types = self._table.follow(incoming, typed=self._typed_by_source(incoming))
        self.window_column = WindowColumn.of(self._stream, self.types)
        self.is_raw = self._becomes_raw()
        if self.is_raw:
            return
        if self._attempt.assumes_fit:
            raise UnfitError
        self._attempt.prepare_judgement()
        brought = [name for name in self._attempt.columns if name not in left_out]
        self._columns = [name for name in brought if name in incoming and name in self.types]
        judgement = Judgement(
            self._connection,
            self._attempt,
            self._table,
            self._stream.contract,
            relied_on=self._relied_on,
            incoming=incoming,
            types=self.types,
            masked=masked_fields(self._stream.privacy),
        )
        for name, kind in self._past.discarded.items():
            if kind is not None and name in brought:
                judgement.take_out(name, kind)
        judgement.run(self._columns, [name for name in brought if name not in self.types])

    def rejected(self) -> tuple[int, str]:
        """How many rows raw does not get, once judged, and what was wrong with the first that it might have got."""
        if self.is_raw or not self.types:
            return self._attempt.unreadable, ""
        row = self._execute(
            sql.SQL(
                "select count(*), (array_agg({rejected} order by {row}) filter (where {rejected} <> {before}))[1]"
                " from {table} where {rejected} <> {beside}"
            ).format(
                before=sql.Literal(_BEFORE),
                beside=sql.Literal(BESIDE),
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
                row=sql.Identifier(ROW),
            )
        ).fetchone()
        assert row is not None  # noqa: S101 - a count has one row
        return row[0], row[1] or ""

    def write(self) -> dict[str, int]:
        """Bring the accepted rows into raw; what happened to them, in rows, by the names of `LoadReport`."""
        if not self.types:
            return dict(_NOTHING)
        if self.is_raw:
            if self.window_column is not None:
                rows = counted(self._connection, self.raw, self.window_column)
                self.window_changes = [WindowChange(start, count, 0) for start, count in rows.items()]
            return {**_NOTHING, "inserted": self._attempt.rows}
        return self._write(self._columns, self.types)

    def _becomes_raw(self) -> bool:
        """Whether the attempt's table could take raw's place as it is, and has. Only a first load's can."""
        fits = self._attempt.may_become_raw and not self._table.columns and self._attempt.types == self.types
        if not fits or self._past.discarded:
            return False
        if self.cursor and self._stream.rejects_null_cursors and self._attempt.has_null(self.cursor):
            return False
        return self._table.become(LOADING, self._attempt.relation, self._when)

    def _execute(self, statement: sql.Composable, parameters: Iterable[object] | None = None) -> psycopg.Cursor:
        return self._connection.execute(
            statement if isinstance(statement, sql.Composed) else sql.Composed([statement]),
            list(parameters) if parameters is not None else None,
        )

    def _incoming_types(self) -> dict[str, str]:
        """The type that each column of the load asks for, before raw is looked at.

        A column of documents that held no value at all asks for nothing, unless it is declared.
        """
        declared = self._table.declared_types()
        if (typed := self._attempt.types) is not None:
            return {name: self._declared_for(name, kind, declared.get(name)) for name, kind in typed.items()}
        asked = self._attempt.asked
        types: dict[str, str] = {}
        for name in self._attempt.columns:
            kind = declared.get(name) or asked[name] or self._table.columns.get(name)
            if kind is not None:
                types[name] = kind
        return {**types, **{name: kind for name, kind in declared.items() if name not in types}}

    def _typed_by_source(self, incoming: Mapping[str, str]) -> set[str]:
        """The columns whose type is the source's word: if it changes to another kind of type, raw cannot follow."""
        if self._attempt.types is not None:
            return set(incoming)
        return self._attempt.source_types.keys() - self._table.declared_types().keys()

    def _declared_for(self, name: str, source: str, declared: str | None) -> str:
        """The type of a column that the source has typed: the declared one, if it holds all that the source's does."""
        if declared is None or declared == source:
            return source
        if self._stream.contract.keeps_columns:
            return declared  # each value is judged by itself
        if declared != "text" and not widens(source, declared):
            raise self._context.violation(
                f"`{name}` is declared as {declared}, and the source's {source} does not fit into it unchanged.",
                "Correct the stream's columns: name a wider type, text, or none.",
            )
        return declared

    def _has_columns_it_relies_on(self, incoming: Mapping[str, str]) -> bool:
        """Whether the load brought the key and the cursor; a load of no rows need not have.

        Raises:
            ContractViolationError: there are rows, and they lack one.
        """
        needed = self._relied_on.keys()
        missing = sorted(needed - incoming.keys() | needed - set(self._attempt.columns))
        if missing and self._attempt.rows > self._attempt.unreadable:
            raise self._context.violation(
                f"No row has a value in {', '.join(missing)}.",
                "Correct the stream's primary_key or cursor, or ask the source's owner what became of the field.",
            )
        has = self._table.columns
        if self._stream.contract.keeps_columns and has and (absent := sorted(needed - has.keys())):
            raise self._context.violation(
                f"Raw has no column {', '.join(absent)}, and the contract `{self._stream.contract}` adds none.",
                "Correct the stream's primary_key or cursor, or set the contract to `evolve` for one load.",
            )
        return not missing

    @property
    def _relied_on(self) -> dict[str, str | None]:
        """The key and the cursor, each with what is wrong with a row that has none; None if nothing is."""
        found: dict[str, str | None] = dict.fromkeys(self._key, "the key is null")
        if self.cursor is not None:
            found.setdefault(self.cursor, "the cursor is null" if self._stream.rejects_null_cursors else None)
        return found

    def _write(self, columns: list[str], types: Mapping[str, str]) -> dict[str, int]:
        """Bring the accepted rows into raw by the stream's write disposition; what happened to them, in rows."""
        is_partial = self._replayed is not None and self._replayed.is_partial
        superseded = self._replayed.drop_superseded(types) if self._replayed else 0
        accepted = _one(
            self._execute(
                sql.SQL("select count(*) from {} where {} is null").format(self._attempt.name, sql.Identifier(REJECTED))
            )
        )
        counts = {**_NOTHING, "inserted": accepted}
        if self._stream.write is WriteDisposition.REPLACE and not self._key and not is_partial:
            return self._replace_unkeyed(accepted, columns, types)
        if not self._key:
            counts["deleted"] = self._replayed.delete_from_raw() if self._replayed else self._delete_window()
            self._write_events(columns, types)
            return counts
        if self._stream.write is WriteDisposition.REPLACE and not is_partial:
            counts["deleted"] = self._delete_absent(types)
        distinct = _one(
            self._execute(
                sql.SQL("select count(*) from (select distinct {key} from {table} where {rejected} is null) d").format(
                    key=self._typed(self._key, types),
                    table=self._attempt.name,
                    rejected=sql.Identifier(REJECTED),
                )
            )
        )
        inserted, updated = self._write_rows(columns, types, are_distinct=distinct == accepted)
        counts["inserted"], counts["updated"] = inserted, updated
        counts["unchanged"] = distinct - counts["inserted"] - counts["updated"]
        counts["duplicate"] = accepted - distinct + superseded
        return counts

    def _delete_window(self) -> int:
        """Of events without a key a window's are all that a read of the window has brought: they take the place of
        those that raw has; how many those were."""
        window = self._context.window
        if window is None:
            return 0
        if self.window_column is None:
            raise self._context.violation(
                f"Raw cannot tell which rows are of the window: `{self._stream.event_time}` holds no instants.",
                "Give it a type in the stream's columns: timestamptz, timestamp or date.",
            )
        before = counted(self._connection, self.raw, self.window_column, window)
        self._execute(sql.SQL("delete from {} where {}").format(self.raw, self.window_column.within(window)))
        return sum(before.values())

    def _write_events(self, columns: list[str], types: Mapping[str, str]) -> None:
        """Insert rows that nothing tells apart."""
        insert = self._insert(columns, types, sql.SQL(""))
        if self.window_column is None:
            self._execute(insert, [self._context.load_id])
            return
        found = self._execute(
            sql.SQL("with written as ({} returning {} as w) select w, count(*) from written group by w").format(
                insert, self.window_column.start("t")
            ),
            [self._context.load_id],
        )
        self.window_changes = [WindowChange(start, count, 0) for start, count in found if start is not None]

    def _write_rows(self, columns: list[str], types: Mapping[str, str], *, are_distinct: bool) -> tuple[int, int]:
        """Insert rows with a key, or replace what is there; how many were inserted, and how many updated."""
        column = self.window_column
        are_new = not self._has_any_of_them(types)
        if are_new and are_distinct:
            # Neither a choice among versions nor a look at what is there: several times as fast. No other commit of the
            # stream comes in between, for they take turns.
            insert = self._insert(columns, types, sql.SQL(""), are_distinct=True)
        else:
            insert = self._insert(columns, types, self._on_conflict(types))
        if column is None:
            statement = sql.SQL(
                "with written as ({insert} returning (xmax = 0) as is_new)"
                " select null, count(*) filter (where is_new), count(*) filter (where not is_new), 0 from written"
            ).format(insert=insert)
        elif are_new or (self._stream.write is WriteDisposition.APPEND and not self._replayed):
            # Nothing but new rows, which leave no window.
            statement = sql.SQL(
                "with written as ({insert} returning {start} as w) select w, count(*), 0, 0 from written group by w"
            ).format(insert=insert, start=column.start("t"))
        else:
            # A row whose event time changes leaves one window for another; what it was, only the row before can tell.
            # No column has a name with a capital letter, so none is taken for these.
            statement = sql.SQL(
                'with before as (select {raw_key}, {start} as "W" from {raw} t join (select distinct {typed}'
                " from {table} where {rejected} is null) a on {same}),"
                ' written as ({insert} returning (xmax = 0) as "New", {start} as "W", {raw_key}),'
                ' moves as (select written."New", written."W", before."W" as "Was" from written'
                " left join before using ({key}))"
                ' select "W", count(*) filter (where "New"), count(*) filter (where not "New"),'
                ' count(*) filter (where not "New" and "Was" is distinct from "W") from moves group by "W"'
                ' union all select "Was", 0, 0, -count(*) from moves where not "New" and "Was" is distinct from "W"'
                ' group by "Was"'
            ).format(
                raw=self.raw,
                raw_key=sql.SQL(", ").join(sql.Identifier("t", name) for name in self._key),
                start=column.start("t"),
                typed=sql.SQL(", ").join(
                    sql.SQL("{0}::{1} as {0}").format(sql.Identifier(name), type_name(types[name]))
                    for name in self._key
                ),
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
                same=sql.SQL(" and ").join(
                    sql.SQL("{} = {}").format(sql.Identifier("a", name), sql.Identifier("t", name))
                    for name in self._key
                ),
                insert=insert,
                key=_names(self._key),
            )
        rows = self._execute(statement, [self._context.load_id]).fetchall()
        by_start: dict[datetime, WindowChange] = {}
        for start, inserted, updated, moved in rows:
            if start is not None:
                so_far = by_start.get(start, WindowChange(start, 0, 0))
                by_start[start] = WindowChange(
                    start, so_far.inserted + inserted, so_far.updated + updated, so_far.moved + moved
                )
        self.window_changes = list(by_start.values())
        return sum(row[1] for row in rows), sum(row[2] for row in rows)

    def _has_any_of_them(self, types: Mapping[str, str]) -> bool:
        """Whether raw has a row with the key of an accepted one."""
        same = sql.SQL(" and ").join(
            sql.SQL("a.{0}::{1} = t.{0}").format(sql.Identifier(name), type_name(types[name])) for name in self._key
        )
        row = self._execute(
            sql.SQL("select exists (select from {table} a join {raw} t on {same} where a.{rejected} is null)").format(
                table=self._attempt.name, raw=self.raw, same=same, rejected=sql.Identifier(REJECTED)
            )
        ).fetchone()
        return bool(row and row[0])

    def _replace_unkeyed(self, accepted: int, columns: list[str], types: Mapping[str, str]) -> dict[str, int]:
        """Make raw the same rows as the load, as often as each occurs; what is there already is not written again."""
        self._refuse_emptiness()
        came = self._numbered(self._attempt.name, sql.Identifier(REJECTED), types, from_load=set(columns))
        there = self._numbered(self.raw, sql.SQL("null"), types, from_load=None)
        only_in = sql.SQL(
            "ctid in (with one as ({one}), other as ({other}) select one.place from one where not exists"
            " (select from other where other.content = one.content and other.number = one.number))"
        )
        gone = only_in.format(one=there, other=came)
        deleted = self._execute(sql.SQL("delete from {} where {}").format(self.raw, gone)).rowcount
        new = only_in.format(one=came, other=there)
        inserted = self._execute(self._insert(columns, types, sql.SQL(""), where=new), [self._context.load_id])
        counts = {"inserted": inserted.rowcount, "deleted": deleted, "unchanged": accepted - inserted.rowcount}
        return {**_NOTHING, **counts}

    def _numbered(
        self, table: sql.Composable, rejected: sql.Composable, types: Mapping[str, str], *, from_load: set[str] | None
    ) -> sql.Composed:
        """Rows by what they hold: `place`, `content` as a text, and a `number` among those of one content."""
        values = [
            sql.SQL("{}::{}").format(
                sql.Identifier(name) if from_load is None or name in from_load else sql.SQL("null"), type_name(kind)
            )
            for name, kind in types.items()
        ]
        return sql.SQL(
            "select ctid as place, content, row_number() over (partition by content) as number"
            " from (select ctid, row({values})::text as content from {table} where {rejected} is null) rows"
        ).format(values=sql.SQL(", ").join(values), table=table, rejected=rejected)

    def _insert(
        self,
        columns: list[str],
        types: Mapping[str, str],
        ending: sql.Composable,
        *,
        where: sql.Composable | None = None,
        are_distinct: bool = False,
    ) -> sql.Composed:
        """Insert the accepted rows, of those with one key the latest."""
        latest: sql.Composable = sql.SQL("")
        order: sql.Composable = sql.SQL("")
        if self._key and not are_distinct:
            key = self._typed(self._key, types)
            latest = sql.SQL("distinct on ({}) ").format(key)
            newest = (
                sql.SQL(", {} desc nulls last").format(self._typed([self.cursor], types))
                if self.cursor
                else sql.SQL("")
            )
            order = sql.SQL(" order by {}{}, {} desc").format(key, newest, sql.Identifier(ROW))
        return sql.SQL(
            "insert into {raw} as t ({columns}, {load_id}, {loaded_at})"
            " select {latest}{values}, %s, {when} from {table} where {rejected} is null and {where}{order} {ending}"
        ).format(
            raw=self.raw,
            when=self._when,
            columns=_names(columns),
            load_id=sql.Identifier(LOAD_ID),
            loaded_at=sql.Identifier(LOADED_AT),
            latest=latest,
            values=self._typed(columns, types),
            table=self._attempt.name,
            rejected=sql.Identifier(REJECTED),
            where=where or sql.SQL("true"),
            order=order,
            ending=ending,
        )

    def _on_conflict(self, types: Mapping[str, str]) -> sql.Composable:
        """A row that is there already is replaced as a whole, if it differs and is not newer than what came.

        In an `append` stream it stays as it is: events do not change. A full refresh takes the source's word for all.
        """
        if self._stream.write is WriteDisposition.APPEND and not (self._context.full_refresh or self._replayed):
            return sql.SQL("on conflict ({}) do nothing").format(_names(self._key))
        changing = [name for name in types if name not in self._key]
        alive = sql.SQL("t.{} is not null").format(sql.Identifier(DELETED_AT))
        # Compared as they are stored, not by `=`: some types have none, and 1 month equals 30 days, 1.1 equals 1.10.
        differs = sql.SQL("pg_catalog.record_image_ne(row({}), row({}))").format(
            sql.SQL(", ").join(sql.Identifier("t", name) for name in changing),
            sql.SQL(", ").join(sql.Identifier("excluded", name) for name in changing),
        )
        condition = sql.SQL("({} or {})").format(differs, alive) if changing else alive
        if self._replayed:
            condition = sql.SQL("{} and {}").format(condition, self._replayed.may_replace(self._when))
        elif self.cursor and not self._context.full_refresh:
            condition = sql.SQL("{} and coalesce(excluded.{c} >= t.{c}, t.{c} is null)").format(
                condition, c=sql.Identifier(self.cursor)
            )
        assignments = [
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in (*changing, LOAD_ID, LOADED_AT)
        ]
        assignments.append(sql.SQL("{} = null").format(sql.Identifier(DELETED_AT)))
        return sql.SQL("on conflict ({}) do update set {} where {}").format(
            _names(self._key), sql.SQL(", ").join(assignments), condition
        )

    def _mark(self, rows: tuple[int, ...], why: str) -> None:
        if rows:
            self._execute(
                sql.SQL("update {} set {rejected} = %s where {} = any(%s::bigint[])").format(
                    self._attempt.name, sql.Identifier(ROW), rejected=sql.Identifier(REJECTED)
                ),
                [why, list(rows)],
            )

    def _delete_absent(self, types: Mapping[str, str]) -> int:
        """Delete what a full read no longer has."""
        self._refuse_emptiness()
        same = sql.SQL(" and ").join(
            sql.SQL("a.{0}::{1} = t.{0}").format(sql.Identifier(name), type_name(types[name])) for name in self._key
        )
        return self._execute(
            sql.SQL("delete from {raw} t where not exists"
                " (select from {table} a where {same} and a.{rejected} is null)"
            ).format(
                raw=self.raw, table=self._attempt.name, same=same, rejected=sql.Identifier(REJECTED)
            )
        ).rowcount  # fmt: skip

    def _refuse_emptiness(self) -> None:
        """A full read without a single row is taken for a mishap, not for news.

        Raises:
            ContractViolationError: it had none, and raw has some.
        """
        if self._attempt.rows == 0 and _one(self._execute(sql.SQL("select count(*) from {}").format(self.raw))):
            raise self._context.violation(
                "The source has no rows any more, and raw has.",
                "If that is right, empty the raw table by hand; nothing was committed.",
            )

    def _typed(self, columns: Iterable[str], types: Mapping[str, str]) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(name), type_name(types[name])) for name in columns
        )


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _one(cursor: psycopg.Cursor) -> int:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - every query that comes here has one row
    return int(row[0])
