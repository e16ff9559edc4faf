"""How far a read of a MySQL or MariaDB table gets, whose rows do not become visible in the order of their cursors.

The steps are those of `connectors.postgres.position`: look up the highest cursor value; list what is open, and wait a
little for it to end; take the snapshot that is read. What is open are InnoDB's transactions, and statements that run: a
statement has its time (`now()` is when it began) before it is part of a transaction. Both take the privilege PROCESS to
see.
"""

from __future__ import annotations

import re
import time
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from connectors.cursors import outlasting
from connectors.errors import ConfigurationError
from connectors.model import SourcePosition, Stream
from connectors.sql.ranges import parsed
from connectors.sql.types import TIMESTAMP, TIMESTAMPTZ, SqlColumn, text_of

_POLL_SECONDS = 0.15
"""InnoDB gives the list of a moment before to whoever asks again within a tenth of a second (trx0i_s.cc)."""
_NO_PROCESS = 1227

# A transaction is told by its connection and when it began: its number changes when it first writes. One that cannot
# write, as our own reads, is waited for by nobody.
_OPEN = r"""
select concat('transaction ', trx_mysql_thread_id, ' of ', trx_started)
from information_schema.innodb_trx
where trx_is_read_only = 0 and trx_mysql_thread_id <> connection_id()
union all
select concat('statement ', id, ' ', md5(coalesce(info, '')))
from information_schema.processlist
where command in ('Query', 'Execute') and id <> connection_id() and user <> 'system user'
  and coalesce(info, '') not regexp '^[[:space:](]*(select|show)[[:space:]]'
"""
_REPLICATED = """
select @@innodb_read_only or exists
    (select 1 from information_schema.processlist where user = 'system user' and command <> 'Daemon')
"""
_MADE_AT = """
select cast(create_time as char) from information_schema.tables
where table_schema = coalesce(:schema, database()) and table_name = :table
"""
_COUNTER = re.compile(r"^Trx id counter (\d+)", re.MULTILINE)


def look_up_position(
    connection: Connection,
    table: sa.TableClause,
    column: SqlColumn,
    stream: Stream,
    watermark: str | None,
    settle_seconds: float,
) -> SourcePosition | None:
    """Take the first two steps. `connection` must be in autocommit; the caller takes the snapshot after.

    Args:
        watermark: what the read starts from.
        settle_seconds: how long to wait for transactions that are open.

    Returns:
        None if the user may not see what is open, and a lag makes up for it.

    Raises:
        ConfigurationError: what is open cannot be seen, and no lag makes up for it.
    """
    assert stream.cursor is not None  # noqa: S101 - the caller's condition
    has_lag = bool(stream.cursor.lag)
    try:
        state = _state(connection, table)
        is_replica = bool(connection.scalar(sa.text(_REPLICATED)))
    except DBAPIError as error:
        if error.orig is None or error.orig.args[0] != _NO_PROCESS:
            raise
        if not has_lag:
            raise ConfigurationError(
                f"The source's user may not see which transactions are open: rows of {table.name} that are yet to be "
                "committed would be missed.",
                remedy="Grant it PROCESS, or give the cursor a lag as long as the longest transaction.",
                stream=stream.name,
            ) from None
        return None
    if is_replica and not has_lag:
        raise ConfigurationError(
            f"The source is a replica. It cannot tell which rows of {table.name} its primary has yet to commit, and "
            "some would be missed.",
            remedy="Give the cursor a lag as long as the longest transaction, or read the primary.",
            stream=stream.name,
        )
    highest = _highest(connection, table, column)
    is_behind = watermark is not None and (
        highest is None or parsed(column.kind, highest, stream) < parsed(column.kind, watermark, stream)  # type: ignore[operator]  # both are of one type
    )
    if is_replica:
        return SourcePosition(highest, (), state, is_behind)
    time.sleep(_POLL_SECONDS)
    waiting = outlasting(partial(_open, connection), settle_seconds, _POLL_SECONDS)
    return SourcePosition(highest, waiting, state, is_behind)


def _state(connection: Connection, table: sa.TableClause) -> dict[str, str]:
    """The counter tells a backup of the server that was put back; the table's age a dump, or a truncation."""
    made_at = connection.scalar(sa.text(_MADE_AT), {"schema": table.schema, "table": table.name})
    status = connection.exec_driver_sql("show engine innodb status").one()[2]
    counter = _COUNTER.search(status)
    return {"table": made_at or "", "transaction": counter[1] if counter else "0"}


def _highest(connection: Connection, table: sa.TableClause, column: SqlColumn) -> str | None:
    """As `connectors.cursors.may_be_watermark` has it: values that later ones will exceed."""
    value = column.column
    condition: sa.ColumnElement[bool] = value.is_not(None)
    if column.kind in ("date", TIMESTAMP, TIMESTAMPTZ):
        latest = sa.func.utc_timestamp(sa.literal_column("6"))
        if column.kind != TIMESTAMPTZ:  # of a time zone that can be 14 hours ahead of UTC
            latest = sa.func.date_add(latest, sa.text("interval 14 hour"))
        # 2024-00-00 is a date to MySQL, and none to anybody else
        condition = sa.and_(value <= latest, sa.func.month(value) > 0, sa.func.dayofmonth(value) > 0)
    found = connection.scalar(
        sa.select(column.selected).select_from(table).where(condition).order_by(value.desc()).limit(1)
    )
    return None if found is None else text_of(column, found)


def _open(connection: Connection) -> set[str]:
    return set(connection.exec_driver_sql(_OPEN).scalars())
