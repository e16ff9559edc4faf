"""Two tables of the warehouse compared, row by row and column by column: what a change of a model does to its rows.

One statement counts it all, where the rows are; no value leaves the warehouse. Rows are matched by their key. Where
there is none, or where it does not tell rows apart on both sides, whole rows are matched, as often as each is there: a
row that changed is then one that is gone and one that is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import column_types, connect, translated_errors
from connectors.errors import ConfigurationError, DataError

_Value = Callable[[str, str], sql.Composable]
"""How a column of one side (`earlier` or `later`) is compared."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view by its name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> sql.Identifier:
        """As SQL has it."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """One column on both sides."""

    name: str
    before: str | None
    """Its type; None: there was no such column."""
    after: str | None
    """Its type; None: there is none any more."""
    changed: int = 0
    """In how many of the rows that are on both sides the value differs; 0 where rows have no key."""

    @property
    def is_same(self) -> bool:
        """Whether type and values are as they were."""
        return self.before == self.after and not self.changed


@dataclass(frozen=True, slots=True)
class TableDifference:
    """What differs. Numbers are of rows."""

    before: int
    after: int
    added: int
    removed: int
    changed: int
    """On both sides, with another value in a column that both have; 0 where rows have no key."""
    columns: tuple[ColumnDifference, ...]
    """Of both sides, in the order of the later one, then those that are gone."""
    key: tuple[str, ...]
    """What rows were matched by; empty: by all that they have in common."""

    @property
    def is_same(self) -> bool:
        """Whether nothing differs: neither rows nor columns."""
        return not (self.added or self.removed or self.changed) and all(each.is_same for each in self.columns)


_HAS_EQUALITY = """
with recursive base as (
    select a.attname as name, t.oid, t.typcategory, t.typelem, t.typbasetype
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    union all
    select base.name, t.oid, t.typcategory, t.typelem, t.typbasetype
    from base join pg_catalog.pg_type t
        on t.oid = case when base.typcategory = 'A' then base.typelem else nullif(base.typbasetype, 0) end
)
select name
from base
group by name
having bool_and(
    typcategory in ('A', 'B', 'D', 'E', 'I', 'N', 'R', 'S', 'T', 'V')
    or exists (
        select from pg_catalog.pg_opclass c join pg_catalog.pg_am m on m.oid = c.opcmethod
        where m.amname in ('btree', 'hash') and c.opcdefault and c.opcintype = base.oid
    )
)
"""
"""Columns whose values can be told apart as what they are; arrays and domains by what they are made of. The others
(json, xml, points) are compared as text: of geometric types `=` compares areas."""


def compare(
    url: URL, before: Relation, after: Relation, *, key: Sequence[str] = (), seconds: float = 300.0
) -> TableDifference:
    """Compare two tables or views.

    Columns of one name are compared as what they are if their types are the same, as numbers if both are, else as text.

    Args:
        url: the warehouse, as a role that may read both.
        key: the columns that tell rows apart. A table in which they do not is compared by whole rows.
        seconds: how long the warehouse may take over one statement.

    Raises:
        ConfigurationError: there is no such table, or the role may not read it.
        DataError: it took longer than that.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with connect(url, "compare", autocommit=True) as connection, translated_errors():
        connection.execute(sql.SQL("set statement_timeout = {}").format(sql.Literal(f"{seconds * 1000:.0f}ms")))
        try:
            # One instant for all of it: loads go on meanwhile.
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                return _compare(connection, before, after, tuple(key))
        except psycopg.errors.QueryCanceled as error:
            raise DataError(
                f"{after} and {before} were not compared: it took longer than {seconds:g} s.",
                remedy="Give it more time, or compare a selection of the models.",
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"{after} and {before} were not compared: {error}", remedy="Compare as the role that dbt runs as."
            ) from error


