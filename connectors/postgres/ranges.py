"""A large PostgreSQL table in parts that can be read side by side: ranges of its pages.

By pages and not by key: parts are equally large whatever the keys are, and each is read from end to end without an
index (a TID range scan, PostgreSQL 14 and later).
"""

from __future__ import annotations

import psycopg
from psycopg import sql

MOST_READERS = 16
_PART_BYTES = 64 << 20
"""Below this a part is not worth a connection."""

_SIZE = """
select pg_catalog.pg_relation_size(oid), pg_catalog.current_setting('block_size')::int
from pg_catalog.pg_class where oid = %s::regclass and relkind = 'r'
"""
"""Of a plain table alone: views, partitioned and foreign tables have no pages of their own."""


def page_ranges(connection: psycopg.Connection, table: sql.Identifier, readers: int) -> list[sql.Composed]:
    """Conditions that part a table's rows, no row in two and none in no part: at most `readers` of them.

    Fewer than two mean that it is to be read in one go.
    """
    if readers < 2:
        return []
    row = connection.execute(_SIZE, [table.as_string(connection)]).fetchone()
    if row is None:
        return []
    size, page = row
    parts = min(readers, size // _PART_BYTES)
    bounds = [size // page * part // parts for part in range(1, parts)] if parts > 1 else []
    # The table may grow while its size is looked at: the last part has no end.
    pairs = zip([None, *bounds], [*bounds, None], strict=True) if bounds else ()
    return [_between(start, end) for start, end in pairs]


def _between(start: int | None, end: int | None) -> sql.Composed:
    sides = [("ctid >= {}::tid", start), ("ctid < {}::tid", end)]
    return sql.SQL(" and ").join(
        sql.SQL(side).format(sql.Literal(f"({page},0)")) for side, page in sides if page is not None
    )
