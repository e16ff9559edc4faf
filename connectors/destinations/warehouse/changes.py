"""Which rows of a mart were written since it was last published, so that publishing need not look at all of them.

dbt changes an incremental mart in place. Triggers on its table note the key of every row that is inserted, updated or
deleted, whoever does it, in the same transaction, in a table of schema `changes`. A publish takes the noted keys that
its snapshot shows and deletes just those; what is noted meanwhile is there for the next one.

That nothing is missed does not rest on good conduct. A publish goes by the notes only if everything is as the publish
before has left it: the same table, not rewritten (TRUNCATE, a type that changed), the same columns, the same triggers,
never disabled or replaced. Otherwise it compares all rows. So it does with a mart that dbt makes anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import column_types, connect, translated_errors
from connectors.destinations.warehouse.marts import Mart

_CHANGES = "changes"
_PUBLISHER = sql.Identifier("headwater_publisher")
_TRIGGERS = {
    "insert": "referencing new table as new_rows",
    "update": "referencing old table as old_rows new table as new_rows",
    "delete": "referencing old table as old_rows",
}
_SMALL_BYTES = 1 << 20

_FINGERPRINT = """
select
    c.oid::text,
    concat_ws(' ', c.oid, pg_relation_filenode(c.oid), n.oid, pg_relation_filenode(n.oid), t.seen, a.seen)
from pg_catalog.pg_class c
join pg_catalog.pg_class n on n.relnamespace = 'changes'::regnamespace and n.relname = c.oid::text
cross join lateral (
    select count(*) as triggers, string_agg(concat_ws(':', oid, xmin, tgenabled), ',' order by oid) as seen
    from pg_catalog.pg_trigger
    where tgrelid = c.oid and tgfoid = 'ops.note_changes'::regproc and tgenabled = 'A'
) t
cross join lateral (
    select string_agg(concat_ws(':', attnum, attname, atttypid, atttypmod), ',' order by attnum) as seen
    from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped
) a
where c.relnamespace = to_regnamespace(%s) and c.relname = %s and c.relkind = 'r' and t.triggers = 3
  and not exists (select from pg_catalog.pg_inherits where c.oid in (inhrelid, inhparent))
"""


def prepare(transformer: URL, marts: Sequence[Mart]) -> None:
    """Let the publisher read what dbt built, and have the changes of incremental marts noted from here on.

    After each build: dbt makes tables anew, and a new table has neither grants nor triggers.

    Raises:
        DestinationUnavailableError: the warehouse does not answer, or somebody reads a new table for too long.
    """
    with translated_errors(), connect(transformer, "prepare marts", autocommit=True) as connection:
        # A transaction for each: one that has changed a table's entry in the catalog and then waits for a lock on it
        # would wait for an autovacuum that waits for that entry.
        with connection.transaction():
            for schema in sorted({mart.schema for mart in marts}):
                name = sql.Identifier(schema)
                if connection.execute("select to_regnamespace(%s)", [name.as_string(connection)]).fetchone() == (None,):
                    continue  # said by the publish, of each mart
                connection.execute(sql.SQL("grant usage on schema {} to {}").format(name, _PUBLISHER))
                connection.execute(sql.SQL("grant select on all tables in schema {} to {}").format(name, _PUBLISHER))
        for mart in marts:
            if mart.is_incremental and mart.key:
                with connection.transaction():
                    _follow(connection, mart)
        with connection.transaction():
            _forget_dropped(connection)


def _follow(connection: psycopg.Connection, mart: Mart) -> None:
    """Put the triggers on a mart's table, unless they are there and note the key of today."""
    table = sql.Identifier(mart.schema, mart.name)
    row = connection.execute(
        "select oid from pg_catalog.pg_class where oid = to_regclass(%s) and relkind = 'r'",
        [table.as_string(connection)],
    ).fetchone()
    types = column_types(connection, mart.schema, mart.name)
    if row is None or not types.keys() >= set(mart.key):
        return
    notes = sql.Identifier(_CHANGES, str(row[0]))
    key_types = {name: types[name] for name in mart.key}
    if _is_followed(connection, mart, row[0], notes, key_types):
        connection.execute(sql.SQL("analyze {}").format(notes))
        return
    # First of all, see `prepare`. An autovacuum that has it gives way after a second.
    connection.execute(sql.SQL("lock table {} in share row exclusive mode").format(table))
    arguments = [sql.Literal(argument) for argument in (notes.as_string(connection), *mart.key)]
    connection.execute(sql.SQL("drop table if exists {}").format(notes))
    definitions = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in key_types.items()]
    connection.execute(sql.SQL("create table {} ({})").format(notes, sql.SQL(", ").join(definitions)))
    comment = f"Keys of rows written to {mart.schema}.{mart.name} since it was last published."
    connection.execute(sql.SQL("comment on table {} is {}").format(notes, sql.Literal(comment)))
    connection.execute(sql.SQL("grant select, delete on {} to {}").format(notes, _PUBLISHER))
    for verb, tables in _TRIGGERS.items():
        name = sql.Identifier(f"headwater_notes_{verb}")
        connection.execute(sql.SQL("drop trigger if exists {} on {}").format(name, table))
        connection.execute(
            sql.SQL(
                "create trigger {} after {} on {} {} for each statement execute function ops.note_changes({})"
            ).format(name, sql.SQL(verb), table, sql.SQL(tables), sql.SQL(", ").join(arguments))
        )
        connection.execute(sql.SQL("alter table {} enable always trigger {}").format(table, name))


