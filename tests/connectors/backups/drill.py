"""A warehouse that is backed up, lost, and made anew: what the tests of backups share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from psycopg import sql
from sqlalchemy.engine import URL

from connectors.backups.backup import back_up
from connectors.backups.parts import Part
from connectors.backups.restore import RestoreReport, restore
from connectors.backups.store import Backup, BackupStore
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.forget.derived import Lineage
from connectors.ingest import Destination, ingest
from connectors.model import Source
from tests.conftest import Api, Warehouse
from tests.connectors.forget.forgetting import MODELS

ROLES = ("loader", "transformer", "publisher", "watcher", "reader")


class Drill:
    """A warehouse, its landing and its backups; the sources are given.

    Args:
        api: where sources that are APIs are.
    """

    def __init__(self, warehouse: Warehouse, folder: Path, api: Api, *sources: Source) -> None:
        self.warehouse = warehouse
        self.sources = sources
        self.landing = folder / "landing"
        self.backups = folder / "backups"
        self.store = BackupStore(StoreLocation(self.backups.as_uri()))
        self.environment = {
            "HEADWATER_SHOP_URL": api.url,
            "HEADWATER_SHOP_KEY": "sesame",
            "HEADWATER_LANDING_URL": self.landing.as_uri(),
            "HEADWATER_BACKUPS_URL": self.backups.as_uri(),
            **{f"HEADWATER_WAREHOUSE_{role.upper()}_URL": url_of(warehouse, role) for role in ("owner", *ROLES)},
        }
        self.connections = EnvironmentConnections(self.environment)
        self.destination = Destination(warehouse.url("loader"), Landing(StoreLocation(self.landing.as_uri())))

    def load(self, **options: Any) -> list[LoadReport]:
        """All streams, as a run of each."""
        return [
            report
            for source in self.sources
            for stream in source.streams
            for report in ingest(source, stream, self.connections, self.destination, **options)
        ]

    def back_up(self, **options: Any) -> Backup:
        return back_up(self.connections, self.store, **options)

    def scratch(self) -> dict[Part, URL]:
        """An empty database beside it; it goes with the warehouse's server."""
        name = f"{self.warehouse.database}_check"
        with self.warehouse.server.connect() as connection:
            if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
                self.warehouse.server.create_database(name, owner="headwater_owner")
        return {part: self.connections.database(part.owner).set(database=name) for part in Part}

    def lose(self) -> None:
        """Nothing is left of the warehouse; there is an empty database, as docs/roles.md makes it."""
        name = self.warehouse.database
        self.warehouse.server.drop_database(name)
        self.warehouse.server.create_database(name, owner="headwater_owner")
        with self.warehouse.server.connect() as connection:
            connection.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("grant connect on database {} to {}").format(
                    sql.Identifier(name), sql.SQL(", ").join(sql.Identifier(f"headwater_{role}") for role in ROLES)
                )
            )

    def restore(self, backup: Backup | None = None, **options: Any) -> RestoreReport:
        options.setdefault("lineages", lineages)
        return restore(
            backup or self.store.named(None),
            self.store,
            self.connections,
            self.destination,
            self.sources,
            by="a test",
            log=logging.getLogger("drill"),
            **options,
        )

    def state(self, *, but: Iterable[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables and what is served, to the byte; and all views, grants, indexes and comments.

        Args:
            but: columns that are left out.
        """
        names = self.warehouse.query(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname !~ '^(pg_|information|changes|loading|restoring)' and c.relkind in ('r', 'v')"
        )
        left_out = "{" + ",".join(but) + "}"
        found = {
            name: self.warehouse.query(f"select to_jsonb(t) - %s::text[] from {name} t order by 1", [left_out])
            for (name,) in names
            if name not in ("ops.backups", "ops.restores", "ops.streams", "ops.alert_channels")
        }
        for what, query in CATALOG.items():
            found[what] = self.warehouse.query(query)
        return found


CATALOG: Mapping[str, str] = {
    "relations": """
        select n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relacl::text,
               obj_description(c.oid), pg_get_viewdef(c.oid)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname !~ '^(pg_|information|changes|loading|restoring)' order by 1, 2
    """,
    "columns": """
        select attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attidentity::text,
               col_description(attrelid, attnum)
        from pg_attribute a join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname !~ '^(pg_|information|changes|loading|restoring)' and attnum > 0 and not attisdropped
        order by 1, attnum
    """,
    "constraints": "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
    " where connamespace::regnamespace::text !~ '^(pg_|information|restoring)' order by 1, 2",
    "schemas": "select nspname, pg_get_userbyid(nspowner), nspacl::text from pg_namespace"
    " where nspname !~ '^(pg_|information)' order by 1",
    "default privileges": "select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype::text,"
    " defaclacl::text from pg_default_acl order by 1, 2, 3",
    "functions": "select oid::regprocedure::text, proacl::text, prosrc from pg_proc"
    " where pronamespace::regnamespace::text !~ '^(pg_|information)' order by 1",
}


def lineages(names: Iterable[str]) -> Mapping[str, Lineage]:
    """Nothing but the models of `tests.connectors.forget.forgetting` reads a stream."""
    return {name: MODELS if name == MODELS.stream else Lineage(name) for name in names}


def url_of(warehouse: Warehouse, role: str) -> str:
    """With its password."""
    return warehouse.url(role).render_as_string(hide_password=False)
