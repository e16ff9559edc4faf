"""The copies of marts in `published`: brought up to date row by row, and taken back the same way.

Before a copy is changed, what will be replaced is put into a table of schema `undo`: the old rows and the keys of new
ones, or, where the mart's shape has changed, the whole old table, which is moved there and not copied. So going back
costs what going forward did, and keeping the way back costs no second copy of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.connection import column_types
from connectors.destinations.warehouse.marts import Index, Mart

PUBLISHED, SERVING, UNDO = "published", "serving", "undo"
_READER = sql.Identifier("headwater_reader")
_MARKER = "Published by Headwater"
_INDEX = "index_"
_WAS, _IS = sql.Identifier("_headwater_was_there"), sql.Identifier("_headwater_is_there")


@dataclass(frozen=True, slots=True)
class Difference:
    """What bringing a copy up to date has written, in rows, and what takes it back."""

    inserted: int
    updated: int
    deleted: int
    undo_table: str | None
    """In schema undo; None if nothing was written."""


def published_key(connection: psycopg.Connection, mart: str) -> tuple[str, ...]:
    """The key's columns of a copy; empty if there is no copy."""
    rows = connection.execute(
        """
        select a.attname from pg_catalog.pg_index i
        cross join lateral unnest(i.indkey::smallint[]) with ordinality k (number, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where i.indrelid = to_regclass(%s) and i.indisprimary order by k.place
        """,
        [sql.Identifier(PUBLISHED, mart).as_string(connection)],
    ).fetchall()
    return tuple(name for (name,) in rows)


def synchronise(
    connection: psycopg.Connection, mart: Mart, undo: str, *, notes: sql.Identifier | None = None
) -> Difference:
    """Make the copy equal to the mart, writing only rows that differ.

    Args:
        undo: what to call the table with what is replaced.
        notes: the table with the keys that may differ; without it all rows are compared.
    """
    source, target = sql.Identifier(mart.schema, mart.name), sql.Identifier(PUBLISHED, mart.name)
    columns = list(column_types(connection, PUBLISHED, mart.name))
    difference = sql.Identifier(UNDO, undo)
    first = sql.Identifier(mart.key[0])
    pairs: sql.Composable = sql.SQL("{} s full join {} t on {}").format(source, target, _same("s", "t", mart.key))
    if notes is not None:
        pairs = sql.SQL("(select distinct {} from {}) c left join {} s on {} left join {} t on {}").format(
            _names(mart.key), notes, source, _same("s", "c", mart.key), target, _same("t", "c", mart.key)
        )
    # As they are stored, not by `=`: see the merge into raw.
    connection.execute(
        sql.SQL(
            "create table {difference} as select t.{first} is not null as {was}, s.{first} is not null as {is_},"
            " {columns} from {pairs} where (s.{first} is null) <> (t.{first} is null)"
            " or (s.{first} is not null and pg_catalog.record_image_ne(row({new}), row({old})))"
        ).format(
            difference=difference,
            first=first,
            was=_WAS,
            is_=_IS,
            columns=sql.SQL(", ").join(
                sql.SQL("coalesce(t.{0}, s.{0}) as {0}" if name in mart.key else "t.{0}").format(sql.Identifier(name))
                for name in columns
            ),
            pairs=pairs,
            new=_names(columns, "s"),
            old=_names(columns, "t"),
        )
    )
    parts = {
        "target": target,
        "source": source,
        "difference": difference,
        "was": _WAS,
        "is_": _IS,
        "differs": _same("t", "d", mart.key),
        "same": _same("s", "d", mart.key),
        "columns": _names(columns),
        "new": _names(columns, "s"),
    }
    deleted = connection.execute(
        sql.SQL("delete from {target} t using {difference} d where not d.{is_} and {differs}").format(**parts)
    ).rowcount
    updated = connection.execute(
        sql.SQL(
            "update {target} t set ({columns}) = row({new}) from {source} s, {difference} d"
            " where d.{was} and d.{is_} and {differs} and {same}"
        ).format(**parts)
    ).rowcount
    inserted = connection.execute(
        sql.SQL(
            "insert into {target} ({columns}) select {new} from {source} s, {difference} d where not d.{was} and {same}"
        ).format(**parts)
    ).rowcount
    if not inserted + updated + deleted:
        connection.execute(sql.SQL("drop table {}").format(difference))
    return Difference(inserted, updated, deleted, undo if inserted + updated + deleted else None)


def take_back(connection: psycopg.Connection, mart: str, undo: str) -> None:
    """Put back the rows that `synchronise` has replaced."""
    columns = list(column_types(connection, PUBLISHED, mart))
    parts = {
        "target": sql.Identifier(PUBLISHED, mart),
        "difference": sql.Identifier(UNDO, undo),
        "same": _same("t", "d", published_key(connection, mart)),
        "columns": _names(columns),
        "was": _WAS,
    }
    connection.execute(sql.SQL("delete from {target} t using {difference} d where {same}").format(**parts))
    connection.execute(
        sql.SQL("insert into {target} ({columns}) select {columns} from {difference} where {was}").format(**parts)
    )
    drop_undo(connection, [undo])


