"""Publishing: what dbt built and tested becomes what BI reads, in one transaction.

dbt builds in `marts`, where nobody reads. `published` holds a copy of each mart, brought up to date row by row: only
rows that differ are written, and readers, who see `serving` (views over `published`), are never blocked and never see
half of it. dbt dropping and rebuilding its tables cannot touch either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import column_types, connect, translated_errors
from connectors.errors import ConfigurationError, DataError

_PUBLISHED, _SERVING = "published", "serving"
_READER = "headwater_reader"
_MARKER = "Published by Headwater"

DATA_STATUS = "data_status"
"""The view in `serving` that says how old each mart is."""


@dataclass(frozen=True, slots=True)
class Mart:
    """A table that dbt has built and that passed its tests."""

    name: str
    schema: str
    key: tuple[str, ...]
    description: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Description by column."""


@dataclass(frozen=True, slots=True)
class MartReport:
    """What publishing a mart changed, in rows."""

    name: str
    inserted: int
    updated: int
    deleted: int
    total: int

    @property
    def moved(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class PublishReport:
    """A new generation of the serving schema."""

    generation: int
    marts: tuple[MartReport, ...]


def grant_to_publisher(transformer: URL, schemas: Sequence[str]) -> None:
    """Let the publisher read what dbt built. dbt makes tables anew, and a new table has no grants.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(transformer, "grant") as connection:
        for schema in schemas:
            name = sql.Identifier(schema)
            connection.execute(sql.SQL("grant usage on schema {} to headwater_publisher").format(name))
            connection.execute(sql.SQL("grant select on all tables in schema {} to headwater_publisher").format(name))


def publish(publisher: URL, marts: Sequence[Mart], *, invocation_id: str, run: str | None = None) -> PublishReport:
    """Show readers the marts as they are now, all together; marts that are no longer given are taken away.

    Args:
        invocation_id: the dbt invocation that built and tested them.

    Raises:
        ConfigurationError: a mart has no key, or is not there.
        DataError: a mart's key is not unique or null; nothing was published.
        DestinationUnavailableError: the warehouse does not answer.
    """
    for mart in marts:
        if not mart.key:
            raise ConfigurationError(
                f"The mart `{mart.name}` has no primary key.",
                remedy="Give it a constraint `type: primary_key` with its columns in its yml.",
            )
    with translated_errors(), connect(publisher, "publish", autocommit=True) as connection:
        # Before the transaction, whose snapshot would otherwise be older than what the one before has published. The
        # lock goes with the session.
        connection.execute("select pg_advisory_lock(hashtextextended('headwater.publish', 0))")
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            row = connection.execute("select coalesce(max(generation), 0) + 1 from ops.publishes").fetchone()
            generation = int(row[0]) if row else 1
            connection.execute(
                "insert into ops.publishes (generation, invocation_id, run_id) values (%s, %s, %s)",
                [generation, invocation_id, run],
            )
            reports = tuple(_publish_mart(connection, mart, generation) for mart in marts)
            _take_away(connection, {mart.name for mart in marts})
            _create_data_status(connection)
    return PublishReport(generation, reports)


def _publish_mart(connection: psycopg.Connection, mart: Mart, generation: int) -> MartReport:
    source = sql.Identifier(mart.schema, mart.name)
    target = sql.Identifier(_PUBLISHED, mart.name)
    columns = column_types(connection, mart.schema, mart.name)
    if not columns:
        raise ConfigurationError(
            f"There is no mart {mart.schema}.{mart.name} that the publisher may read.",
            remedy="Run the transform first: `prefect deployment run 'transform/nyc'`.",
        )
    if column_types(connection, _PUBLISHED, mart.name) != columns:
        _create_published(connection, mart, columns)
    _check_key(connection, mart, source)
    counts = _synchronise(connection, source, target, mart.key, list(columns))
    _create_view(connection, mart, list(columns))
    total = connection.execute(sql.SQL("select count(*) from {}").format(target)).fetchone()
    report = MartReport(mart.name, *counts, total[0] if total else 0)
    connection.execute(
        "insert into ops.published_marts (generation, mart, rows_inserted, rows_updated, rows_deleted, rows_total)"
        " values (%s, %s, %s, %s, %s, %s)",
        [generation, mart.name, report.inserted, report.updated, report.deleted, report.total],
    )
    return report


def _check_key(connection: psycopg.Connection, mart: Mart, source: sql.Identifier) -> None:
    """Refuse a mart whose key does not tell its rows apart: a test of it may be missing in the project."""
    key = sql.SQL(", ").join(map(sql.Identifier, mart.key))
    row = connection.execute(
        sql.SQL("select {key} from {source} group by {key} having count(*) > 1 or num_nulls({key}) > 0 limit 1").format(
            key=key, source=source
        )
    ).fetchone()
    if row is not None:
        raise DataError(
            f"The key ({', '.join(mart.key)}) of the mart `{mart.name}` is not unique, or null: see {row}.",
            remedy="Correct the model, and give it a test of its key; nothing was published.",
        )


def _create_published(connection: psycopg.Connection, mart: Mart, columns: Mapping[str, str]) -> None:
    """Make the copy anew, in the mart's shape of today. Readers keep the old one until the transaction ends."""
    target = sql.Identifier(_PUBLISHED, mart.name)
    connection.execute(sql.SQL("drop view if exists {}").format(sql.Identifier(_SERVING, mart.name)))
    connection.execute(sql.SQL("drop table if exists {}").format(target))
    definitions = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
    connection.execute(
        sql.SQL("create table {} ({}, primary key ({}))").format(
            target, sql.SQL(", ").join(definitions), sql.SQL(", ").join(map(sql.Identifier, mart.key))
        )
    )


def _synchronise(
    connection: psycopg.Connection,
    source: sql.Identifier,
    target: sql.Identifier,
    key: Sequence[str],
    columns: Sequence[str],
) -> tuple[int, int, int]:
    """Make target equal to source, writing only rows that differ: inserted, updated, deleted."""
    same = sql.SQL(" and ").join(sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in key)
    deleted = connection.execute(
        sql.SQL("delete from {target} t where not exists (select from {source} s where {same})").format(
            target=target, source=source, same=same
        )
    ).rowcount
    others = [name for name in columns if name not in key]
    # As they are stored, not by `=`: see the merge into raw.
    differs = sql.SQL("pg_catalog.record_image_ne(row({}), row({}))").format(
        sql.SQL(", ").join(sql.Identifier("s", name) for name in others),
        sql.SQL(", ").join(sql.Identifier("t", name) for name in others),
    )
    updated = 0
    if others:
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("s", name)) for name in others
        )
        updated = connection.execute(
            sql.SQL("update {target} t set {assignments} from {source} s where {same} and {differs}").format(
                target=target, assignments=assignments, source=source, same=same, differs=differs
            )
        ).rowcount
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    inserted = connection.execute(
        sql.SQL(
            "insert into {target} ({names}) select {names} from {source} s"
            " where not exists (select from {target} t where {same})"
        ).format(target=target, names=names, source=source, same=same)
    ).rowcount
    return inserted, updated, deleted


