"""The commit: what a load means for raw, in one transaction.

Fence, contract, quarantine, rows, watermark, file versions and the ledger's row become visible together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.cursors import may_be_watermark
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import BESIDE, PAYLOAD, REJECTED, ROW
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forgotten import SecretOf, forgotten_keys, key_kinds, no_secret
from connectors.destinations.warehouse.ledger import Lease, LoadReport, take_turn
from connectors.destinations.warehouse.merge import Merge
from connectors.destinations.warehouse.raw_table import LoadContext, Replay, type_name
from connectors.destinations.warehouse.watermark import (
    Watermark,
    advance,
    highest_of,
    read_watermark,
    write_watermark,
)
from connectors.destinations.warehouse.windows import WindowBook, counted
from connectors.failpoints import reach
from connectors.model import FileVersion, SourcePosition
from connectors.stopping import check_stop


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What is to be committed."""

    context: LoadContext
    position: SourcePosition | None = None
    """How far the read got, where the source can tell."""
    files: tuple[FileVersion, ...] = ()
    secret: SecretOf = no_secret
    """What forgotten keys are hashed with beside their salt."""
    landed_at: datetime | None = None
    """Of a load that landed for an earlier warehouse, when it did: it counts as loaded then."""


def commit(connection: psycopg.Connection, lease: Lease, attempt: AttemptTable, request: CommitRequest) -> LoadReport:
    """Make an attempt's rows count.

    A load that is committed already is left alone, and its report returned.

    Raises:
        FencedError: a successor has taken the stream over; nothing was written.
        ContractViolationError: columns or rows break the contract beyond what it tolerates; nothing was written.
        DestinationUnavailableError: by `translated_errors` around the call.
    """
    with connection.transaction():
        lease.check(connection)
        reach("commit-begun")
        check_stop()
        when = take_turn(connection, request.context.source, request.context.stream.name, request.landed_at)
        report = report_of(connection, request) or _Commit(connection, attempt, request, when).run()
    reach("committed")
    return report


def settle(warehouse: URL, request: CommitRequest) -> LoadReport | None:
    """How a commit ended whose connection broke: the load's report if it is committed, None if it is not.

    Raises:
        DestinationUnavailableError: the warehouse does not answer, so it stays unknown; the next run finds out.
    """
    context = request.context
    with connect(warehouse, f"settle {context.source}.{context.stream.name}") as connection:
        # The commit keeps others out: they get their turn when it has ended, one way or the other.
        take_turn(connection, context.source, context.stream.name)
        return report_of(connection, request)


def report_of(connection: psycopg.Connection, request: CommitRequest) -> LoadReport | None:
    """What a load did, if it is committed already."""
    row = connection.execute(
        "select rows_extracted, rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined,"
        " rows_deleted, cursor_to, rows_forgotten from ops.loads where load_id = %s and status = 'loaded'",
        [request.context.load_id],
    ).fetchone()
    if row is None:
        return None
    context = request.context
    return LoadReport(context.source, context.stream.name, context.load_id, context.window, *row)


