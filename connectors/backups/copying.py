"""Put a backup into an empty database, whole or not at all, and take it out again.

A table of a schema of its own, `restoring`, says that the database is not done, and with what. Whoever comes after one
that was killed finds it, clears what was copied and begins again. Until the end, nobody may look at what is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.backups.fingerprints import differences, fingerprints
from connectors.backups.parts import Part, Table, restorable
from connectors.backups.programs import contents, major_version, program, restored
from connectors.backups.store import Backup, BackupStore
from connectors.database import address
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.migrations import upgrade
from connectors.destinations.warehouse.shape import REVISION
from connectors.errors import ConfigurationError
from connectors.failpoints import reach
from connectors.ingest import Logger

_RESTORING = "restoring"
_EPOCHS = 1_000_000
"""More than any stream had leases since the backup: no run from before the restore has an epoch that comes again."""
_READERS = "headwater_reader, headwater_watcher"
"""Who may look at what is served."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A restore that is under way, or was killed."""

    backup_id: UUID
    phase: str
    """`copying`, or `copied`."""
    began_at: datetime


class Target:
    """The database to restore into.

    Args:
        urls: of its four roles, by part; the ledger's is the owner.
    """

    def __init__(self, urls: Mapping[Part, URL]) -> None:
        self.urls = urls
        self.owner = urls[Part.LEDGER]

    def connect(self, part: Part = Part.LEDGER) -> psycopg.Connection:
        return connect(self.urls[part], "restore", autocommit=True)

    def progress(self) -> Progress | None:
        """Of a restore that has begun here and is not over.

        Raises:
            ConfigurationError: the database is not empty, and not for that reason.
        """
        with self.connect() as connection:
            if connection.execute("select to_regclass('restoring.progress')").fetchone() != (None,):
                row = connection.execute("select backup_id, phase, began_at from restoring.progress").fetchone()
                return Progress(*row) if row else None
            there = [
                str(name)
                for (name,) in connection.execute(
                    """
                    select nspname from pg_catalog.pg_namespace
                    where nspname !~ '^pg_' and nspname not in ('information_schema', 'public', %s)
                    union all
                    select 'public.' || relname from pg_catalog.pg_class
                    where relnamespace = to_regnamespace('public')
                      and not exists (select from pg_catalog.pg_depend d where d.objid = pg_class.oid and deptype = 'e')
                    order by 1
                    """,
                    [_RESTORING],
                )
            ]
        if there:
            raise ConfigurationError(
                f"The database {address(self.owner)} is not empty: it has {', '.join(there[:5])}"
                f"{' …' if len(there) > 5 else ''}. Nothing was done.",
                remedy="Restore into an empty database of the owner's (docs/roles.md), and let the four URLs name it.",
            )
        return None

    def begin(self, backup: Backup) -> None:
        """Mark the database, clear what a killed restore has left in it, and make what the ledger stands in."""
        with self.connect() as connection, connection.transaction():
            self._clear(connection)
            connection.execute("create schema restoring")
            connection.execute(
                "create table restoring.progress (backup_id uuid not null, phase text not null,"
                " began_at timestamptz not null default clock_timestamp())"
            )
            connection.execute(
                "comment on schema restoring is 'A restore is not over: `headwater restore` goes on, or begins anew'"
            )
            connection.execute(
                "insert into restoring.progress (backup_id, phase) values (%s, 'copying')", [backup.backup_id]
            )
        # The rows of the ledger are put into what the migrations of that time have made.
        upgrade(self.owner, to=backup.revision)
        with self.connect() as connection:
            connection.execute(f"revoke usage on schema serving from {_READERS}".encode())

    def copy(self, backup: Backup, store: BackupStore, log: Logger) -> None:
        """Restore each part as the role that owns it.

        Raises:
            ConfigurationError: there is no pg_restore of the server's version.
            DestinationUnavailableError: a part could not be restored.
        """
        with self.connect() as connection:
            major = major_version(connection)
        for dump in backup.dumps:
            entries = restorable(contents(store.read(dump), major))
            restored(self.urls[Part(dump.part)], major, store.read(dump), entries)
            log.info("Restored %s.", dump.part)
            reach("part-restored")

    def differences(self, backup: Backup) -> list[str]:
        """In what the tables are not those of the backup."""
        said = []
        for dump in backup.dumps:
            if dump.tables:
                with self.connect(Part(dump.part)) as connection:
                    tables = [Table(*each.table.split(".", 1)) for each in dump.tables]
                    there = set(
                        connection.execute(
                            "select n.nspname, c.relname from pg_catalog.pg_class c"
                            " join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
                        ).fetchall()
                    )
                    found = [each for each in tables if (each.schema, each.name) in there]
                    said += differences(fingerprints(connection, found), dump.tables)
        return said

    def note_copied(self, backup: Backup) -> None:
        """All of it is there. Leases of before are over, and none of their epochs comes again."""
        with self.connect() as connection, connection.transaction():
            connection.execute(
                "update ops.streams set epoch = epoch + %s, holder = null, lease_until = now(), holder_pid = null,"
                " holder_session_start = null",
                [_EPOCHS],
            )
            connection.execute(
                "update ops.backups set status = 'done', ended_at = %s, as_of = %s, bytes = %s"
                " where backup_id = %s and status = 'running'",
                [backup.as_of, backup.as_of, backup.bytes, backup.backup_id],
            )
            connection.execute(
                "update ops.backups set status = 'failed', ended_at = clock_timestamp(), error = 'It was killed.'"
                " where status = 'running'"
            )
            connection.execute("update restoring.progress set phase = 'copied'")
        reach("copied")

    def open(self, backup: Backup) -> None:
        """Let readers look, with the settings that the database had; the restore is over."""
        with self.connect() as connection, connection.transaction():
            connection.execute(f"grant usage on schema serving to {_READERS}".encode())
            for schema, role in backup.grants:
                connection.execute(
                    sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(schema), sql.Identifier(role))
                )
            for setting in backup.settings:
                name, _, value = setting.partition("=")
                connection.execute(
                    sql.SQL("alter database {} set {} to {}").format(
                        sql.Identifier(connection.info.dbname), sql.Identifier(*name.split(".")), sql.Literal(value)
                    )
                )
            connection.execute("drop schema restoring cascade")

    def clear(self) -> None:
        """Empty the database again, if it is one that a restore has filled."""
        with self.connect() as connection, connection.transaction():
            self._clear(connection)

    def _clear(self, connection: psycopg.Connection) -> None:
        """What is restored goes by its roles, each for its own; the mark goes last."""
        if connection.execute("select to_regclass('restoring.progress')").fetchone() == (None,):
            return
        with ExitStack() as stack:
            for part in (Part.MODELS, Part.RAW):
                _drop_schemas(stack.enter_context(self.connect(part)))
        _drop_schemas(connection, but=_RESTORING)
        connection.execute("drop table if exists public.alembic_version")
        connection.execute("drop schema restoring cascade")


