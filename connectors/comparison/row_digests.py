"""Counts and checksums of a PostgreSQL table's rows, computed where they are: the same for a source and for raw.

Values are compared as the text that PostgreSQL prints, which tells apart what `=` takes for equal (1.1 and 1.10, 0 and
-0, a month and 30 days) and is the same in every version, encoding and locale under the settings that both sides have.
The texts of a row are written as a row is, which keeps null and the empty text apart, and hashed with SHA-256: md5 is
refused by servers that follow FIPS, and PostgreSQL's own hashes differ between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from connectors.comparison.digests import Bucket, ComparedAs, Digest, FoundRow, Key, Span
from connectors.model import Window

_HASH = "('x' || left(encode(sha256(convert_to(row({})::text, 'UTF8')), 'hex'), 16))::bit(64)::bigint"
"""The first 64 bits. By chance two rows share them once in 10^19 pairs."""


@dataclass(frozen=True, slots=True)
class RowDigests:
    """One table, at the instant of its connection's transaction; see `connectors.comparison.digests.Digests`."""

    connection: psycopg.Connection
    name: sql.Composable
    compared: ComparedAs
    key_types: Sequence[str | None]
    """The types of the key's columns in this table; None where a value has to be compared as text."""
    event_time: str | None
    settled: sql.Composable
    """The condition that a row counts."""
    errors: Callable[[], AbstractContextManager[None]]
    """Says whose trouble it is when the database raises one."""
    left_out: Sequence[Key] = ()
    """Keys of rows that do not, whatever the condition says."""

    def by_bucket(
        self, span: Span, bits: int = 0, within: Collection[Bucket] | None = None, within_bits: int = 0
    ) -> Mapping[Bucket, Digest]:
        found = self._execute(
            "select part, prefix, count(*), sum(hash) from"
            " (select {part} as part, {prefix} as prefix, {hash} as hash from {table} t where {where}) r group by 1, 2",
            span,
            bits,
            within,
            within_bits,
        )
        return {Bucket(part, prefix): Digest(rows, int(checksum)) for part, prefix, rows, checksum in found}

    def hashes(self, span: Span, within: Collection[Bucket], bits: int) -> Mapping[Key, int]:
        found = self._execute("select {hash}, {key} from {table} t where {where}", span, bits, within, bits)
        return {tuple(key): value for value, *key in found}

    def rows(self, keys: Sequence[Key]) -> Mapping[Key, FoundRow]:
        found = self._fetch(
            sql.SQL(
                "select coalesce({settled}, false), array[{values}]::text[], {key}"
                " from {asked} join {table} t on {same}"
            ).format(
                settled=self.settled,
                values=sql.SQL(", ").join(texts(self.compared.values)),
                key=sql.SQL(", ").join(texts(self.compared.key)),
                asked=self._asked("asked"),
                table=self.name,
                same=sql.SQL(" and ").join(
                    sql.SQL("t.{} = asked.{}::{}" if kind else "t.{}::text = asked.{}").format(
                        sql.Identifier(name), sql.Identifier(f"k{place}"), *([sql.SQL(kind)] if kind else [])
                    )
                    for place, (name, kind) in enumerate(zip(self.compared.key, self.key_types, strict=True))
                ),
            ),
            self._columns_of(keys, "asked"),
        )
        wanted = set(keys)  # a type may cut or round what is none of its values, and find another row by it
        rows = {tuple(key): FoundRow(settled, tuple(values)) for settled, values, *key in found}
        return {key: row for key, row in rows.items() if key in wanted}

    def _execute(
        self, statement: str, span: Span, bits: int, within: Collection[Bucket] | None, within_bits: int
    ) -> list[tuple[Any, ...]]:
        key, values = texts(self.compared.key), texts(self.compared.values)
        conditions = [*self._bounds(span), self.settled]
        conditions += [sql.SQL("t.{} is not null").format(sql.Identifier(name)) for name in self.compared.key]
        parameters: dict[str, object] = {"key_from": span.key_from, "key_to": span.key_to}
        if self.left_out:
            conditions.append(
                sql.SQL("({}) not in (select * from {})").format(sql.SQL(", ").join(key), self._asked("left_out"))
            )
            parameters |= self._columns_of(self.left_out, "left_out")
        if within is not None:
            conditions.append(
                sql.SQL("({}, {}) in (select * from unnest(%(parts)s::int[], %(prefixes)s::bigint[]))").format(
                    self._part(span), self._prefix(key, within_bits)
                )
            )
            parameters["parts"] = [bucket.part for bucket in within]
            parameters["prefixes"] = [bucket.prefix for bucket in within]
        return self._fetch(
            sql.SQL(statement).format(
                part=self._part(span),
                prefix=self._prefix(key, bits),
                hash=_hash([*key, *values]),
                key=sql.SQL(", ").join(key),
                table=self.name,
                where=sql.SQL(" and ").join(conditions),
            ),
            parameters,
        )

    def _fetch(self, statement: sql.Composed, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self.errors():
            return self.connection.execute(statement, parameters).fetchall()

    def _prefix(self, key: Sequence[sql.Composed], bits: int) -> sql.Composable:
        return sql.SQL("{} >> {}").format(_hash(key), 64 - bits) if bits else sql.SQL("0::bigint")

    def _part(self, span: Span) -> sql.Composable:
        if not span.windows:
            return sql.SQL("0")
        starts = [window.start for window in span.windows]
        return sql.SQL("(width_bucket(t.{}::timestamptz, {}::timestamptz[]) - 1)").format(
            sql.Identifier(self.event_time or ""), sql.Literal(starts)
        )

    def _bounds(self, span: Span) -> list[sql.Composed]:
        """The conditions that a row is of the span, as an index of the column can serve them."""
        if span.windows:
            column = sql.Identifier("t", self.event_time or "")
            within = [
                sql.SQL("{0} >= {1} and {0} < {2}").format(column, sql.Literal(each.start), sql.Literal(each.end))
                for each in adjacent(span.windows)
            ]
            return [sql.SQL("({})").format(sql.SQL(" or ").join(within))]
        first = sql.Identifier("t", next(iter(self.compared.key)))
        sides = [("{} >= %(key_from)s", span.key_from), ("{} < %(key_to)s", span.key_to)]
        return [sql.SQL(side).format(first) for side, value in sides if value is not None]

    def _asked(self, name: str) -> sql.Composed:
        places = range(len(self.compared.key))
        return sql.SQL("unnest({}) as {} ({})").format(
            sql.SQL(", ").join(sql.SQL(f"%({name}{place})s::text[]") for place in places),
            sql.Identifier(name),
            sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in places),
        )

    def _columns_of(self, keys: Sequence[Key], name: str) -> dict[str, object]:
        return {f"{name}{place}": [key[place] for key in keys] for place in range(len(self.compared.key))}


def texts(columns: Mapping[str, str | None]) -> list[sql.Composed]:
    """The values of some columns of `t` as they are compared."""
    return [
        sql.SQL("t.{}::{}::text").format(sql.Identifier(name), sql.SQL(kind))  # as `format_type` printed it
        if kind
        else sql.SQL("t.{}::text").format(sql.Identifier(name))
        for name, kind in columns.items()
    ]


def _hash(values: Sequence[sql.Composed]) -> sql.Composed:
    return sql.SQL(_HASH).format(sql.SQL(", ").join(values))


def adjacent(windows: Sequence[Window]) -> list[Window]:
    """Windows, those that touch each other in one."""
    spans: list[Window] = []
    for window in windows:
        if spans and spans[-1].end == window.start:
            spans.append(Window(spans.pop().start, window.end))
        else:
            spans.append(window)
    return spans