class _Commit:
    """The steps of one commit, inside its transaction."""

    def __init__(
        self, connection: psycopg.Connection, attempt: AttemptTable, request: CommitRequest, when: datetime
    ) -> None:
        self._when = when
        self._connection = connection
        self._attempt = attempt
        self._request = request
        self._context = request.context
        self._stream = request.context.stream

    def run(self) -> LoadReport:
        leave_out_forgotten(self._connection, self._attempt, self._request)
        merge = Merge(self._connection, self._attempt, self._context, loaded_at=self._when)
        merge.judge()
        reach("rows-judged")
        quarantined = 0 if merge.is_raw else self._quarantine()
        reach("rows-quarantined")
        watermark = self._next_watermark(merge)
        counts = merge.write()
        self._note_windows(merge)
        reach("rows-written")
        self._move_watermark(merge, watermark)
        self._remember_files()
        reach("watermark-moved")
        report = LoadReport(
            source=self._context.source,
            stream=self._stream.name,
            load_id=self._context.load_id,
            window=self._context.window,
            extracted=self._attempt.rows + self._attempt.forgotten,
            quarantined=quarantined,
            forgotten=self._attempt.forgotten,
            watermark=watermark.value,
            **counts,
        )
        record(self._connection, report, self._when)
        reach("load-recorded")
        self._connection.execute(sql.SQL("drop table if exists {}").format(self._attempt.name))
        return report

    def _execute(self, statement: sql.Composable, parameters: Iterable[object] | None = None) -> psycopg.Cursor:
        return self._connection.execute(
            statement if isinstance(statement, sql.Composed) else sql.Composed([statement]),
            list(parameters) if parameters is not None else None,
        )

    def _quarantine(self) -> int:
        quarantined = self._execute(
            sql.SQL(
                "insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload)"
                " select %s, %s, %s, {row}, {rejected}, {payload} from {table} where {rejected} <> {beside}"
            ).format(
                beside=sql.Literal(BESIDE),
                table=self._attempt.name,
                row=sql.Identifier(ROW),
                rejected=sql.Identifier(REJECTED),
                payload=sql.Identifier(PAYLOAD),
            ),
            [self._context.source, self._stream.name, self._context.load_id],
        ).rowcount
        replay = self._context.replay
        if replay is not None:
            self._release(replay)
        if replay is not None and replay.rows is not None:
            return quarantined  # they were there before
        if quarantined - self._attempt.bad_files > self._stream.reject_limit * self._attempt.rows:
            row = self._execute(
                sql.SQL("select {rejected} from {table} where {rejected} is not null order by {row} limit 1").format(
                    table=self._attempt.name, rejected=sql.Identifier(REJECTED), row=sql.Identifier(ROW)
                )
            ).fetchone()
            raise self._context.violation(
                f"{quarantined:,} of {self._attempt.rows:,} rows break the contract, more than the "
                f"{self._stream.reject_limit:.1%} allowed; the first: {row[0] if row else ''}.",
                "Nothing was committed. Correct the source or the stream's columns, or raise its reject_limit.",
            )
        return quarantined

    def _release(self, replay: Replay) -> None:
        """Take the rows that are replayed out of the quarantine of their load and of its earlier replays."""
        self._connection.execute(
            "update ops.quarantine set replayed_by = %(this)s where replayed_by is null and load_id <> %(this)s"
            " and source = %(source)s and stream = %(stream)s"
            " and load_id in (select load_id from ops.loads where load_id = %(of)s or replay_of = %(of)s)"
            " and (%(rows)s::bigint[] is null or row_in_load = any(%(rows)s::bigint[]))",
            {
                "this": self._context.load_id,
                "source": self._context.source,
                "stream": self._stream.name,
                "of": replay.of,
                "rows": None if replay.rows is None else list(replay.rows),
            },
        )

    def _note_windows(self, merge: Merge) -> None:
        book = WindowBook(self._connection, self._context.source, self._stream, self._context.load_id, self._when)
        column, window = merge.window_column, self._context.window
        changes = merge.window_changes
        if column is not None and changes:
            book.note_changes(changes)
        if self._context.replay is not None:
            if column is not None:
                book.recount(counted(self._connection, merge.raw, column), [change.start for change in changes])
        elif window is not None:
            rows = {} if column is None else counted(self._connection, merge.raw, column, window)
            book.note_read(window, rows)

    def _next_watermark(self, merge: Merge) -> Watermark:
        """The committed position as far as the load makes it sure. A window has none, nor has a replay."""
        if not self._may_move(merge):
            return Watermark()
        before = read_watermark(self._connection, self._context.source, self._stream.name)
        if merge.cursor not in merge.types:
            return before
        kind = merge.types[merge.cursor]
        base = Watermark() if self._context.full_refresh else before
        if (position := self._request.position) is not None:
            sure, pending = advance(base.pending, position)
            state = position.state
        else:
            sure, pending, state = self._highest(merge, merge.cursor, kind), (), {}
        return Watermark(highest_of(self._connection, type_name(kind), [base.value, *sure]), pending, state)

    def _may_move(self, merge: Merge) -> bool:
        """Whether it is a load that the watermark follows."""
        return merge.cursor is not None and self._context.window is None and self._context.replay is None

    def _move_watermark(self, merge: Merge, after: Watermark) -> None:
        if not self._may_move(merge):
            return
        assert merge.cursor is not None  # noqa: S101 - just asked
        source, stream = self._context.source, self._stream.name
        before = read_watermark(self._connection, source, stream)
        if (after.value, after.pending) != (before.value, before.pending) or (
            after.source_state and not before.source_state
        ):
            write_watermark(self._connection, source, stream, merge.cursor, self._context.load_id, after)

    def _highest(self, merge: Merge, cursor: str, kind: str) -> list[str]:
        """The highest cursor value among the accepted rows, if any may become a watermark. The source's clock is not
        known here; a day is more than it will differ by."""
        table, value = merge.raw, sql.Composed([sql.Identifier(cursor)])
        if not merge.is_raw:
            # A case, not a condition: PostgreSQL may try conditions in any order, and a rejected value may be of no
            # type.
            table = self._attempt.name
            value = sql.SQL("(case when {} is null then {}::{} end)").format(
                sql.Identifier(REJECTED), sql.Identifier(cursor), type_name(kind)
            )
        row = self._execute(
            # In two steps: a name in `order by` is first of all one of what is selected, which is the text.
            sql.SQL("select f.v::text from (select {0} as v from {1} where {2}) f order by f.v desc limit 1").format(
                value, table, may_be_watermark(value, kind, timedelta(days=1))
            )
        ).fetchone()
        return [row[0]] if row else []

    def _remember_files(self) -> None:
        if not self._request.files:
            return
        with self._connection.cursor() as cursor:
            cursor.executemany(
                """
                insert into ops.files (source, stream, path, version, bytes, load_id)
                values (%s, %s, %s, %s, %s, %s)
                on conflict (source, stream, path) do update
                set version = excluded.version, bytes = excluded.bytes, load_id = excluded.load_id
                """,
                [
                    [
                        self._context.source,
                        self._stream.name,
                        file.path,
                        file.version,
                        file.size,
                        self._context.load_id,
                    ]
                    for file in self._request.files
                ],
            )