def _compare(
    connection: psycopg.Connection, before: Relation, after: Relation, key: tuple[str, ...]
) -> TableDifference:
    types = [column_types(connection, each.schema, each.name) for each in (before, after)]
    for relation, found in zip((before, after), types, strict=True):
        if not found:
            raise ConfigurationError(f"There is no table {relation}.", remedy="Build it first, or correct its name.")
    then, now = types
    both = [name for name in now if name in then]
    comparable = {
        relation: {name for (name,) in connection.execute(_HAS_EQUALITY, [relation.quoted.as_string(connection)])}
        for relation in (before, after)
    }

    def value(side: str, name: str) -> sql.Composable:
        column = sql.Identifier(side, name)
        if then[name] == now[name]:
            is_plain = name in comparable[before] & comparable[after]
            return column if is_plain else sql.SQL("{}::text").format(column)
        return sql.SQL("{}::numeric" if _are_numbers(then[name], now[name]) else "{}::text").format(column)

    if (
        key
        and all(name in both for name in key)
        and all(_is_told_by(connection, each, key) for each in (before, after))
    ):
        counts, changed = _by_key(connection, before, after, key, [name for name in both if name not in key], value)
    else:
        key = ()
        counts, changed = _by_row(connection, before, after, both, value), {}
    columns = tuple(
        ColumnDifference(name, then.get(name), now.get(name), changed.get(name, 0)) for name in {**now, **then}
    )
    rows_before, rows_after, added, removed, differing = counts
    return TableDifference(rows_before, rows_after, added, removed, differing, columns, key)


def _are_numbers(*types: str) -> bool:
    names = ("smallint", "integer", "bigint", "numeric")  # not floats: the nearest decimal of one is not the number
    return all(each.partition("(")[0] in names for each in types)


def _is_told_by(connection: psycopg.Connection, relation: Relation, key: tuple[str, ...]) -> bool:
    """Whether each row has a key, and no two the same."""
    columns = sql.SQL(", ").join(map(sql.Identifier, key))
    missing = sql.SQL(" or ").join(sql.SQL("{} is null").format(sql.Identifier(name)) for name in key)
    row = connection.execute(
        sql.SQL(
            "select not exists (select from {relation} where {missing})"
            " and not exists (select from {relation} group by {columns} having count(*) > 1)"
        ).format(relation=relation.quoted, missing=missing, columns=columns)
    ).fetchone()
    return bool(row and row[0])


def _by_key(
    connection: psycopg.Connection,
    before: Relation,
    after: Relation,
    key: tuple[str, ...],
    others: Sequence[str],
    value: _Value,
) -> tuple[tuple[int, ...], dict[str, int]]:
    differs = [
        sql.SQL("{} is distinct from {}").format(value("earlier", name), value("later", name)) for name in others
    ]
    matched = sql.SQL("earlier.{0} is not null and later.{0} is not null").format(sql.Identifier(key[0]))
    both = sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(value("earlier", name), value("later", name)) for name in key
    )
    counts = [
        sql.SQL("count(earlier.{})").format(sql.Identifier(key[0])),
        sql.SQL("count(later.{})").format(sql.Identifier(key[0])),
        sql.SQL("count(*) filter (where earlier.{} is null)").format(sql.Identifier(key[0])),
        sql.SQL("count(*) filter (where later.{} is null)").format(sql.Identifier(key[0])),
        sql.SQL("count(*) filter (where {} and ({}))").format(
            matched, sql.SQL(" or ").join(differs) if differs else sql.SQL("false")
        ),
        *(sql.SQL("count(*) filter (where {} and {})").format(matched, each) for each in differs),
    ]
    row = connection.execute(
        sql.SQL("select {} from {} as earlier full join {} as later on {}").format(
            sql.SQL(", ").join(counts), before.quoted, after.quoted, both
        )
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return row[:5], dict(zip(others, row[5:], strict=True))


def _by_row(
    connection: psycopg.Connection, before: Relation, after: Relation, both: Sequence[str], value: _Value
) -> tuple[int, ...]:
    def hashed(side: str, relation: Relation) -> sql.Composable:
        values = sql.SQL(", ").join(value(side, name) for name in both)
        return sql.SQL("(select md5(row({})::text) as mark, count(*) as times from {} as {} group by 1)").format(
            values, relation.quoted, sql.Identifier(side)
        )

    row = connection.execute(
        sql.SQL(
            "select coalesce(sum(t.times), 0)::bigint, coalesce(sum(n.times), 0)::bigint,"
            " coalesce(sum(greatest(coalesce(n.times, 0) - coalesce(t.times, 0), 0)), 0)::bigint,"
            " coalesce(sum(greatest(coalesce(t.times, 0) - coalesce(n.times, 0), 0)), 0)::bigint, 0::bigint"
            " from {} as t full join {} as n on n.mark = t.mark"
        ).format(hashed("earlier", before), hashed("later", after))
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return row