def _create_view(connection: psycopg.Connection, mart: Mart, columns: Sequence[str]) -> None:
    """The view, the grant and the comments; left alone where they are as they should be, for they lock readers out."""
    view = sql.Identifier(_SERVING, mart.name)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    if list(column_types(connection, _SERVING, mart.name)) != list(columns):
        connection.execute(sql.SQL("drop view if exists {}").format(view))
        connection.execute(
            sql.SQL("create view {} as select {} from {}").format(view, names, sql.Identifier(_PUBLISHED, mart.name))
        )
        connection.execute(sql.SQL("grant select on {} to {}").format(view, sql.Identifier(_READER)))
    existing: dict[int, str] = dict(
        connection.execute(
            "select attnum, description from pg_catalog.pg_attribute a join pg_catalog.pg_description d"
            " on d.objoid = a.attrelid and d.objsubid = a.attnum where a.attrelid = %s::regclass",
            [view.as_string(connection)],
        ).fetchall()
    )
    for number, name in enumerate(columns, 1):
        if (text := mart.columns.get(name, "")) and existing.get(number) != text:
            connection.execute(
                sql.SQL("comment on column {} is {}").format(
                    sql.Identifier(_SERVING, mart.name, name), sql.Literal(text)
                )
            )
    comment = f"{mart.description.strip()}\n{_MARKER}.".strip()
    row = connection.execute(
        "select obj_description(%s::regclass, 'pg_class')", [view.as_string(connection)]
    ).fetchone()
    if row is None or row[0] != comment:
        connection.execute(sql.SQL("comment on view {} is {}").format(view, sql.Literal(comment)))


def _take_away(connection: psycopg.Connection, kept: set[str]) -> None:
    """Drop the marts that the project no longer has, so that nobody reads a table that nothing updates."""
    rows = connection.execute("select tablename from pg_tables where schemaname = %s", [_PUBLISHED]).fetchall()
    for (name,) in rows:
        if name not in kept:
            connection.execute(sql.SQL("drop view if exists {}").format(sql.Identifier(_SERVING, name)))
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(_PUBLISHED, name)))


def _create_data_status(connection: psycopg.Connection) -> None:
    if column_types(connection, _SERVING, DATA_STATUS):
        return
    view = sql.Identifier(_SERVING, DATA_STATUS)
    connection.execute(
        sql.SQL(
            """
            create view {} as
            select m.mart, p.generation, p.published_at, m.rows_total as rows
            from ops.published_marts m
            join ops.publishes p using (generation)
            where generation = (select max(generation) from ops.publishes)
            """
        ).format(view)
    )
    connection.execute(sql.SQL("grant select on {} to {}").format(view, sql.Identifier(_READER)))
    connection.execute(
        sql.SQL("comment on view {} is 'For each mart: the generation served, when it was published, and its rows'")
        .format(view)
    )  # fmt: skip