def leave_out_forgotten(connection: psycopg.Connection, attempt: AttemptTable, request: CommitRequest) -> None:
    """Inside the transaction: drop what has a forgotten key. What landed with one was erased before; these are rows
    whose key was forgotten since, and whoever forgot it erases them from the landing."""
    source, stream = request.context.source, request.context.stream
    keys = forgotten_keys(connection, source, stream.name, request.secret)
    if keys is not None:
        condition = keys.condition(attempt.columns, key_kinds(connection, source, stream))
        if condition is not None:
            attempt.leave_out(condition)


def record(connection: psycopg.Connection, report: LoadReport, when: datetime) -> None:
    """Inside the transaction: that the load is loaded, with what became of its rows."""
    connection.execute(
        """
        update ops.loads
        set status = 'loaded', loaded_at = clock_timestamp(), raw_loaded_at = %s,
            cursor_to = %s, error = null, rows_extracted = %s,
            rows_inserted = %s, rows_updated = %s, rows_unchanged = %s, rows_duplicate = %s,
            rows_quarantined = %s, rows_deleted = %s, rows_forgotten = %s
        where load_id = %s
        """,
        [
            when,
            report.watermark,
            report.extracted,
            report.inserted,
            report.updated,
            report.unchanged,
            report.duplicate,
            report.quarantined,
            report.deleted,
            report.forgotten,
            report.load_id,
        ],
    )
