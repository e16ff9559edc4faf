"""Comparing raw with the keys that its source has: rows whose key is gone are marked, rows whose key is back are not.

A marked row stays as it is, with `_deleted_at`; models leave it out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import (
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    needs_check,
    widens,
)
from connectors.destinations.warehouse.commit import CommitRequest, leave_out_forgotten, record, report_of
from connectors.destinations.warehouse.ledger import Lease, LoadReport, take_turn
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, type_name
from connectors.destinations.warehouse.windows import WindowBook, WindowChange, WindowColumn
from connectors.errors import ContractViolationError
from connectors.failpoints import reach


def commit_keys(
    connection: psycopg.Connection,
    lease: Lease,
    attempt: AttemptTable,
    request: CommitRequest,
    check: Callable[[KeyComparison], None],
    began_at: datetime,
) -> LoadReport:
    """Make a read of all keys count, in one transaction.

    Args:
        began_at: when the read of the keys began; what raw has got since then is not judged by them.
        check: what has to hold before anything is marked; it raises if it does not.

    Raises:
        FencedError: a successor has taken the stream over; nothing was marked.
        ContractViolationError: `check` says so, or the keys cannot be compared with raw's; nothing was marked.
        DestinationUnavailableError: by `translated_errors` around the call.
    """
    with connection.transaction():
        lease.check(connection)
        reach("commit-begun")
        when = take_turn(connection, request.context.source, request.context.stream.name, request.landed_at)
        report = report_of(connection, request)
        if report is None:
            leave_out_forgotten(connection, attempt, request)
            comparison = KeyComparison(connection, attempt, request.context, began_at=began_at, marked_at=when)
            check(comparison)
            reach("rows-judged")
            counts = comparison.mark()
            reach("rows-written")
            context = request.context
            report = LoadReport(
                source=context.source,
                stream=context.stream.name,
                load_id=context.load_id,
                window=None,
                extracted=attempt.rows + attempt.forgotten,
                quarantined=0,
                forgotten=attempt.forgotten,
                watermark=None,
                **counts,
            )
            comparison.note_windows(when)
            record(connection, report, when)
            reach("load-recorded")
            connection.execute(sql.SQL("drop table {}").format(attempt.name))
    reach("committed")
    return report


class KeyComparison:
    """All keys of a stream's source, in an attempt's table, against its raw table. Use it inside a transaction.

    Keys are compared in raw's types, or in the source's where those are wider: a key column that grew at the source is
    followed by the next load of rows, not here. A value that is none of the type, or null, is no key that raw can have.

    Args:
        began_at: when the read of the keys began; rows that were loaded later are not looked for among them.
        marked_at: what marked rows say of when that was.

    Raises:
        ContractViolationError: the source's keys are of another kind than raw's.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        context: LoadContext,
        *,
        began_at: datetime,
        marked_at: datetime,
    ) -> None:
        self._began_at = began_at
        self._connection = connection
        self._attempt = attempt
        self._context = context
        self._table = RawTable(connection, context)
        self._when = sql.Literal(marked_at)
        # A read without a row may also be one without columns.
        self._keys = [self._pair(name) for name in self._table.key] if attempt.rows else []
        self.read = attempt.rows
        """How many keys came."""
        self.usable, self._distinct = self._count_keys()
        """`usable`: how many of them can be keys of raw."""

    def violation(self, what: str, remedy: str) -> ContractViolationError:
        return self._context.violation(what, remedy)

    def count_live(self) -> int:
        """The rows of raw that are not marked."""
        return self._count("select count(*) from {raw} t where t.{deleted_at} is null")

    def count_gone(self) -> int:
        """Those of them whose key the source no longer has."""
        return self._count("select count(*) from {raw} t where {gone}")

    def mark(self) -> dict[str, int]:
        """Mark what is gone, and take the mark from what is back; what happened, in rows, by the names of `LoadReport`.

        A row that is back is `updated`; every other key is `unchanged`, also one that raw does not have yet.
        """
        load = [self._context.load_id]
        returned = self._execute(
            "update {raw} t set {deleted_at} = null, {load_id} = %s, {loaded_at} = {when}"
            " where t.{deleted_at} is not null and {present}",
            load,
        ).rowcount
        deleted = self._execute(
            "update {raw} t set {deleted_at} = {when}, {load_id} = %s, {loaded_at} = {when} where {gone}",
            load,
        ).rowcount
        duplicate = self.usable - self._distinct
        unchanged = self.read - returned - duplicate
        return {
            "inserted": 0,
            "updated": returned,
            "unchanged": unchanged,
            "duplicate": duplicate,
            "deleted": deleted,
        }

    def note_windows(self, when: datetime) -> None:
        """Note which windows the marked rows are of: what was built with them is stale."""
        column = WindowColumn.of(self._context.stream, self._table.columns)
        if column is None:
            return
        found = self._connection.execute(
            sql.SQL("select {start}, count(*) from {raw} where {load_id} = %s group by 1").format(
                start=column.start(), raw=self._table.name, load_id=sql.Identifier(LOAD_ID)
            ),
            [self._context.load_id],
        )
        changes = [WindowChange(start, 0, count) for start, count in found if start is not None]
        context = self._context
        WindowBook(self._connection, context.source, context.stream, context.load_id, when).note_changes(changes)

    def _count(self, statement: str) -> int:
        row = self._execute(statement).fetchone()
        assert row is not None  # noqa: S101 - a count has one row
        return int(row[0])

    def _execute(self, statement: str, parameters: list[UUID] | None = None) -> psycopg.Cursor:
        """Run one of the statements above: {raw} as t, {present} for "the source has t's key", {gone} for "it no longer
        has it"."""
        matches = sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(incoming, existing) for incoming, existing in self._keys
        )
        present = (
            sql.SQL("exists (select from {} a where {})").format(self._attempt.name, matches)
            if self._keys
            else sql.SQL("false")
        )
        gone = sql.SQL("t.{} is null and t.{} <= {} and not {}").format(
            sql.Identifier(DELETED_AT), sql.Identifier(LOADED_AT), sql.Literal(self._began_at), present
        )
        return self._connection.execute(
            sql.SQL(statement).format(
                raw=self._table.name,
                present=present,
                gone=gone,
                when=self._when,
                deleted_at=sql.Identifier(DELETED_AT),
                load_id=sql.Identifier(LOAD_ID),
                loaded_at=sql.Identifier(LOADED_AT),
            ),
            parameters,
        )

    def _count_keys(self) -> tuple[int, int]:
        if not self._keys:
            return 0, 0
        values = [incoming for incoming, _ in self._keys]
        row = self._connection.execute(
            sql.SQL(
                "select coalesce(sum(n), 0)::bigint, count(*)"
                " from (select count(*) as n from {} a where {} group by {}) k"
            ).format(
                self._attempt.name,
                sql.SQL(" and ").join(sql.SQL("{} is not null").format(value) for value in values),
                sql.SQL(", ").join(values),
            )
        ).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has one row
        return row[0], row[1]

    def _pair(self, name: str) -> tuple[sql.Composed, sql.Composed]:
        """A key column of the read and of raw, as values of one type."""
        raw = self._table.columns.get(name)
        if raw is None or name not in self._attempt.columns:
            raise self._context.violation(
                f"The key column `{name}` is missing in {'raw' if raw is None else 'what the source sent'}.",
                "Correct the stream's primary_key, or ask the source's owner what became of the field.",
            )
        kind = self._common_type(name, raw)
        existing = sql.SQL("t.{}" if kind == raw else "t.{}::{}").format(sql.Identifier(name), type_name(kind))
        incoming = sql.SQL("a.{}::{}").format(sql.Identifier(name), type_name(kind))
        if self._attempt.types is None and needs_check((self._attempt.kinds or {}).get(name), kind):
            incoming = sql.SQL("case when pg_input_is_valid(a.{}, {}) then {} end").format(
                sql.Identifier(name), sql.Literal(kind), incoming
            )
        return incoming, existing

    def _common_type(self, name: str, raw: str) -> str:
        """The wider of raw's type and of the one that a load of rows would ask for."""
        asked = self._table.declared_types().get(name) or self._attempt.asked[name]
        if asked is None or asked == raw or raw == "text":
            return raw
        if widens(raw, asked):
            return asked
        if name in self._attempt.source_types and not widens(asked, raw):
            raise self._context.violation(
                f"The source's key `{name}` is {asked}, raw's is {raw}: they cannot be compared.",
                "Load the stream first; if that fails too, it says what to do.",
            )
        return raw
