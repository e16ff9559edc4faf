"""Forgetting, behind raw: tables of models that keep rows, what is served, what a rollback would bring back, and the
rows that tests failed on.

A model that keeps rows says by which of its columns they are told (`meta: forget` in its yml), and they are deleted
there. One that each build makes anew loses them with the next build; until then the request stays open, and afterwards
the generations that a rollback could go back to are given up, as they have rows that nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import column_types, connect
from connectors.destinations.warehouse.copies import PUBLISHED, UNDO, published_key
from connectors.destinations.warehouse.forget_requests import Request
from connectors.destinations.warehouse.forgotten import ForgottenKeys, note_place
from connectors.destinations.warehouse.generations import LOCK, forget_generations
from connectors.destinations.warehouse.ledger import Lease
from connectors.errors import ConfigurationError
from connectors.failpoints import reach

_CHANGES = "changes"
_DECLARE = (
    "Say in its yml by which columns its rows are told, `meta: {forget: {source: SOURCE.STREAM, key: {id: person_id}}}`"
    ", or, where a build takes them out by itself, why: `meta: {forget: {source: SOURCE.STREAM, build: …}}`."
)


@dataclass(frozen=True, slots=True)
class Derived:
    """A table that was made of a stream, directly or through others."""

    name: str
    schema: str
    keeps_rows: bool
    """Whether a build changes it rather than making it anew: an incremental model, a snapshot."""
    key: Mapping[str, str] | None = None
    """Its column by raw's; None if it does not say."""
    by_build: str | None = None
    """Why a build takes rows out by itself, though it keeps others."""
    group: str | None = None
    """Of a mart: the marts that are published together with it."""

    @property
    def is_rebuilt(self) -> bool:
        return self.key is None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What was made of a stream."""

    stream: str
    tables: tuple[Derived, ...] = ()
    failures: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Schema and name of the tables with rows that tests failed on."""

    def check(self, columns: Sequence[str]) -> None:
        """Refuse what cannot be reached.

        Args:
            columns: of raw, that the rows are told by.

        Raises:
            ConfigurationError: a table keeps rows and does not say by which columns they are told.
        """
        unreached = [
            each.name
            for each in self.tables
            if (each.key is None and each.keeps_rows and each.by_build is None)
            or (each.key is not None and not set(columns) <= each.key.keys())
        ]
        if unreached:
            raise ConfigurationError(
                f"Rows of {self.stream} are kept where they cannot be reached: nothing says how they are told by"
                f" {', '.join(columns)} in {', '.join(f'`{name}`' for name in unreached)}. Nothing was erased.",
                remedy=_DECLARE.replace("SOURCE.STREAM", self.stream),
            )


