"""The ledger of reconciliations: what was compared when, what differed, and what is due next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from connectors.comparison.differences import Findings, Kind
from connectors.comparison.digests import Key, Span
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.raw_table import type_name
from connectors.model import Stream, Window


class ReconciliationBook:
    """Writes down one reconciliation. Needs a connection in autocommit."""

    def __init__(self, connection: psycopg.Connection, source: str, stream: Stream, run: str) -> None:
        self._connection = connection
        self._names = {"source": source, "stream": stream.name}
        self._run = run
        self.id = uuid7()

    def begin(self, span: Span, compared_by: str) -> None:
        """Note that it is under way; those that were killed are not any more."""
        self._connection.execute(
            "update ops.reconciliations"
            " set status = 'failed', ended_at = clock_timestamp(), error = 'its run was killed'"
            " where source = %(source)s and stream = %(stream)s and status = 'running'",
            self._names,
        )
        self._connection.execute(
            "insert into ops.reconciliations"
            " (reconciliation_id, source, stream, compared_by, windows, key_from, key_to, run_id)"
            " values (%(id)s, %(source)s, %(stream)s, %(by)s, %(windows)s, %(key_from)s, %(key_to)s, %(run)s)",
            {
                **self._names,
                "id": self.id,
                "by": compared_by,
                "windows": len(span.windows),
                "key_from": span.key_from,
                "key_to": span.key_to,
                "run": self._run,
            },
        )

    def end(self, findings: Findings, windows: Iterable[Window], error: str | None) -> None:
        """Note what was found, in one transaction.

        Args:
            windows: that were compared.
            error: why what differs could not be healed, if it was to be.
        """
        counts = findings.counts
        status = "equal"
        if findings.differences:
            status = "different" if findings.open or findings.is_at_least else "healed"
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                """
                update ops.reconciliations set status = %(status)s, ended_at = clock_timestamp(), error = %(error)s,
                    rows_at_source = %(there)s, rows_in_raw = %(here)s, missing = %(missing)s,
                    different = %(different)s, deleted = %(deleted)s, is_at_least = %(is_at_least)s,
                    uncertain = %(uncertain)s, quarantined = %(quarantined)s, changed_since = %(changed)s,
                    questions = %(questions)s
                where reconciliation_id = %(id)s
                """,
                {
                    "id": self.id,
                    "status": status,
                    "error": error,
                    "there": findings.rows_at_source,
                    "here": findings.rows_in_raw,
                    "missing": counts[Kind.MISSING],
                    "different": counts[Kind.DIFFERENT],
                    "deleted": counts[Kind.DELETED],
                    "is_at_least": findings.is_at_least,
                    "uncertain": findings.uncertain,
                    "quarantined": findings.quarantined,
                    "changed": findings.changed_since,
                    "questions": findings.questions,
                },
            )
            cursor.executemany(
                "insert into ops.differences (reconciliation_id, source, stream, window_start, window_end, key, kind,"
                " columns, is_certain, healed_at)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, case when %s then clock_timestamp() end)",
                [
                    [
                        self.id,
                        self._names["source"],
                        self._names["stream"],
                        each.window.start if each.window else None,
                        each.window.end if each.window else None,
                        Jsonb(list(each.key)),
                        each.kind.value,
                        list(each.columns),
                        each.is_certain,
                        each.is_healed,
                    ]
                    for each in findings.differences
                ],
            )
            cursor.execute(
                "insert into ops.reconciled_windows (source, stream, window_start, reconciliation_id, reconciled_at)"
                " select %(source)s, %(stream)s, w, %(id)s, clock_timestamp() from unnest(%(windows)s::timestamptz[]) w"
                " on conflict (source, stream, window_start) do update"
                " set reconciliation_id = excluded.reconciliation_id, reconciled_at = excluded.reconciled_at",
                {**self._names, "id": self.id, "windows": [window.start for window in windows]},
            )

    def fail(self, message: str) -> None:
        """Note why it did not come to an end; what it was about is due as before."""
        self._connection.execute(
            "update ops.reconciliations set status = 'failed', ended_at = clock_timestamp(), error = %s"
            " where reconciliation_id = %s",
            [message[:4000], self.id],
        )


def windows_that_differ(connection: psycopg.Connection, source: str, stream: str) -> set[datetime]:
    """Where the windows begin that had rows which differed when they were last compared, and that were not healed."""
    found = connection.execute(
        "select distinct w.window_start from ops.reconciled_windows w join ops.differences d"
        " using (reconciliation_id, source, stream, window_start)"
        " where w.source = %s and w.stream = %s and d.healed_at is null",
        [source, stream],
    )
    return {start for (start,) in found}


def reconciled_at(connection: psycopg.Connection, source: str, stream: str) -> dict[datetime, datetime]:
    """When each window was last compared, by where it begins."""
    return dict(
        connection.execute(
            "select window_start, reconciled_at from ops.reconciled_windows where source = %s and stream = %s",
            [source, stream],
        ).fetchall()
    )


def next_keys(
    connection: psycopg.Connection, source: str, stream: Stream, most_rows: int, *, again: bool = False
) -> Span:
    """The range of the key's first column that follows the one that was compared last, of so many rows of raw; after
    the highest, the lowest again.

    Args:
        again: rather the last one once more, if there were rows that differ.
    """
    row = connection.execute(
        "select key_from, key_to, status from ops.reconciliations where source = %s and stream = %s"
        " and status in ('equal', 'different', 'healed') order by started_at desc limit 1",
        [source, stream.name],
    ).fetchone()
    if again and row is not None and row[2] == "different":
        return Span(key_from=row[0], key_to=row[1])
    key_from = row[1] if row else None
    # Of the table: by its bare name the text that is selected would be ordered.
    column = sql.Identifier("t", column_name(stream.primary_key[0]))
    # So many rows may share one value of a key of several columns: they are compared together.
    end = connection.execute(
        sql.SQL(
            "select {column}::text from {raw} t"
            " where {column} > coalesce({lowest}, (select min({column}) from {raw} t))"
            " order by {column} offset %(most)s limit 1"
        ).format(
            column=column,
            raw=sql.Identifier(f"raw_{source}", stream.name),
            lowest=sql.Literal(key_from),
        ),
        {"most": max(0, most_rows - 1)},
    ).fetchone()
    return Span(key_from=key_from, key_to=end[0] if end else None)


def in_quarantine(
    connection: psycopg.Connection,
    source: str,
    stream: Stream,
    types: Mapping[str, str],
    rows: Sequence[tuple[Key, str | None]],
) -> set[Key]:
    """Those rows that raw lacks because they are in quarantine.

    Args:
        types: raw's types.
        rows: each by its key and its cursor, as raw's types print them. What is in quarantine is another version of a
            row if its cursor is another.
    """
    fields = [*stream.primary_key, *([stream.cursor.field] if stream.cursor else [])]
    wanted = [(*key, cursor) if stream.cursor else key for key, cursor in rows]
    values = []
    for field in fields:
        name, kind = column_name(field), types[column_name(field)]
        value = sql.SQL("coalesce(record ->> {}, record ->> {})").format(sql.Literal(name), sql.Literal(field))
        values.append(
            sql.SQL("case when pg_input_is_valid({0}, {1}) then {0}::{2}::text end").format(
                value, sql.Literal(kind), type_name(kind)
            )
        )
    places = range(len(fields))
    found = connection.execute(
        sql.SQL(
            "with aside as materialized (select case when pg_input_is_valid(payload, 'jsonb') then payload::jsonb end"
            " as record from ops.quarantine where source = %(source)s and stream = %(stream)s and replayed_by is null)"
            " select distinct {columns} from unnest({asked}) as asked ({columns})"
            " where ({columns}) in (select {values} from aside where jsonb_typeof(record) = 'object')"
        ).format(
            columns=sql.SQL(", ").join(sql.Identifier(f"v{place}") for place in places),
            asked=sql.SQL(", ").join(sql.SQL(f"%(v{place})s::text[]") for place in places),
            values=sql.SQL(", ").join(values),
        ),
        {
            "source": source,
            "stream": stream.name,
            **{f"v{place}": [row[place] for row in wanted] for place in places},
        },
    )
    return {tuple(row[: len(stream.primary_key)]) for row in found}
