"""The commit: what a load means for raw, in one transaction.

Fence, contract, quarantine, rows, watermark, file versions and the ledger's row become visible together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import (
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    PAYLOAD,
    REJECTED,
    ROW,
    column_name,
    inferred_type,
    needs_check,
)
from connectors.destinations.warehouse.ledger import Lease, LoadReport
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, type_name
from connectors.model import FileVersion, WriteDisposition

_NOTHING = {"inserted": 0, "updated": 0, "unchanged": 0, "duplicate": 0, "deleted": 0}


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What is to be committed, and from where it started."""

    context: LoadContext
    watermark: str | None
    """The watermark when the extraction began."""
    files: tuple[FileVersion, ...] = ()


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
        if (report := _report_of(connection, request)) is not None:
            return report
        return _Commit(connection, attempt, request).run()


def _report_of(connection: psycopg.Connection, request: CommitRequest) -> LoadReport | None:
    row = connection.execute(
        "select rows_extracted, rows_inserted, rows_updated, rows_unchanged, rows_duplicate, rows_quarantined,"
        " rows_deleted, cursor_to from ops.loads where load_id = %s and status = 'loaded'",
        [request.context.load_id],
    ).fetchone()
    if row is None:
        return None
    context = request.context
    return LoadReport(context.source, context.stream.name, context.load_id, context.window, *row)