class DerivedRows:
    """The rows of one request in what was made of its stream.

    Args:
        keys: None if none of them is to be forgotten any more.
        request: None to only look.
        wait_seconds: how long to wait for a build.
    """

    def __init__(
        self,
        transformer: URL,
        publisher: URL,
        lineage: Lineage,
        keys: ForgottenKeys | None,
        request: Request | None,
        wait_seconds: float,
        run: str,
    ) -> None:
        self._transformer = transformer
        self._publisher = publisher
        self._lineage = lineage
        self._keys = keys
        self._request = request
        self._wait_seconds = wait_seconds
        self._run = run

    def forget(self, note: Callable[[], None]) -> None:
        """Delete the rows wherever they are told by columns.

        Args:
            note: called while no build is under way.

        Raises:
            StreamBusyError: a build took too long.
        """
        with (
            Lease(self._transformer, "dbt", "transform", self._run, wait_seconds=self._wait_seconds),
            connect(self._transformer, self._run, autocommit=True) as connection,
        ):
            self._forget_models(connection)
            reach("kept-rows-erased")
            self._forget_failures(connection)
            # Serving before the next build: it would find nothing to take back, and so nothing to keep for a rollback.
            self._forget_served()
            note()

    def count(self) -> dict[str, int]:
        """How many rows `forget` would delete, by table."""
        places: dict[str, int] = {}
        with connect(self._transformer, self._run, autocommit=True) as connection:
            for each in self._lineage.tables:
                for schema in self._schemas(connection, each):
                    places[f"{schema}.{each.name}"] = self._count(connection, schema, each.name, each)
            for schema, name in self._lineage.failures:
                if column_types(connection, schema, name):
                    places[f"{schema}.{name}"] = _rows(connection, schema, name)
        with connect(self._publisher, self._run, autocommit=True) as connection:
            for each in self._marts():
                for schema, name in ((PUBLISHED, each.name), *((UNDO, name) for name in _undo(connection, each.name))):
                    place = f"{schema}.{each.name}"
                    places[place] = places.get(place, 0) + self._count(connection, schema, name, each)
        return places

    def rebuilt_tables(self) -> list[str]:
        """The tables that lose the rows with a build."""
        with connect(self._transformer, self._run, autocommit=True) as connection:
            return [
                f"{each.schema}.{each.name}"
                for each in self._lineage.tables
                if each.is_rebuilt and column_types(connection, each.schema, each.name)
            ]

    def waiting(self) -> list[str]:
        """Those of them that no build has made, or that nobody has published, since the rows were deleted in raw."""
        tables = self.rebuilt_tables()
        if not tables or self._request is None:
            return []
        with connect(self._publisher, self._run, autocommit=True) as connection:
            published = connection.execute(
                "select m.mart from ops.serving_marts m join ops.publishes p using (generation)"
                " join ops.forget_requests r on r.request_id = %s where p.published_at > r.derived_at",
                [self._request.request_id],
            ).fetchall()
        fresh = {mart for (mart,) in published}
        if not fresh:
            return tables
        marts = {each.name: each for each in self._lineage.tables if each.group is not None}
        return [table for table in tables if (name := table.partition(".")[2]) in marts and name not in fresh]

    def forget_generations(self) -> None:
        """Give up what later generations have replaced of marts whose rows nobody can tell: a rollback would bring them
        back. Once they are built and published anew."""
        groups = sorted({each.group for each in self._lineage.tables if each.group is not None and each.is_rebuilt})
        if not groups or self._request is None:
            return
        with self._publishing() as connection, connection.transaction():
            for group in groups:
                forget_generations(connection, group)

    def remarks(self) -> list[str]:
        """What is to be said to whoever wants the rows gone: which schemas of developers have such tables too."""
        schemas = {each.schema for each in self._lineage.tables}
        with connect(self._transformer, self._run, autocommit=True) as connection:
            rows = connection.execute(
                "select distinct n.nspname from pg_namespace n join pg_class c on c.relnamespace = n.oid"
                " where c.relkind in ('r', 'm') and c.relname = any(%s) and exists"
                " (select from unnest(%s::text[]) s where n.nspname like '%%\\_' || replace(s, '_', '\\_'))",
                [[each.name for each in self._lineage.tables if each.is_rebuilt], sorted(schemas)],
            ).fetchall()
        return [
            f"The schema {schema} has tables of its own that were made of the stream: build it again, or drop it."
            for (schema,) in rows
        ]

    def _forget_models(self, connection: psycopg.Connection) -> None:
        for each in self._lineage.tables:
            for (name,) in _left_by_dbt(connection, each):
                connection.execute(sql.SQL("drop table if exists {} cascade").format(sql.Identifier(each.schema, name)))
            for schema in self._schemas(connection, each):
                types = column_types(connection, schema, each.name)
                condition = self._condition(types, each)
                table = sql.Identifier(schema, each.name)
                with connection.transaction():
                    rows = connection.execute(sql.SQL("delete from {} where {}").format(table, condition)).rowcount
                    self._forget_notes(connection, table, each)
                    self._note(connection, f"{schema}.{each.name}", rows)
                connection.execute(sql.SQL("vacuum {}").format(table))

    def _forget_notes(self, connection: psycopg.Connection, table: sql.Identifier, each: Derived) -> None:
        """Keys that were noted for the next publish. Where they are others, it is to compare all rows instead."""
        row = connection.execute("select to_regclass(%s)::oid::text", [table.as_string(connection)]).fetchone()
        types = column_types(connection, _CHANGES, str(row[0])) if row else {}
        if not types or self._keys is None:
            return
        notes = sql.Identifier(_CHANGES, str(row[0] if row else ""))
        condition = self._keys.condition(types, types, each.key)
        statement = sql.SQL("truncate {}").format(notes)
        if condition is not None:
            statement = sql.SQL("delete from {} where {}").format(notes, condition)
        connection.execute(statement)

    def _forget_failures(self, connection: psycopg.Connection) -> None:
        """Rows that tests failed on have the columns that a test gives them: their tables go whole."""
        for schema, name in self._lineage.failures:
            if column_types(connection, schema, name):
                with connection.transaction():
                    self._note(connection, f"{schema}.{name}", _rows(connection, schema, name))
                    connection.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, name)))

    def _forget_served(self) -> None:
        with self._publishing() as connection:
            for each in self._marts():
                with connection.transaction():
                    self._forget_mart(connection, each)
                reach("mart-erased")
                if column_types(connection, PUBLISHED, each.name):
                    connection.execute(sql.SQL("vacuum {}").format(sql.Identifier(PUBLISHED, each.name)))

    def _forget_mart(self, connection: psycopg.Connection, each: Derived) -> None:
        """Delete from what is served, and from what a rollback would bring back: there, by the mart's own key too."""
        undo = _undo(connection, each.name)
        own_key = published_key(connection, each.name)
        doomed = [
            key
            for schema, name in ((PUBLISHED, each.name), *((UNDO, name) for name in undo))
            for key in self._own_keys(connection, schema, name, own_key, each)
        ]
        for name, generation in undo.items():
            types = column_types(connection, UNDO, name)
            if (
                self._keys is None
                or self._keys.condition(types, types, each.key) is None
                or not set(own_key) <= types.keys()
            ):
                forget_generations(
                    connection, each.group or "", sql.SQL("generation = {}").format(generation).as_string()
                )
                continue
            rows = connection.execute(
                sql.SQL("delete from {} where {} or row({})::text = any(%s)").format(
                    sql.Identifier(UNDO, name), self._condition(types, each), _names(own_key)
                ),
                [doomed],
            ).rowcount
            connection.execute(
                "update ops.published_marts set undo_rows = greatest(undo_rows - %s, 0) where undo_table = %s",
                [rows, name],
            )
            self._note(connection, f"undo.{each.name}", rows)
        types = column_types(connection, PUBLISHED, each.name)
        if (condition := self._keys.condition(types, types, each.key) if self._keys else None) is not None:
            rows = connection.execute(
                sql.SQL("delete from {} where {}").format(sql.Identifier(PUBLISHED, each.name), condition)
            ).rowcount
            connection.execute("update ops.serving_marts set rows = rows - %s where mart = %s", [rows, each.name])
            self._note(connection, f"published.{each.name}", rows)

    def _own_keys(
        self, connection: psycopg.Connection, schema: str, name: str, own_key: Sequence[str], each: Derived
    ) -> list[str]:
        types = column_types(connection, schema, name)
        condition = self._keys.condition(types, types, each.key) if self._keys else None
        if condition is None or not own_key or not set(own_key) <= types.keys():
            return []
        rows = connection.execute(
            sql.SQL("select distinct row({})::text from {} where {}").format(
                _names(own_key), sql.Identifier(schema, name), condition
            )
        )
        return [key for (key,) in rows]

    def _marts(self) -> list[Derived]:
        return [each for each in self._lineage.tables if each.group is not None and each.key is not None]

    def _schemas(self, connection: psycopg.Connection, each: Derived) -> list[str]:
        """Where a table is whose rows are told by columns: in its schema, and in those of developers."""
        if each.key is None:
            return []
        rows = connection.execute(
            "select n.nspname from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = %s"
            " where c.relkind = 'r' and pg_get_userbyid(c.relowner) = current_user"
            " and (n.nspname = %s or n.nspname like '%%\\_' || replace(%s, '_', '\\_')) order by n.nspname <> %s, 1",
            [each.name, each.schema, each.schema, each.schema],
        ).fetchall()
        return [schema for (schema,) in rows]

    def _condition(self, types: Mapping[str, str], each: Derived) -> sql.Composed:
        """The condition of the rows.

        Raises:
            ConfigurationError: the table has no such columns.
        """
        condition = self._keys.condition(types, types, each.key) if self._keys is not None else None
        if condition is None:
            raise ConfigurationError(
                f"The table `{each.name}` lacks a column that its yml names in `meta: forget`.",
                remedy="Correct it there, then run `headwater forget --resume`.",
            )
        return condition

    def _count(self, connection: psycopg.Connection, schema: str, name: str, each: Derived) -> int:
        types = column_types(connection, schema, name)
        condition = self._keys.condition(types, types, each.key) if self._keys is not None else None
        return 0 if condition is None else _rows(connection, schema, name, condition)

    def _note(self, connection: psycopg.Connection, place: str, rows: int) -> None:
        if self._request is not None:
            note_place(connection, self._request.request_id, place, rows)

    @contextmanager
    def _publishing(self) -> Iterator[psycopg.Connection]:
        """A connection that no publish is beside."""
        with connect(self._publisher, self._run, autocommit=True) as connection:
            connection.execute(LOCK)
            yield connection


def _left_by_dbt(connection: psycopg.Connection, each: Derived) -> list[tuple[str]]:
    """What a build that was killed has left half made, while none is under way."""
    return connection.execute(
        "select relname from pg_class where relnamespace = to_regnamespace(%s) and relkind = 'r'"
        " and pg_get_userbyid(relowner) = current_user and starts_with(relname, %s || '__dbt_')",
        [sql.Identifier(each.schema).as_string(connection), each.name],
    ).fetchall()


def _undo(connection: psycopg.Connection, mart: str) -> dict[str, int]:
    """The tables with what each generation has replaced of a mart."""
    return dict(
        connection.execute(
            "select undo_table, generation from ops.published_marts where mart = %s and undo_table is not null", [mart]
        ).fetchall()
    )


def _rows(connection: psycopg.Connection, schema: str, name: str, condition: sql.Composable | None = None) -> int:
    row = connection.execute(
        sql.SQL("select count(*) from {} where {}").format(sql.Identifier(schema, name), condition or sql.SQL("true"))
    ).fetchone()
    return int(row[0]) if row else 0


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
