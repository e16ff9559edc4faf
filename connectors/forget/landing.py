"""Forgetting, in the landing: each load of the stream that has one of the keys, and what killed runs have left.

Every load is filled into a table of its own, as a rebuild does, since only the database tells keys as raw does; so it
costs what a rebuild costs. Only objects that have such a row are written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

import psycopg
from psycopg import sql
from uuid_utils.compat import uuid7

from connectors.destinations.landing import Stored
from connectors.destinations.manifest import MANIFEST, Manifest
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.connection import LOADING
from connectors.destinations.warehouse.forgotten import ForgottenKeys, note_place
from connectors.destinations.warehouse.ledger import Lease
from connectors.erasure import Found, LoadToErase, note_erased
from connectors.errors import ConfigurationError, DataError, LandingCorruptError
from connectors.ingest import Destination, Logger
from connectors.model import Source, Stream
from connectors.sweep import orphans_of, windows_being_read

_DELETED_AT_ONCE = 1000
_ANY_AGE = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class LandingFound:
    """What was found in the landing and in tables of attempts, or erased there."""

    rows: int = 0
    doubtful: int = 0
    """Records that no row could be made of and that have a word which is one of the keys; left where they are, unless
    they were to be erased."""
    orphans: int = 0
    """Objects that no manifest lists, whatever is in them."""
    attempts: int = 0
    """Tables that dead attempts have left."""
    unreached: list[str] = field(default_factory=list)
    """What could not be read or written: a sentence for each load."""


class LandingOfStream:
    """All that the landing has of a stream.

    Args:
        request: None to only look.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        lease: Lease,
        destination: Destination,
        source: Source,
        stream: Stream,
        keys: ForgottenKeys,
        request: UUID | None,
        log: Logger,
        *,
        with_unreadable: bool = False,
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._landing = destination.landing
        self._source = source
        self._stream = stream
        self._keys = keys
        self._request = request
        self._log = log
        self._with_unreadable = with_unreadable

    def forget(self) -> LandingFound:
        """Erase rows, orphans and tables of dead attempts; or only count them.

        Raises:
            FencedError: a successor has taken the stream over.
            DestinationUnavailableError: the landing or the warehouse does not answer.
        """
        found = LandingFound(attempts=self._drop_attempts())  # first, as filling a table drops them too
        stored = list(self._landing.stored(self._source.name, self._stream.name))
        busy = self._loads_being_read()
        if busy:
            self._log.warning(
                "%s windows are being read; what their loads bring of these keys, they erase themselves.", len(busy)
            )
        for folder, group in groupby(stored, key=lambda each: each.key.rpartition("/")[0]):
            key = f"{folder}/{MANIFEST}"
            try:
                if folder.rpartition("=")[2] not in busy:
                    self._delete_orphans(folder, list(group), found)
                manifest = self._landing.manifest(key)
                if manifest is not None:
                    self._forget_load(manifest, key, found)
            except (LandingCorruptError, ConfigurationError, DataError) as error:
                found.unreached.append(f"{folder}: {error}")
        return found

    def _forget_load(self, manifest: Manifest, key: str, found: LandingFound) -> None:
        here, load = self._find(manifest)
        places = here.rows + (here.doubtful if self._with_unreadable else [])
        found.rows += len(places)
        found.doubtful += 0 if self._with_unreadable else len(here.doubtful)
        if self._request is None:
            return
        if places:
            load.erase(self._lease, key, places, request=self._request)
            self._log.info("Load %s: %s rows erased.", manifest.load_id, f"{len(places):,}")
        elif manifest.forgotten:  # a run that was killed may have had no time to say so
            with self._lease.guard(self._connection):
                note_erased(self._connection, manifest, self._request)

    def _find(self, manifest: Manifest) -> tuple[Found, LoadToErase]:
        load = LoadToErase(self._connection, self._landing, self._source.name, self._stream, manifest, self._keys)
        with AttemptTable(
            self._connection,
            self._source.name,
            self._stream,
            uuid7(),  # the load's own table may be there: a window of it may be being read
            manifest.attempt,
            manifest.record_format,
            manifest.source_columns,
        ) as attempt:
            attempt.fill_from(self._landing, manifest, to_erase=True)
            return load.find(attempt), load

    def _loads_being_read(self) -> set[str]:
        scopes = windows_being_read(self._connection, self._source.name, self._stream.name)
        rows = self._connection.execute(
            "select load_id::text from ops.loads where source = %s and stream = %s"
            " and status in ('extracting', 'landed', 'failed') and window_start || ' ' || window_end = any(%s)",
            [self._source.name, self._stream.name, scopes],
        )
        return {load_id for (load_id,) in rows}

    def _delete_orphans(self, folder: str, stored: list[Stored], found: LandingFound) -> None:
        orphans = list(orphans_of(self._connection, self._landing, folder, stored, _ANY_AGE))
        found.orphans += len(orphans)
        if self._request is None or not orphans:
            return
        for start in range(0, len(orphans), _DELETED_AT_ONCE):
            self._landing.delete([each.key for each in orphans[start : start + _DELETED_AT_ONCE]])
        note_place(self._connection, self._request, "landing, objects of killed runs", len(orphans))

    def _drop_attempts(self) -> int:
        """Tables of attempts of the stream that nobody works on."""
        rows = self._connection.execute(
            """
            select c.relname from pg_class c
            join ops.streams s
                on obj_description(c.oid, 'pg_class') = rtrim(s.source || '.' || s.stream || ' ' || s.scope)
            left join pg_stat_activity a on a.pid = s.holder_pid and a.backend_start = s.holder_session_start
            where c.relnamespace = %s::regnamespace and c.relkind = 'r' and s.source = %s and s.stream = %s
              and (s.scope = '' or s.holder is null or a.pid is null)
            """,
            [LOADING, self._source.name, self._stream.name],
        ).fetchall()
        if self._request is not None:
            for (name,) in rows:
                self._connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(LOADING, name)))
            if rows:
                note_place(self._connection, self._request, "loading, tables of killed runs", len(rows))
        return len(rows)