class _Commit:
    """The steps of one commit, inside its transaction."""

    def __init__(self, connection: psycopg.Connection, attempt: AttemptTable, request: CommitRequest) -> None:
        self._connection = connection
        self._attempt = attempt
        self._request = request
        self._context = request.context
        self._stream = request.context.stream
        self._table = RawTable(connection, request.context)
        self._raw = self._table.name
        self._key = self._table.key
        self._cursor = column_name(self._stream.cursor.field) if self._stream.cursor else None

    def run(self) -> LoadReport:
        incoming = self._incoming_types()
        quarantined, counts, watermark = 0, _NOTHING, self._request.watermark
        if self._has_columns_it_relies_on(incoming):
            types = self._table.follow(incoming, is_typed=self._attempt.types is not None)
            columns = [name for name in incoming if name in self._attempt.columns]
            self._reject(columns, types)
            quarantined = self._quarantine()
            counts = self._write(columns, types)
            watermark = self._move_watermark(types)
        self._remember_files()
        report = LoadReport(
            source=self._context.source,
            stream=self._stream.name,
            load_id=self._context.load_id,
            window=self._context.window,
            extracted=self._attempt.rows,
            quarantined=quarantined,
            watermark=watermark,
            **counts,
        )
        self._record(report)
        self._connection.execute(sql.SQL("drop table {}").format(self._attempt.name))
        return report

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
            return {**typed, **{name: kind for name, kind in declared.items() if name in typed}}
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

    def _has_columns_it_relies_on(self, incoming: Mapping[str, str]) -> bool:
        """Whether the load brought the key and the cursor; a load of no rows need not have.

        Raises:
            ContractViolationError: there are rows, and they lack one.
        """
        needed = {*self._key, *([self._cursor] if self._cursor else [])}
        missing = sorted(needed - incoming.keys() | needed - set(self._attempt.columns))
        if missing and self._attempt.rows:
            raise self._context.violation(
                f"No row has a value in {', '.join(missing)}.",
                "Correct the stream's primary_key or cursor, or ask the source's owner what became of the field.",
            )
        return not missing

    def _reject(self, columns: list[str], types: Mapping[str, str]) -> None:
        """Mark the rows that raw cannot hold: a value that its column's type refuses, a key that is missing.

        Only those rows are written; a load without any costs one scan.
        """
        reasons: list[sql.Composable] = []
        if self._attempt.types is None:
            for name in columns:
                kinds = self._attempt.kinds
                if needs_check(kinds[name] if kinds is not None else None, types[name]):
                    reasons.append(_unfit(name, types[name]))
        reasons += [
            sql.SQL("when {} is null then {}").format(
                sql.Identifier(name), sql.Literal(f"column {name}: the key is null")
            )
            for name in self._key
        ]
        if not reasons:
            return
        case = sql.SQL("case {} end").format(sql.SQL(" ").join(reasons))
        data = sql.SQL(", ").join(
            sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(name)) for name in self._attempt.columns
        )
        self._execute(
            sql.SQL("update {table} set {rejected} = {case}, {payload} = json_build_object({data})::text"
                    " where {rejected} is null and {case} is not null").format(
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
                payload=sql.Identifier(PAYLOAD),
                case=case,
                data=data,
            )
        )  # fmt: skip

    def _quarantine(self) -> int:
        quarantined = self._execute(
            sql.SQL(
                "insert into ops.quarantine (source, stream, load_id, row_in_load, reason, payload)"
                " select %s, %s, %s, {row}, {rejected}, {payload} from {table} where {rejected} is not null"
            ).format(
                table=self._attempt.name,
                row=sql.Identifier(ROW),
                rejected=sql.Identifier(REJECTED),
                payload=sql.Identifier(PAYLOAD),
            ),
            [self._context.source, self._stream.name, self._context.load_id],
        ).rowcount
        if quarantined > self._stream.reject_limit * self._attempt.rows:
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

    def _write(self, columns: list[str], types: Mapping[str, str]) -> dict[str, int]:
        """Bring the accepted rows into raw by the stream's write disposition; what happened to them, in rows."""
        accepted = _one(
            self._execute(
                sql.SQL("select count(*) from {} where {} is null").format(self._attempt.name, sql.Identifier(REJECTED))
            )
        )
        counts = {**_NOTHING, "inserted": accepted}
        if self._stream.write is WriteDisposition.REPLACE and not self._key:
            counts["deleted"] = self._execute(sql.SQL("delete from {}").format(self._raw)).rowcount
        if not self._key or self._stream.write is WriteDisposition.APPEND:
            self._execute(self._insert(columns, types, sql.SQL("")), [self._context.load_id])
            return counts
        if self._stream.write is WriteDisposition.REPLACE:
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
        counts["duplicate"] = accepted - distinct
        return counts

    def _insert(self, columns: list[str], types: Mapping[str, str], ending: sql.Composable) -> sql.Composed:
        """Insert the accepted rows, of those with one key the latest."""
        latest: sql.Composable = sql.SQL("")
        order: sql.Composable = sql.SQL("")
        if self._key and self._stream.write is not WriteDisposition.APPEND:
            key = self._typed(self._key, types)
            latest = sql.SQL("distinct on ({}) ").format(key)
            newest = (
                sql.SQL(", {} desc nulls last").format(self._typed([self._cursor], types))
                if self._cursor
                else sql.SQL("")
            )
            order = sql.SQL(" order by {}{}, {} desc").format(key, newest, sql.Identifier(ROW))
        return sql.SQL(
            "insert into {raw} as t ({columns}, {load_id}, {loaded_at})"
            " select {latest}{values}, %s, now() from {table} where {rejected} is null{order} {ending}"
        ).format(
            raw=self._raw,
            columns=_names(columns),
            load_id=sql.Identifier(LOAD_ID),
            loaded_at=sql.Identifier(LOADED_AT),
            latest=latest,
            values=self._typed(columns, types),
            table=self._attempt.name,
            rejected=sql.Identifier(REJECTED),
            order=order,
            ending=ending,
        )

    def _on_conflict(self, types: Mapping[str, str]) -> sql.Composable:
        """A row that is there already is replaced as a whole, if it differs and is not newer than what came."""
        changing = [name for name in types if name not in self._key]
        alive = sql.SQL("t.{} is not null").format(sql.Identifier(DELETED_AT))
        differs = sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(_comparable(sql.Identifier("t", name), types[name]) for name in changing),
            sql.SQL(", ").join(_comparable(sql.Identifier("excluded", name), types[name]) for name in changing),
        )
        condition = sql.SQL("({} or {})").format(differs, alive) if changing else alive
        if self._cursor:
            condition = sql.SQL("{} and coalesce(excluded.{c} >= t.{c}, t.{c} is null)").format(
                condition, c=sql.Identifier(self._cursor)
            )
        assignments = [
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in (*changing, LOAD_ID, LOADED_AT)
        ]
        assignments.append(sql.SQL("{} = null").format(sql.Identifier(DELETED_AT)))
        return sql.SQL("on conflict ({}) do update set {} where {}").format(
            _names(self._key), sql.SQL(", ").join(assignments), condition
        )

    def _delete_absent(self, types: Mapping[str, str]) -> int:
        """Delete what a full read no longer has. A read without a single row is taken for a mishap, not for news."""
        if self._attempt.rows == 0 and _one(self._execute(sql.SQL("select count(*) from {}").format(self._raw))):
            raise self._context.violation(
                "The source has no rows any more, and raw has.",
                "If that is right, empty the raw table by hand; nothing was committed.",
            )
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

    def _typed(self, columns: Iterable[str], types: Mapping[str, str]) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(name), type_name(types[name])) for name in columns
        )

    def _move_watermark(self, types: Mapping[str, str]) -> str | None:
        """Move the committed position to the highest cursor value of the load. A window leaves it where it is."""
        if self._cursor is None or self._context.window is not None or self._cursor not in types:
            return None
        row = self._execute(
            sql.SQL("select greatest(%s::{type}, max({column}::{type}))::text"
                " from {table} where {rejected} is null"
            ).format(
                type=type_name(types[self._cursor]),
                column=sql.Identifier(self._cursor),
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
            ),
            [self._request.watermark],
        ).fetchone()  # fmt: skip
        value = row[0] if row else None
        if value is not None and value != self._request.watermark:
            self._connection.execute(
                """
                insert into ops.watermarks (source, stream, cursor_field, value, load_id)
                values (%s, %s, %s, %s, %s)
                on conflict (source, stream) do update
                set cursor_field = excluded.cursor_field, value = excluded.value, load_id = excluded.load_id,
                    committed_at = clock_timestamp()
                """,
                [self._context.source, self._stream.name, self._cursor, value, self._context.load_id],
            )
        return value

    def _remember_files(self) -> None:
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

    def _record(self, report: LoadReport) -> None:
        self._connection.execute(
            """
            update ops.loads
            set status = 'loaded', loaded_at = clock_timestamp(), cursor_to = %s, error = null, rows_extracted = %s,
                rows_inserted = %s, rows_updated = %s, rows_unchanged = %s, rows_duplicate = %s,
                rows_quarantined = %s, rows_deleted = %s
            where load_id = %s
            """,
            [
                report.watermark,
                report.extracted,
                report.inserted,
                report.updated,
                report.unchanged,
                report.duplicate,
                report.quarantined,
                report.deleted,
                report.load_id,
            ],
        )


_WITHOUT_EQUALITY = ("json", "xml", "point", "polygon", "path", "box", "circle", "line", "lseg")


def _comparable(column: sql.Composable, kind: str) -> sql.Composable:
    """A column in a form that can be compared: json, xml and the geometric types have no `=` of the whole value."""
    return sql.SQL("{}::text").format(column) if kind.removesuffix("[]") in _WITHOUT_EQUALITY else column


def _unfit(name: str, kind: str) -> sql.Composed:
    """`when` a text is no value of a type `then` why. `1` is no boolean here, though PostgreSQL would take it."""
    column = sql.Identifier(name)
    if kind == "boolean":
        return sql.SQL("when {} not in ('true', 'false') then {}").format(
            column, sql.Literal(f"column {name}: not true or false")
        )
    return sql.SQL("when not pg_input_is_valid({0}, {1}) then {2} || (pg_input_error_info({0}, {1})).message").format(
        column, sql.Literal(kind), sql.Literal(f"column {name}: ")
    )


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _one(cursor: psycopg.Cursor) -> int:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - every query that comes here has one row
    return int(row[0])
