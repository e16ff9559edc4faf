"""How far a read of a PostgreSQL table gets, although its rows do not become visible in the order of their cursors.

A transaction writes a row with the cursor 12:00 (its own start, or a number from a sequence) and commits at 12:05. A
read at 12:03 sees rows up to 12:03, and a watermark there would lose the row. So three things are done in this order:

1. look up the highest cursor value;
2. list the transactions that are open, and wait a little for them to end;
3. take the snapshot that is read.

What the snapshot does not show is of a transaction that is still on the list, or of one that began after the first
step, whose cursors are therefore no lower than what the first step found. The watermark stays back until those on the
list have ended (`connectors.destinations.warehouse.watermark`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import psycopg
from psycopg import sql

from connectors.cursors import may_be_watermark, outlasting
from connectors.errors import ConfigurationError
from connectors.model import SourcePosition

APPLICATION_NAME = "headwater extract"
"""Our own reads, which write nothing: nobody waits for them."""
_POLL_SECONDS = 0.02

# A transaction that has not written yet has no number, but it may have its time: now() is when it began. Every one has
# a virtual number, and a lock on it that anyone may see (PostgreSQL manual, 13.3 and view pg_locks).
_OPEN = """
select l.virtualxid
from pg_catalog.pg_locks l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.granted
  and l.pid <> pg_catalog.pg_backend_pid()
  and (a.datid is null or a.datid = (select oid from pg_catalog.pg_database where datname = current_database()))
  and a.backend_type is distinct from 'autovacuum worker'
  and a.application_name is distinct from %s
union all
select 'prepared ' || transaction::text from pg_catalog.pg_prepared_xacts where database = current_database()
"""

_STATE = """
select d.oid::text, c.oid::text, coalesce(pg_catalog.pg_relation_filenode(c.oid)::text, ''),
       pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text
from pg_catalog.pg_class c, pg_catalog.pg_database d
where c.oid = %s::regclass and d.datname = current_database()
"""
"""The transaction number tells a backup of the whole cluster that was put back; the others a dump, or a truncation."""


def look_up_position(
    connection: psycopg.Connection,
    table: sql.Identifier,
    cursor: str,
    cursor_type: str,
    watermark: str | None,
    settle_seconds: float,
    *,
    has_lag: bool,
) -> SourcePosition:
    """Take the first two steps. `connection` must be in autocommit; the caller takes the snapshot after.

    Args:
        watermark: what the read starts from.
        settle_seconds: how long to wait for transactions that are open.
        has_lag: whether rows before the watermark are read again anyway.

    Raises:
        ConfigurationError: the database is a standby, which does not know its primary's transactions, and no lag makes
            up for it.
    """
    is_standby = connection.execute("select pg_catalog.pg_is_in_recovery()").fetchone() == (True,)
    if is_standby and not has_lag:
        raise ConfigurationError(
            f"The source is a standby. It cannot tell which rows of {table.as_string(connection)} its primary has yet "
            "to commit, and some would be missed.",
            remedy="Give the cursor a lag as long as the longest transaction, or read the primary.",
        )
    state = _state(connection, table)
    highest, is_behind = _highest(connection, table, sql.Identifier(cursor), cursor_type, watermark)
    waiting = () if is_standby else outlasting(partial(_open_transactions, connection), settle_seconds, _POLL_SECONDS)
    return SourcePosition(highest, waiting, state, is_behind)


def _state(connection: psycopg.Connection, table: sql.Identifier) -> Mapping[str, str]:
    row = connection.execute(_STATE, [table.as_string(connection)]).fetchone()
    assert row is not None  # noqa: S101 - the table was looked up before
    return dict(zip(("database", "table", "file", "transaction"), row, strict=True))


def _highest(
    connection: psycopg.Connection,
    table: sql.Identifier,
    cursor: sql.Identifier,
    cursor_type: str,
    watermark: str | None,
) -> tuple[str | None, bool]:
    behind: sql.Composable = sql.SQL("false")
    if watermark is not None:
        behind = sql.SQL("coalesce(h.value < {}, true)").format(sql.Literal(watermark))
    # Not max(): this is read from an index too, and works for every type that has an order.
    row = connection.execute(
        sql.SQL(
            "select h.value::text, {behind} from (select) one"
            " left join (select {cursor} as value from {table} where {bounded} order by 1 desc limit 1) h on true"
        ).format(behind=behind, cursor=cursor, table=table, bounded=may_be_watermark(cursor, cursor_type))
    ).fetchone()
    assert row is not None  # noqa: S101 - a left join of one row
    return row[0], row[1]


def _open_transactions(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute(_OPEN, [APPLICATION_NAME]).fetchall()}