def create_copy(connection: psycopg.Connection, mart: Mart, columns: Mapping[str, str], undo: str) -> int:
    """Make the copy of a mart in its shape of today, and fill it. Returns its rows.

    Args:
        columns: type by column.
        undo: makes the name of its key, which must be another than that of a table that was moved away.
    """
    target = sql.Identifier(PUBLISHED, mart.name)
    definitions = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
    connection.execute(
        sql.SQL("create table {} ({}, constraint {} primary key ({}))").format(
            target, sql.SQL(", ").join(definitions), sql.Identifier(f"key_{undo}"), _names(mart.key)
        )
    )
    rows = connection.execute(
        sql.SQL("insert into {} ({names}) select {names} from {}").format(
            target, sql.Identifier(mart.schema, mart.name), names=_names(columns)
        )
    ).rowcount
    # BI and the next publish would otherwise be planned without knowing anything of it.
    connection.execute(sql.SQL("analyze {}").format(target))
    return rows


def keep_indexes(connection: psycopg.Connection, mart: Mart, undo: str) -> None:
    """Give the copy the indexes that the mart has, and take those of ours away that it no longer has.

    What somebody has made there by hand stays. To make one keeps no reader waiting; to take one away does, for an
    instant.

    Args:
        undo: makes their names, which must be others than those of a table that was moved away.
    """
    target = sql.Identifier(PUBLISHED, mart.name)
    rows = connection.execute(
        """
        select c.relname, am.amname, array_agg(a.attname::text order by k.place)
        from pg_catalog.pg_index i
        join pg_catalog.pg_class c on c.oid = i.indexrelid
        join pg_catalog.pg_am am on am.oid = c.relam
        cross join lateral unnest(i.indkey::smallint[]) with ordinality k (number, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where i.indrelid = %s::regclass and starts_with(c.relname, %s) group by 1, 2
        """,
        [target.as_string(connection), _INDEX],
    ).fetchall()
    there = {Index(tuple(columns), method): name for name, method, columns in rows}
    for name in (name for index, name in there.items() if index not in mart.indexes):
        connection.execute(sql.SQL("drop index {}").format(sql.Identifier(PUBLISHED, name)))
    for number, index in enumerate(dict.fromkeys(mart.indexes), 1):
        if index not in there:
            connection.execute(
                sql.SQL("create index {} on {} using {} ({})").format(
                    sql.Identifier(f"{_INDEX}{undo}_{number}"),
                    target,
                    sql.Identifier(index.method),
                    _names(index.columns),
                )
            )


def set_aside(connection: psycopg.Connection, mart: str, undo: str) -> bool:
    """Move a copy to schema undo as it is, and its view away. False if there is none.

    Readers keep what they had until the transaction ends.
    """
    target = sql.Identifier(PUBLISHED, mart)
    if not column_types(connection, PUBLISHED, mart):
        return False
    connection.execute(sql.SQL("drop view if exists {}").format(sql.Identifier(SERVING, mart)))
    connection.execute(sql.SQL("alter table {} set schema {}").format(target, sql.Identifier(UNDO)))
    connection.execute(sql.SQL("alter table {} rename to {}").format(sql.Identifier(UNDO, mart), sql.Identifier(undo)))
    return True


def bring_back(connection: psycopg.Connection, mart: str, undo: str | None) -> None:
    """Put the table back that was set aside in place of the copy; take the copy away if there was none."""
    connection.execute(sql.SQL("drop view if exists {}").format(sql.Identifier(SERVING, mart)))
    connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(PUBLISHED, mart)))
    if undo is not None:
        aside = sql.Identifier(UNDO, undo)
        connection.execute(sql.SQL("alter table {} rename to {}").format(aside, sql.Identifier(mart)))
        connection.execute(
            sql.SQL("alter table {} set schema {}").format(sql.Identifier(UNDO, mart), sql.Identifier(PUBLISHED))
        )
        create_view(connection, mart)


def drop_undo(connection: psycopg.Connection, tables: Iterable[str]) -> None:
    """Drop tables of schema undo."""
    for name in tables:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier(UNDO, name)))


def create_view(
    connection: psycopg.Connection, mart: str, *, description: str = "", comments: Mapping[str, str] | None = None
) -> None:
    """The view, the grant and the comments; left alone where they are as they should be, for they lock readers out."""
    view = sql.Identifier(SERVING, mart)
    columns = list(column_types(connection, PUBLISHED, mart))
    if list(column_types(connection, SERVING, mart)) != columns:
        connection.execute(sql.SQL("drop view if exists {}").format(view))
        connection.execute(
            sql.SQL("create view {} as select {} from {}").format(
                view, _names(columns), sql.Identifier(PUBLISHED, mart)
            )
        )
        connection.execute(sql.SQL("grant select on {} to {}").format(view, _READER))
    existing: dict[int, str] = dict(
        connection.execute(
            "select attnum, description from pg_catalog.pg_attribute a join pg_catalog.pg_description d"
            " on d.objoid = a.attrelid and d.objsubid = a.attnum where a.attrelid = %s::regclass",
            [view.as_string(connection)],
        ).fetchall()
    )
    for number, name in enumerate(columns, 1):
        if (text := (comments or {}).get(name, "")) and existing.get(number) != text:
            connection.execute(
                sql.SQL("comment on column {} is {}").format(sql.Identifier(SERVING, mart, name), sql.Literal(text))
            )
    comment = f"{description.strip()}\n{_MARKER}.".strip()
    row = connection.execute(
        "select obj_description(%s::regclass, 'pg_class')", [view.as_string(connection)]
    ).fetchone()
    if row is None or row[0] != comment:
        connection.execute(sql.SQL("comment on view {} is {}").format(view, sql.Literal(comment)))


def _names(columns: Iterable[str], table: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) if table else sql.Identifier(name) for name in columns)


def _same(left: str, right: str, key: Sequence[str]) -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, name)) for name in key
    )
