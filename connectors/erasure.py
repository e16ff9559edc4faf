"""Erasing rows from one load, by their keys: found by the database as a load of it would find them, and taken out of
the landing so that a kill at any instant leaves either the old objects or the new ones.

New objects are written beside the old; then the manifest is replaced in one step, under the fence; then the old objects
go. What a kill leaves is listed by no manifest, and swept.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from connectors.destinations.landed_rows import LandedRows
from connectors.destinations.landing import Landing
from connectors.destinations.manifest import Manifest
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import ROW, column_name
from connectors.destinations.warehouse.forgotten import (
    ForgottenKeys,
    Key,
    SecretOf,
    forgotten_keys,
    key_kinds,
    note_place,
)
from connectors.destinations.warehouse.ledger import Lease, take_turn
from connectors.errors import DestinationUnavailableError, FencedError
from connectors.failpoints import reach
from connectors.model import Stream

_WORD = re.compile(r"[^\s,;:|=\"'<>()\[\]{}\\]+")
_MOST_KEYS = 1000
"""Of one record."""


@dataclass(frozen=True, slots=True)
class Found:
    """Places of rows in a load."""

    rows: list[int]
    """Those with one of the keys."""
    doubtful: list[int]
    """Records that no row could be made of and that have a word which is one of the keys."""


class LoadToErase:
    """One load that has landed, in an attempt's table that was filled with it.

    Args:
        keys: what its rows are told by.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        landing: Landing,
        source: str,
        stream: Stream,
        manifest: Manifest,
        keys: ForgottenKeys,
    ) -> None:
        self._connection = connection
        self._landing = landing
        self._source = source
        self._stream = stream
        self._manifest = manifest
        self._keys = keys
        self._kinds = key_kinds(connection, source, stream)

    def find(self, attempt: AttemptTable) -> Found:
        """The rows, which are taken out of the attempt's table on the way, doubtful ones aside.

        Raises:
            UnfitError: as `AttemptTable.leave_out`.
            LandingCorruptError, DestinationUnavailableError: as `Landing.read`.
        """
        unreadable = attempt.unreadable_places()
        condition = self._keys.condition(attempt.columns, self._kinds)
        rows = attempt.leave_out(condition) if condition is not None else []
        named, doubtful = self._named(unreadable)
        if named:
            rows += attempt.leave_out(sql.SQL("{} = any({})").format(sql.Identifier(ROW), sql.Literal(named)))
        return Found(sorted(rows), doubtful)

    def erase(self, lease: Lease, manifest_key: str, places: Collection[int], *, request: UUID | None = None) -> None:
        """Take rows out of the landing and of the quarantine, for good.

        Args:
            request: that is to know how many they were.

        Raises:
            FencedError: a successor has taken the stream over; the manifest is as it was.
            DestinationUnavailableError: the store does not answer, or the load was changed meanwhile.
        """
        before = self._manifest
        after = LandedRows(self._landing, self._stream, before).without(places)
        after = msgspec.structs.replace(after, erased_at=datetime.now(UTC))
        listed = {landed.key for landed in after.objects}
        old = [landed.key for landed in before.objects if landed.key not in listed]
        reach("object-rewritten")
        try:
            with lease.guard(self._connection):
                take_turn(self._connection, self._source, self._stream.name)
                if self._landing.manifest(manifest_key) != before:
                    raise DestinationUnavailableError(
                        f"Load {before.load_id} was changed in the landing by another run.",
                        remedy="Run again: nothing of it was changed by this one.",
                    )
                self._landing.replace_manifest(manifest_key, after)
                note_erased(self._connection, after, request)
                if request is not None:
                    note_place(self._connection, request, "landing", len(places))
        except (FencedError, DestinationUnavailableError):
            if self._landing.manifest(manifest_key) == before:
                self._landing.delete([*(listed - {landed.key for landed in before.objects})])
            raise
        reach("manifest-replaced")
        self._landing.delete(old)
        reach("old-objects-deleted")

    def _named(self, places: Sequence[int]) -> tuple[list[int], list[int]]:
        """Of records that no row could be made of, those that tell one of the keys, and those that perhaps do."""
        if not places:
            return [], []
        texts = LandedRows(self._landing, self._stream, self._manifest).texts(places)
        named: set[int] = set()
        doubtful: set[int] = set()
        for each in self._keys.sets:
            told = {place: list(keys_told(text, each.columns)) for place, text in texts.items()}
            words: dict[int, list[Key]] = {}
            if len(each.columns) == 1:  # words that would have to be together are none
                words = {place: [(word,) for word in {*_WORD.findall(text)}] for place, text in texts.items()}
            asked = [*itertools.chain.from_iterable([*told.values(), *words.values()])]
            known = ForgottenKeys((each,)).among(self._connection, each.columns, self._kinds, asked)
            named.update(place for place, keys in told.items() if not known.isdisjoint(keys))
            doubtful.update(place for place, keys in words.items() if not known.isdisjoint(keys))
        return sorted(named), sorted(doubtful - named)


def leave_out_again(
    connection: psycopg.Connection,
    lease: Lease,
    landing: Landing,
    source: str,
    stream: Stream,
    attempt: AttemptTable,
    manifest: Manifest | None,
    manifest_key: str,
    secret: SecretOf,
) -> int:
    """Before a load is committed: erase the rows from it whose key was forgotten, and leave them out; how many.

    Without forgotten keys it costs one look at an index.

    Args:
        manifest: of the load; None if nothing came.

    Raises:
        As `LoadToErase.find` and `erase`.
    """
    keys = forgotten_keys(connection, source, stream.name, secret) if manifest is not None else None
    if keys is None or manifest is None:
        return 0
    load = LoadToErase(connection, landing, source, stream, manifest, keys)
    found = load.find(attempt)
    if found.rows:
        load.erase(lease, manifest_key, found.rows)
    return len(found.rows)


def note_erased(connection: psycopg.Connection, manifest: Manifest, request: UUID | None = None) -> None:
    """Have the ledger follow a load's manifest: count the rows that were erased, and take them out of the quarantine of
    the load and of its replays."""
    size = sum(landed.bytes for landed in manifest.objects)
    connection.execute(
        "update ops.loads set rows_erased = %s, bytes_landed = %s where load_id = %s",
        [len(manifest.forgotten), size, manifest.load_id],
    )
    aside = connection.execute(
        "delete from ops.quarantine where source = %s and stream = %s and row_in_load = any(%s)"
        " and load_id in (select load_id from ops.loads where load_id = %s or replay_of = %s)",
        [manifest.source, manifest.stream, manifest.forgotten, manifest.load_id, manifest.load_id],
    ).rowcount
    if request is not None:
        note_place(connection, request, "ops.quarantine", aside)


def keys_told(text: str, columns: Sequence[str]) -> Iterator[Key]:
    """The keys that a record tells although no row can be made of it: JSON with a field twice, or with NaN in it.

    Args:
        columns: of the key, as raw has them.
    """
    try:
        members = json.loads(text, object_pairs_hook=_Members, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return
    if isinstance(members, _Members):
        values = [
            [
                value if isinstance(value, str) else json.dumps(value)
                for name, value in members
                if column_name(name) == column
            ]
            for column in columns
        ]
        yield from itertools.islice(itertools.product(*values), _MOST_KEYS)


class _Members(list[tuple[str, object]]):
    """An object's fields, those that come twice too."""
