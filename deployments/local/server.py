"""A running PostgreSQL server and what its superuser does there: roles, databases, extensions. All idempotent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from deployments.local.ports import LOOPBACK

_ROLE_FLAGS = frozenset({"superuser", "createdb", "createrole", "replication", "bypassrls", "login", "inherit"})


def database_url(port: int, database: str, role: str, password: str, *, driver: str = "psycopg") -> str:
    """The SQLAlchemy URL of a local database, for one role. Passwords made by `Secrets` need no escaping."""
    return f"postgresql+{driver}://{role}:{password}@{LOOPBACK}:{port}/{database}"


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """Where a running server is, and its superuser."""

    host: str
    port: int
    superuser: str
    password: str = field(repr=False)
    data: Path
    pid: int
    started_at: datetime

    def connect(
        self, database: str = "postgres", *, role: str | None = None, password: str | None = None
    ) -> psycopg.Connection:
        """A connection in autocommit, as the superuser unless a role and its password are given."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user=role or self.superuser,
            password=password or self.password,
            connect_timeout=10,
            # Said, because variables such as PGSSLMODE or PGOPTIONS of the user's shell would otherwise have a say.
            sslmode="disable",
            options="",
            application_name="headwater local stack",
            autocommit=True,
        )

    def ensure_role(self, name: str, password: str, **flags: bool) -> None:
        """Create the role if need be; set its password and flags (`createdb=True`). By default it may log in."""
        if unknown := flags.keys() - _ROLE_FLAGS:
            known = ", ".join(sorted(_ROLE_FLAGS))
            raise ValueError(f"Role `{name}`: unknown flag {', '.join(sorted(unknown))}. Known are: {known}.")
        wanted = {"login": True, "superuser": False, **flags}
        options = [sql.SQL(flag if is_on else f"no{flag}") for flag, is_on in wanted.items()]
        role = sql.Identifier(name)
        with self.connect() as connection:
            if not _exists(connection, "select from pg_roles where rolname = %s", name):
                connection.execute(sql.SQL("create role {}").format(role))
            # Encrypted on this side, because the server logs the text of a statement that fails.
            secret = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(
                sql.SQL("alter role {} {} password {}").format(role, sql.SQL(" ").join(options), sql.Literal(secret))
            )

    def ensure_looker(self, name: str, password: str) -> None:
        """Make a role that may read settings in the database `postgres`; all others who are not let in by name lose
        what PostgreSQL gives everybody in the databases that it makes itself."""
        self.ensure_role(name, password)
        role = sql.Identifier(name)
        with self.connect() as connection:
            connection.execute(sql.SQL("grant pg_read_all_settings to {}").format(role))
            connection.execute("revoke all on database postgres, template1 from public")
            connection.execute(sql.SQL("grant connect on database postgres to {}").format(role))

    def let_set(self, parameter: str, role: str) -> None:
        """Let a role set a parameter of our own for a database that it owns."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("grant set on parameter {} to {}").format(sql.Identifier(parameter), sql.Identifier(role))
            )

    def ensure_database(
        self, name: str, owner: str, *, connect: Iterable[str] = (), create: Iterable[str] = ()
    ) -> None:
        """Create the database if need be, and settle who may enter it.

        Its owner may do anything; roles in `connect` may connect; roles in `create` may also make schemas. PUBLIC
        loses every right on it.
        """
        creating = set(create) | {owner}
        connecting = set(connect) | creating
        database = sql.Identifier(name)
        with self.connect() as connection:
            if not _exists(connection, "select from pg_database where datname = %s", name):
                connection.execute(sql.SQL("create database {}").format(database))
            with connection.transaction():
                connection.execute(sql.SQL("alter database {} owner to {}").format(database, sql.Identifier(owner)))
                connection.execute(sql.SQL("revoke all on database {} from public").format(database))
                for privilege, roles in (("connect", connecting), ("create", creating)):
                    connection.execute(
                        sql.SQL("grant {} on database {} to {}").format(
                            sql.SQL(privilege),
                            database,
                            sql.SQL(", ").join(map(sql.Identifier, sorted(roles))),
                        )
                    )

    def ensure_extension(self, name: str, database: str) -> None:
        """Install an extension into a database if need be."""
        with self.connect(database) as connection:
            connection.execute(sql.SQL("create extension if not exists {}").format(sql.Identifier(name)))


def _exists(connection: psycopg.Connection, query: str, name: str) -> bool:
    return connection.execute(query.encode(), (name,)).fetchone() is not None
