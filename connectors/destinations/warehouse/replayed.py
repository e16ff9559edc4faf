"""Rows of an earlier load on their way into raw once more: which they are, and to what in raw they give way."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import BESIDE, DELETED_AT, LOAD_ID, REJECTED, ROW
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, Replay, type_name
from connectors.model import WriteDisposition


class ReplayedRows:
    """The rows of a replay, in an attempt's table that was filled with the whole load.

    Args:
        cursor: the column of the stream's cursor, if it has one.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        context: LoadContext,
        replay: Replay,
        table: RawTable,
        cursor: str | None,
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._context = context
        self._replay = replay
        self._table = table
        self._cursor = cursor
        self.is_partial = replay.rows is not None
        """Whether these are but some rows of a load: what is not among them is not gone."""

    def narrow(self) -> None:
        """Keep the rows that are replayed, and beside them, marked, the other versions of them in the load."""
        if self._replay.rows is None:
            return
        rows = list(self._replay.rows)
        has = self._table.columns
        table, row = self._attempt.name, sql.Identifier(ROW)
        among = sql.SQL("{} = any(%(rows)s::bigint[])")
        kept: sql.Composable = sql.SQL("false")
        if self._table.key and set(self._table.key) <= has.keys() & set(self._attempt.columns):
            kept = sql.SQL("exists (select from {} s where {} and {})").format(
                table, among.format(sql.Identifier("s", ROW)), self._same_key(has)
            )
        for statement in (
            sql.SQL("delete from {} b where not {} and not {}").format(
                table, among.format(sql.Identifier("b", ROW)), kept
            ),
            sql.SQL("update {} set {} = {} where not {}").format(
                table, sql.Identifier(REJECTED), sql.Literal(BESIDE), among.format(row)
            ),
        ):
            self._connection.execute(statement, {"rows": rows})
        count = self._connection.execute(
            sql.SQL("select count(*) from {} where {} is distinct from {}").format(
                table, sql.Identifier(REJECTED), sql.Literal(BESIDE)
            )
        ).fetchone()
        self._attempt.rows = count[0] if count else 0
        self._attempt.forgotten = 0  # those of the whole load; what is replayed is none of them

    def drop_superseded(self, types: Mapping[str, str]) -> int:
        """Drop the rows that the load itself had a later version of, which was loaded then; how many they were.

        Args:
            types: raw's types.
        """
        if not (self.is_partial and self._table.key):
            return 0
        later = sql.SQL("b.{row} > s.{row}").format(row=sql.Identifier(ROW))
        if self._cursor:
            mine, other = _guarded("s", self._cursor, types), _guarded("b", self._cursor, types)
            later = sql.SQL(
                "({b} > {s} or {s} is null and {b} is not null or {b} is not distinct from {s} and {})"
            ).format(later, b=other, s=mine)
        return self._connection.execute(
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

    def delete_from_raw(self) -> int:
        """Events without a key are told by their load alone: those of a load that comes again as a whole are deleted.

        Returns:
            How many they were.
        """
        if self.is_partial:
            return 0
        return self._connection.execute(
            sql.SQL("delete from {} where {} in ({})").format(
                self._table.name, sql.Identifier(LOAD_ID), self._same_loads()
            )
        ).rowcount

    def may_replace(self, until: sql.Composable) -> sql.Composed:
        """The condition that raw's row `t` gives way to a replayed one, `excluded`.

        By the cursor, where there is one. Where it cannot tell (versions that share it, or a full refresh since, which
        may have gone back in it), raw's row has to be of a load that is not later; a replay counts as the load that it
        repeats. A row that was deleted since stays deleted. In an `append` stream only rows of the load itself change.

        Args:
            until: when the replay is, in a rebuild too.
        """
        if self._context.stream.write is WriteDisposition.APPEND:
            return sql.SQL("t.{} in ({})").format(sql.Identifier(LOAD_ID), self._same_loads())
        stream = sql.SQL("l.source = {} and l.stream = {}").format(
            sql.Literal(self._context.source), sql.Literal(self._context.stream.name)
        )
        as_of = sql.Literal(self._replay.as_of)
        not_later = sql.SQL(
            "t.{} not in (select l.load_id from ops.loads l left join ops.loads o on o.load_id = l.replay_of"
            " where {} and coalesce(o.raw_loaded_at, l.raw_loaded_at) > {})"
        ).format(sql.Identifier(LOAD_ID), stream, as_of)
        if self._cursor:
            refreshed = sql.SQL(
                "exists (select from ops.loads l where {} and l.full_refresh and l.status = 'loaded'"
                " and l.raw_loaded_at > {} and l.raw_loaded_at < {})"
            ).format(stream, as_of, until)
            not_later = sql.SQL(
                "(coalesce(excluded.{c} > t.{c}, false) and not {refreshed}"
                " or ({refreshed} or coalesce(excluded.{c} = t.{c}, t.{c} is null)) and {not_later})"
            ).format(c=sql.Identifier(self._cursor), refreshed=refreshed, not_later=not_later)
        return sql.SQL("{} and coalesce(t.{} <= {}, true)").format(not_later, sql.Identifier(DELETED_AT), as_of)

    def _same_loads(self) -> sql.Composed:
        """The load that is replayed, and its replays."""
        return sql.SQL("select load_id from ops.loads where load_id = {0} or replay_of = {0}").format(
            sql.Literal(self._replay.of)
        )

    def _same_key(self, types: Mapping[str, str]) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(_guarded("s", name, types), _guarded("b", name, types))
            for name in self._table.key
        )


def _guarded(alias: str, name: str, types: Mapping[str, str]) -> sql.Composed:
    """A value as raw's type, before it was judged; null if it is none."""
    return sql.SQL("(case when pg_input_is_valid({0}::text, {1}) then {0}::text::{2} end)").format(
        sql.Identifier(alias, name), sql.Literal(types[name]), type_name(types[name])
    )