def _is_followed(
    connection: psycopg.Connection, mart: Mart, oid: int, notes: sql.Identifier, key_types: dict[str, str]
) -> bool:
    if column_types(connection, _CHANGES, str(oid)) != key_types:
        return False
    arguments = b"".join(argument.encode() + b"\0" for argument in (notes.as_string(connection), *mart.key))
    row = connection.execute(
        """
        -- Notes of a mart that is held back for long would grow for ever: comparing all of it costs less by then.
        select count(*) filter (where tgargs = %(arguments)s and tgenabled = 'A') = 3
            and pg_relation_size(to_regclass(%(notes)s)) <= greatest(pg_relation_size(%(oid)s::oid), %(small)s)
        from pg_catalog.pg_trigger where tgrelid = %(oid)s and tgfoid = 'ops.note_changes'::regproc
        """,
        {"arguments": arguments, "notes": notes.as_string(connection), "oid": oid, "small": _SMALL_BYTES},
    ).fetchone()
    return bool(row and row[0])


def _forget_dropped(connection: psycopg.Connection) -> None:
    """Drop the notes of tables that are no longer there."""
    rows = connection.execute(
        "select relname from pg_catalog.pg_class c where relnamespace = 'changes'::regnamespace and relkind = 'r'"
        " and pg_get_userbyid(relowner) = current_user"
        " and not exists (select from pg_catalog.pg_class m where m.oid::text = c.relname)"
    ).fetchall()
    for (name,) in rows:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier(_CHANGES, name)))


class Notes:
    """What was noted of a mart, as this transaction sees it."""

    def __init__(self, connection: psycopg.Connection, mart: Mart) -> None:
        self._connection = connection
        self._mart = mart
        row = connection.execute(_FINGERPRINT.encode(), [mart.schema, mart.name]).fetchone()
        self._name, self.fingerprint = row or (None, None)
        """What must not have changed for the notes to be all of it; None if nothing is noted."""

    @property
    def table(self) -> sql.Identifier | None:
        return sql.Identifier(_CHANGES, self._name) if self._name else None

    def are_few(self, rows: int) -> bool:
        """Whether each change was noted with its key, and looking them up costs less than comparing all rows."""
        if self._name is None or column_types(self._connection, _CHANGES, self._name).keys() != set(self._mart.key):
            return False
        row = self._connection.execute(
            sql.SQL("select count(*), count(*) filter (where num_nulls({}) > 0) from {}").format(
                sql.SQL(", ").join(map(sql.Identifier, self._mart.key)), self.table
            )
        ).fetchone()
        return row is not None and row[1] == 0 and row[0] * 4 <= rows

    def forget(self) -> None:
        """Delete what this transaction sees: it has been published with it."""
        if self.table is not None:
            self._connection.execute(sql.SQL("delete from {}").format(self.table))
