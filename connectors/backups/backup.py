"""Make a backup of the warehouse, while loads go on.

All dumps show one instant. It lies between two builds: the lease of the transform is held until what dbt made and what
is served have been read, so that no backup has half a generation, and dbt finds no table locked that it is to replace.
Loads are in nobody's way; one that has to change a table's columns waits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL
from uuid_utils.compat import uuid7

from connectors.backups import records
from connectors.backups.fingerprints import fingerprints
from connectors.backups.parts import Holdings, Part, take_inventory
from connectors.backups.programs import dumped, major_version, program
from connectors.backups.store import Backup, BackupStore, Dump, Fingerprint
from connectors.connections import Connections
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.ledger import Lease
from connectors.destinations.warehouse.roles import ROLES
from connectors.destinations.warehouse.shape import revision_of
from connectors.errors import ConfigurationError
from connectors.failpoints import reach
from connectors.ingest import Logger

KEPT = timedelta(days=14)
LEAST_KEPT = 3
"""So many backups are never deleted for their age."""
_UNFINISHED_KEPT = timedelta(days=1)
"""Longer than a backup takes."""
_HELD_SECONDS = 86_400.0
"""How long the snapshot may be held, and what is read in it."""
_LOCK_WAIT = "60s"
_UNDER_LEASE = (Part.LEDGER, Part.MODELS, Part.SERVING)


def back_up(
    connections: Connections,
    store: BackupStore,
    *,
    with_raw: bool = True,
    run: str = "by hand",
    wait_seconds: float = 3600.0,
    log: Logger | None = None,
) -> Backup:
    """Make a backup.

    Args:
        with_raw: also the rows of raw. Without them a restore takes them from the landing.
        wait_seconds: how long to wait for a transform that is under way.

    Raises:
        ConfigurationError: there is no pg_dump of the server's version, or a role is not let in.
        StreamBusyError: another backup is being made, or a transform took too long.
        DestinationUnavailableError: warehouse or store did not answer, or a table stayed locked. There is no backup.
    """
    log = log or logging.getLogger("headwater")
    backup_id = uuid7()
    folder = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}_{backup_id}"
    kind = "full" if with_raw else "without raw"
    watcher = connections.database(Part.LEDGER.reader)
    with (
        translated_errors(),
        connect(watcher, "backup", autocommit=True) as ledger,
        records.one_at_a_time(ledger),
    ):
        records.begin(ledger, backup_id, kind, folder, run)
        reach("backup-begun")
        try:
            program("pg_dump", major_version(ledger))
            backup = _Backing(connections, store, folder, kind, log).make(backup_id, run, wait_seconds)
        except BaseException as error:
            if not ledger.closed and not ledger.broken:
                records.fail(ledger, backup_id, error)
            raise
        reach("backup-finished")
        records.end(ledger, backup)
    log.info("Backup %s: %s bytes, as of %s.", backup_id, f"{backup.bytes:,}", backup.as_of)
    return backup


class _Backing:
    def __init__(self, connections: Connections, store: BackupStore, folder: str, kind: str, log: Logger) -> None:
        self._connections = connections
        self._store = store
        self._folder = folder
        self._kind = kind
        self._log = log

    def make(self, backup_id: UUID, run: str, wait_seconds: float) -> Backup:
        dumps: dict[Part, Dump] = {}
        transformer = self._connections.database(Part.MODELS.reader)
        with ExitStack() as held, ExitStack() as leased:
            leased.enter_context(Lease(transformer, "dbt", "transform", run, wait_seconds=wait_seconds))
            snapshot, connection = held.enter_context(_snapshot(self._connections.database(Part.LEDGER.reader)))
            inventory = take_inventory(connection)
            facts = _facts(connection)
            for part in _UNDER_LEASE:
                self._add(part, inventory.holdings[part], snapshot, facts.postgres, dumps)
                reach("part-dumped")
            leased.close()
            self._add(Part.RAW, inventory.holdings[Part.RAW], snapshot, facts.postgres, dumps)
            reach("all-dumped")
        for stranger in inventory.left_out:
            self._log.warning("%s is not Headwater's, and in no backup of it.", stranger)
        backup = Backup(
            backup_id=backup_id,
            kind=self._kind,
            as_of=facts.as_of,
            revision=facts.revision,
            postgres=facts.postgres,
            database=facts.database,
            roles=facts.roles,
            grants=facts.grants,
            settings=facts.settings,
            dumps=[dumps[part] for part in Part if part in dumps],
            left_out=list(inventory.left_out),
        )
        self._store.finish(backup)
        return backup

    def _add(self, part: Part, holdings: Holdings, snapshot: str, major: int, dumps: dict[Part, Dump]) -> None:
        if not holdings.arguments:
            return
        url = self._connections.database(part.reader)
        has_rows = part is not Part.RAW or self._kind == "full"
        arguments = [f"--snapshot={snapshot}", f"--lock-wait-timeout={_LOCK_WAIT}", *holdings.arguments]
        key = f"{self._folder}/{part}.dump.zst"
        with ThreadPoolExecutor(1, thread_name_prefix="fingerprints") as beside:
            found = beside.submit(_read, url, snapshot, holdings) if has_rows else None
            sha256, size = self._store.write(
                key, dumped(url, major, arguments if has_rows else [*arguments, "--schema-only"])
            )
            dumps[part] = Dump(part, key, sha256, size, found.result() if found is not None else [])
        self._log.info("%s: %s bytes.", key, f"{size:,}")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What no dump of schemas has."""

    as_of: datetime
    database: str
    postgres: int
    revision: str
    roles: list[str]
    grants: list[tuple[str, str]]
    settings: list[str]


