"""Bringing an attempt's rows into raw, by the stream's contract and write disposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import SCHEMA, AttemptTable
from connectors.destinations.warehouse.columns import (
    BESIDE,
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    PAYLOAD,
    REJECTED,
    ROW,
    column_name,
    inferred_type,
    widens,
)
from connectors.destinations.warehouse.judgement import Judgement
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, Replay, type_name
from connectors.model import WriteDisposition


@dataclass(frozen=True, slots=True)
class Past:
    """What a load did not bring when it was loaded; a rebuild does not bring it either."""

    quarantined: tuple[int, ...] = ()
    """Places of rows in the load, from 1."""
    discarded: Mapping[str, str | None] = field(default_factory=dict)
    """By column: the type that some values did not fit; None where raw had no such column."""


_NOTHING = {"inserted": 0, "updated": 0, "unchanged": 0, "duplicate": 0, "deleted": 0}


class Merge:
    """One attempt's way into raw, inside a transaction: first `judge`, then `write`.

    Args:
        loaded_at: what the rows say of when they were loaded; now, without it.
        past: what to leave out because history did.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        context: LoadContext,
        *,
        loaded_at: datetime | None = None,
        past: Past | None = None,
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._context = context
        self._stream = context.stream
        self._table = RawTable(connection, context)
        self._raw = self._table.name
        self._key = self._table.key
        self._loaded_at = loaded_at
        self._past = past or Past()
        self.cursor = column_name(self._stream.cursor.field) if self._stream.cursor else None
        self.types: dict[str, str] = {}
        """Raw's types once judged; empty when the load has nothing to bring."""
        self._columns: list[str] = []
        self._rejected_here = 0

    def judge(self) -> None:
        """Have raw follow the load's columns, and mark the rows that it cannot hold.

        Raises:
            ContractViolationError: the columns break the contract.
        """
        self._narrow()
        self._mark(self._past.quarantined, "quarantined before")
        left_out = {name for name, kind in self._past.discarded.items() if kind is None}
        incoming = {name: kind for name, kind in self._incoming_types().items() if name not in left_out}
        if not self._has_columns_it_relies_on(incoming):
            return
        self.types = self._table.follow(incoming, is_typed=self._attempt.types is not None)
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
        )
        for name, kind in self._past.discarded.items():
            if kind is not None and name in brought:
                judgement.take_out(name, kind)
        self._rejected_here = judgement.run(self._columns, [name for name in brought if name not in self.types])

    def write(self) -> dict[str, int]:
        """Bring the accepted rows into raw; what happened to them, in rows, by the names of `LoadReport`.

        The attempt's table may be raw's own after that: read it before.
        """
        if not self.types:
            return dict(_NOTHING)
        if self._becomes_raw():
            return {**_NOTHING, "inserted": self._attempt.rows}
        return self._write(self._columns, self.types)

    def _becomes_raw(self) -> bool:
        """Whether the attempt's table could take raw's place as it is, and has. Only a first load's can."""
        fits = self._attempt.may_become_raw and not self._table.columns and self._attempt.types == self.types
        if not fits or self._rejected_here or self._past.quarantined:
            return False
        return self._table.become(SCHEMA, self._attempt.relation, (ROW, REJECTED, PAYLOAD), self._when)

    @property
    def _when(self) -> sql.Composable:
        """What the rows say of when they were loaded."""
        return sql.SQL("now()") if self._loaded_at is None else sql.Literal(self._loaded_at)

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
        kinds = self._attempt.kinds
        types: dict[str, str] = {}
        for name in self._attempt.columns:
            kind = declared.get(name)
            if kind is None:
                kind = inferred_type(kinds[name]) if kinds is not None else "text"
            if kind is None:
                kind = self._table.columns.get(name)
            if kind is not None:
                types[name] = kind
        return {**types, **{name: kind for name, kind in declared.items() if name not in types}}

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
        superseded = self._drop_superseded(types)
        accepted = _one(
            self._execute(
                sql.SQL("select count(*) from {} where {} is null").format(self._attempt.name, sql.Identifier(REJECTED))
            )
        )
        counts = {**_NOTHING, "inserted": accepted}
        if self._stream.write is WriteDisposition.REPLACE and not self._key and not self._is_partial:
            return self._replace_unkeyed(accepted, columns, types)
        if not self._key:
            counts["deleted"] = self._delete_replayed()
            self._execute(self._insert(columns, types, sql.SQL("")), [self._context.load_id])
            return counts
        if self._stream.write is WriteDisposition.REPLACE and not self._is_partial:
            counts["deleted"] = self._delete_absent(types)
        row = self._execute(
            sql.SQL(
                "with written as ({insert} returning (xmax = 0) as is_new)"
                " select count(*) filter (where is_new), count(*) filter (where not is_new) from written"
            ).format(insert=self._insert(columns, types, self._on_conflict(types))),
            [self._context.load_id],
        ).fetchone()
        assert row is not None  # noqa: S101 - an aggregate without grouping has one row
        distinct = _one(
            self._execute(
                sql.SQL("select count(*) from (select distinct {key} from {table} where {rejected} is null) d").format(
                    key=self._typed(self._key, types),
                    table=self._attempt.name,
                    rejected=sql.Identifier(REJECTED),
                )
            )
        )
        counts["inserted"], counts["updated"] = row
        counts["unchanged"] = distinct - counts["inserted"] - counts["updated"]
        counts["duplicate"] = accepted - distinct + superseded
        return counts

    def _replace_unkeyed(self, accepted: int, columns: list[str], types: Mapping[str, str]) -> dict[str, int]:
        """Make raw the same rows as the load, as often as each occurs; what is there already is not written again."""
        self._refuse_emptiness()
        came = self._numbered(self._attempt.name, sql.Identifier(REJECTED), types, from_load=set(columns))
        there = self._numbered(self._raw, sql.SQL("null"), types, from_load=None)
        only_in = sql.SQL(
            "ctid in (with one as ({one}), other as ({other}) select one.place from one where not exists"
            " (select from other where other.content = one.content and other.number = one.number))"
        )
        gone = only_in.format(one=there, other=came)
        deleted = self._execute(sql.SQL("delete from {} where {}").format(self._raw, gone)).rowcount
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
    ) -> sql.Composed:
        """Insert the accepted rows, of those with one key the latest."""
        latest: sql.Composable = sql.SQL("")
        order: sql.Composable = sql.SQL("")
        if self._key:
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
            raw=self._raw,
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
        replay = self._context.replay
        if self._stream.write is WriteDisposition.APPEND and not (self._context.full_refresh or replay):
            return sql.SQL("on conflict ({}) do nothing").format(_names(self._key))
        changing = [name for name in types if name not in self._key]
        alive = sql.SQL("t.{} is not null").format(sql.Identifier(DELETED_AT))
        differs = sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(_comparable(sql.Identifier("t", name), types[name]) for name in changing),
            sql.SQL(", ").join(_comparable(sql.Identifier("excluded", name), types[name]) for name in changing),
        )
        condition = sql.SQL("({} or {})").format(differs, alive) if changing else alive
        if replay is not None:
            condition = sql.SQL("{} and {}").format(condition, self._is_not_newer_than(replay))
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

    def _is_not_newer_than(self, replay: Replay) -> sql.Composed:
        """Whether raw's row may give way to one of an earlier load.

        By the cursor, where there is one. Where it cannot tell (versions that share it, or a full refresh since, which
        may have gone back in it), raw's row has to be of a load that is not later; a replay counts as the load that it
        repeats. A row that was deleted since stays deleted. In an `append` stream only rows of the load itself change.
        """
        if self._stream.write is WriteDisposition.APPEND:
            return sql.SQL("t.{} in ({})").format(sql.Identifier(LOAD_ID), self._loads_of(replay))
        later = sql.SQL(
            "t.{} in (select l.load_id from ops.loads l left join ops.loads o on o.load_id = l.replay_of"
            " where l.source = {} and l.stream = {} and coalesce(o.raw_loaded_at, l.raw_loaded_at) > {})"
        ).format(
            sql.Identifier(LOAD_ID),
            sql.Literal(self._context.source),
            sql.Literal(self._stream.name),
            sql.Literal(replay.as_of),
        )
        test = sql.SQL("not {}").format(later)
        if self.cursor:
            refreshed = sql.SQL(
                "exists (select from ops.loads where source = {} and stream = {} and full_refresh"
                " and status = 'loaded' and raw_loaded_at > {} and raw_loaded_at < {})"
            ).format(
                sql.Literal(self._context.source), sql.Literal(self._stream.name), sql.Literal(replay.as_of), self._when
            )  # fmt: skip
            test = sql.SQL(
                "(coalesce(excluded.{c} > t.{c}, false) and not {refreshed}"
                " or ({refreshed} or coalesce(excluded.{c} = t.{c}, t.{c} is null)) and {test})"
            ).format(c=sql.Identifier(self.cursor), test=test, refreshed=refreshed)
        return sql.SQL("{} and coalesce(t.{} <= {}, true)").format(
            test, sql.Identifier(DELETED_AT), sql.Literal(replay.as_of)
        )

    @staticmethod
    def _loads_of(replay: Replay) -> sql.Composed:
        """The load that is replayed, and its replays."""
        return sql.SQL("select load_id from ops.loads where load_id = {0} or replay_of = {0}").format(
            sql.Literal(replay.of)
        )

    @property
    def _is_partial(self) -> bool:
        """Whether these are but some rows of a load: what is not among them is not gone."""
        return self._context.replay is not None and self._context.replay.rows is not None

    def _delete_replayed(self) -> int:
        """Without a key, events that come again are told by their load alone: those of it give way to the replay."""
        replay = self._context.replay
        if replay is None or replay.rows is not None:
            return 0
        return self._execute(
            sql.SQL("delete from {} where {} in ({})").format(
                self._raw, sql.Identifier(LOAD_ID), self._loads_of(replay)
            )
        ).rowcount  # fmt: skip

    def _mark(self, rows: tuple[int, ...], why: str) -> None:
        if rows:
            self._execute(
                sql.SQL("update {} set {rejected} = %s where {} = any(%s::bigint[])").format(
                    self._attempt.name, sql.Identifier(ROW), rejected=sql.Identifier(REJECTED)
                ),
                [why, list(rows)],
            )

    def _narrow(self) -> None:
        """In a replay of some rows, keep those, and beside them, marked, the other versions of them in the load."""
        if self._context.replay is None or self._context.replay.rows is None:
            return
        rows = list(self._context.replay.rows)
        has = self._table.columns
        kept: sql.Composable = sql.SQL("false")
        if self._key and set(self._key) <= has.keys() & set(self._attempt.columns):
            kept = sql.SQL("exists (select from {} s where s.{} = any({rows}) and {same})").format(
                self._attempt.name,
                sql.Identifier(ROW),
                rows=sql.SQL("%(rows)s::bigint[]"),
                same=self._same_key(has),
            )
        table, row = self._attempt.name, sql.Identifier(ROW)
        for statement in (
            sql.SQL("delete from {} b where not b.{} = any(%(rows)s::bigint[]) and not {}").format(table, row, kept),
            sql.SQL("update {} set {} = {} where not {} = any(%(rows)s::bigint[])").format(
                table, sql.Identifier(REJECTED), sql.Literal(BESIDE), row
            ),
        ):
            self._connection.execute(statement, {"rows": rows})
        count = sql.SQL("select count(*) from {} where {} is distinct from {}")
        self._attempt.rows = _one(
            self._execute(count.format(table, sql.Identifier(REJECTED), sql.Literal(BESIDE)))
        )  # fmt: skip

    def _drop_superseded(self, types: Mapping[str, str]) -> int:
        """In a replay of some rows, drop those that the load itself had a later version of, which was loaded then."""
        if not (self._is_partial and self._key):
            return 0
        later = sql.SQL("b.{row} > s.{row}").format(row=sql.Identifier(ROW))
        if self.cursor:
            mine, other = self._guarded("s", self.cursor, types), self._guarded("b", self.cursor, types)
            later = sql.SQL(
                "({b} > {s} or {s} is null and {b} is not null or {b} is not distinct from {s} and {})"
            ).format(later, b=other, s=mine)
        return self._execute(
            sql.SQL("delete from {table} s where s.{rejected} is null and exists"
                " (select from {table} b where b.{rejected} = {beside} and {same} and {later})"
            ).format(
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
                beside=sql.Literal(BESIDE),
                same=self._same_key(types),
                later=later,
            )
        ).rowcount  # fmt: skip

    def _same_key(self, types: Mapping[str, str]) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(self._guarded("s", name, types), self._guarded("b", name, types))
            for name in self._key
        )

    def _guarded(self, alias: str, name: str, types: Mapping[str, str]) -> sql.Composed:
        """A value as raw's type, before it was judged; null if it is none."""
        return sql.SQL("(case when pg_input_is_valid({0}::text, {1}) then {0}::text::{2} end)").format(
            sql.Identifier(alias, name), sql.Literal(types[name]), type_name(types[name])
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
                raw=self._raw, table=self._attempt.name, same=same, rejected=sql.Identifier(REJECTED)
            )
        ).rowcount  # fmt: skip

    def _refuse_emptiness(self) -> None:
        """A full read without a single row is taken for a mishap, not for news.

        Raises:
            ContractViolationError: it had none, and raw has some.
        """
        if self._attempt.rows == 0 and _one(self._execute(sql.SQL("select count(*) from {}").format(self._raw))):
            raise self._context.violation(
                "The source has no rows any more, and raw has.",
                "If that is right, empty the raw table by hand; nothing was committed.",
            )

    def _typed(self, columns: Iterable[str], types: Mapping[str, str]) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(name), type_name(types[name])) for name in columns
        )


_WITHOUT_EQUALITY = ("json", "xml", "point", "polygon", "path", "box", "circle", "line", "lseg")


def _comparable(column: sql.Composable, kind: str) -> sql.Composable:
    """A column in a form that can be compared: json, xml and the geometric types have no `=` of the whole value."""
    return sql.SQL("{}::text").format(column) if kind.removesuffix("[]") in _WITHOUT_EQUALITY else column


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _one(cursor: psycopg.Cursor) -> int:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - every query that comes here has one row
    return int(row[0])