def check_fits(backup: Backup, target: Target) -> None:
    """Refuse a backup that could not be restored there.

    Raises:
        ConfigurationError: it is of a newer Headwater, there are no programs for the server, or a role is not let in.
    """
    if backup.revision > REVISION:
        raise ConfigurationError(
            f"The backup was made of migration {backup.revision}, and this Headwater knows those up to {REVISION}.",
            remedy="Install the Headwater that made it, or a newer one.",
        )
    for part in Part:
        with target.connect(part) as connection:
            there = {name for (name,) in connection.execute("select rolname::text from pg_catalog.pg_roles")}
            if missing := [role for role in backup.roles if role not in there]:
                raise ConfigurationError(
                    f"The backup has grants to {', '.join(missing)}, and the server has no such role.",
                    remedy="Create each (`create role …`), then run the same command again.",
                )
            if part is Part.LEDGER:
                major = major_version(connection)
                program("pg_restore", major)
                if major < backup.postgres:
                    raise ConfigurationError(
                        f"The backup is of PostgreSQL {backup.postgres}, and the server is {major}.",
                        remedy="Restore it into a server of that version or a later one.",
                    )
            row = connection.execute("select current_user::text, current_database()").fetchone()
            if row != (part.owner_name, target.owner.database):
                raise ConfigurationError(
                    f"{part.owner.environment_variable} is to name {part.owner_name} and the database "
                    f"{target.owner.database}; it names {row[0] if row else ''} and {row[1] if row else ''}.",
                    remedy="Let the four URLs name the four roles, and the one database to restore into.",
                )


def _drop_schemas(connection: psycopg.Connection, *, but: str = "") -> None:
    names = connection.execute(
        "select nspname from pg_catalog.pg_namespace"
        " where pg_get_userbyid(nspowner) = current_user and nspname !~ '^pg_' and nspname <> %s",
        [but],
    ).fetchall()
    for (name,) in names:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))