def _facts(connection: psycopg.Connection) -> _Facts:
    row = connection.execute(
        "select transaction_timestamp(), datname::text, oid from pg_catalog.pg_database"
        " where datname = current_database()"
    ).fetchone()
    assert row is not None  # noqa: S101 - we are in it
    as_of, database, oid = row
    revision = revision_of(connection)
    if revision is None:
        raise ConfigurationError("This warehouse has no shape of Headwater's.", remedy="Run `headwater migrate`.")
    roles = connection.execute(
        """
        select distinct pg_get_userbyid(grantee)::text
        from (
            select relacl as acl from pg_catalog.pg_class union all select nspacl from pg_catalog.pg_namespace
            union all select defaclacl from pg_catalog.pg_default_acl
        ) a, aclexplode(acl) where grantee <> 0 and pg_get_userbyid(grantee) !~ '^(pg_|unknown)' order by 1
        """
    ).fetchall()
    grants = connection.execute(
        "select nspname::text, pg_get_userbyid(grantee)::text from pg_catalog.pg_namespace, aclexplode(nspacl)"
        " where pg_get_userbyid(nspowner) = %s and privilege_type = 'USAGE' and grantee <> 0"
        " and pg_get_userbyid(grantee) <> all(%s) order by 1, 2",
        [Part.LEDGER.owner_name, list(ROLES)],
    ).fetchall()
    settings = connection.execute(
        "select unnest(setconfig) from pg_catalog.pg_db_role_setting where setdatabase = %s and setrole = 0", [oid]
    ).fetchall()
    return _Facts(
        as_of,
        database,
        major_version(connection),
        revision,
        [role for (role,) in roles],
        grants,
        [each for (each,) in settings],
    )


@contextmanager
def _snapshot(url: URL) -> Iterator[tuple[str, psycopg.Connection]]:
    """An instant of the warehouse, held for others to read as of."""
    with connect(url, "backup snapshot", autocommit=True, idle_seconds=_HELD_SECONDS) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            row = connection.execute("select pg_export_snapshot()").fetchone()
            assert row is not None  # noqa: S101 - a query without a table has one row
            yield row[0], connection


def _read(url: URL, snapshot: str, holdings: Holdings) -> list[Fingerprint]:
    with connect(url, "backup fingerprints", autocommit=True) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
            return fingerprints(connection, holdings.tables)


def keep(connections: Connections, store: BackupStore, *, kept: timedelta = KEPT, least: int = LEAST_KEPT) -> list[str]:
    """Delete backups that are older, but never the latest few; and what killed runs have left.

    Returns:
        The folders that are gone.
    """
    now = datetime.now(UTC)
    there = store.all()
    known = {each.folder for each in there}
    old = [each.folder for each in there[least:] if each.as_of < now - kept]
    old += [each for each in store.folders() if each not in known and _begun(each) < now - _UNFINISHED_KEPT]
    if old:
        watcher = connections.database(Part.LEDGER.reader)
        with translated_errors(), connect(watcher, "backups", autocommit=True) as connection:
            for folder in old:
                store.delete(folder)
                records.note_deleted(connection, folder)
    return old


def _begun(folder: str) -> datetime:
    """When a backup was begun, by its folder's name; of anything else, just now: it is left alone."""
    try:
        return datetime.strptime(folder.partition("_")[0], "%Y-%m-%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)
