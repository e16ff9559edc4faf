"""The list of what was forgotten, beside the landing: so that no restore of an older backup brings it back.

A backup is as old as it is; requests to forget that came after it are not in its ledger, and what they erased is in its
tables. So each stream's list (`ops.forgotten`: hashes of keys, never keys) is also kept in the landing, as
`_forgotten/<source>.<stream>.json`, written anew before a request erases anything. A restore makes its ledger's list
equal to it, and repeats the requests that it did not know.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import psycopg

from connectors.destinations.landing import Landing
from connectors.errors import LandingCorruptError


class ListedKeys(msgspec.Struct, frozen=True):
    """Keys that are told by some columns, with one salt."""

    columns: list[str]
    salt: str
    """In base64, as the hashes."""
    secret: str | None
    hashes: dict[str, UUID]
    """Hash by request."""


class ListedRequest(msgspec.Struct, frozen=True):
    """A request to forget."""

    request_id: UUID
    columns: list[str]
    keys: int
    with_unreadable: bool
    why: str | None
    requested_by: str
    requested_at: datetime


class ForgottenList(msgspec.Struct, frozen=True):
    """All of a stream."""

    source: str
    stream: str
    requests: list[ListedRequest]
    keys: list[ListedKeys]


def keep_list(connection: psycopg.Connection, landing: Landing, source: str, stream: str) -> None:
    """Write a stream's list beside the landing, as the ledger has it now.

    Raises:
        DestinationUnavailableError: the landing does not take it.
    """
    with connection.transaction():
        # Two that write take turns: the later one has read what the earlier one has written.
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"headwater.forgotten {source}.{stream}"]
        )
        keys: dict[int, ListedKeys] = {}
        rows = connection.execute(
            "select s.salt_id, s.columns, s.salt, s.secret, f.key_hash, f.request_id from ops.forget_salts s"
            " left join ops.forgotten f using (salt_id) where s.source = %s and s.stream = %s order by 1, 5",
            [source, stream],
        )
        for salt_id, columns, salt, secret, key_hash, request_id in rows:
            listed = keys.setdefault(salt_id, ListedKeys(columns, _text(salt), secret, {}))
            if key_hash is not None:
                listed.hashes[_text(key_hash)] = request_id
        requests = connection.execute(
            "select request_id, columns, keys, with_unreadable, why, requested_by, requested_at"
            " from ops.forget_requests where source = %s and stream = %s and kind = 'forget' order by requested_at",
            [source, stream],
        ).fetchall()
        content = ForgottenList(source, stream, [ListedRequest(*row) for row in requests], list(keys.values()))
        landing.put_whole(_key(source, stream), msgspec.json.encode(content) + b"\n")


def know_list(owner: psycopg.Connection, landing: Landing, source: str, stream: str) -> int:
    """Make the ledger's list of a stream what is beside the landing; requests that are new to it are open then.

    Args:
        owner: as `headwater_owner`, who alone may.

    Returns:
        How many requests are new to it.

    Raises:
        LandingCorruptError: the list cannot be read.
        DestinationUnavailableError: the landing does not answer.
    """
    body = landing.get_whole(_key(source, stream))
    if body is None:
        return 0
    try:
        listed = msgspec.json.decode(body, type=ForgottenList)
    except msgspec.DecodeError as error:
        raise LandingCorruptError(
            f"The list of what was forgotten, {_key(source, stream)}, cannot be read: {error}.",
            remedy="Restore it from the bucket's versions: without it rows that were erased would be back.",
            source=source,
            stream=stream,
        ) from error
    with owner.transaction():
        new = [each for each in listed.requests if _write_request(owner, source, stream, each)]
        there: list[tuple[int, bytes]] = []
        for each in listed.keys:
            salt_id = _write_salt(owner, source, stream, each)
            hashes = [(salt_id, base64.b64decode(text), request) for text, request in each.hashes.items()]
            with owner.cursor() as cursor:
                cursor.executemany(
                    "insert into ops.forgotten as f (salt_id, key_hash, request_id) values (%s, %s, %s)"
                    " on conflict (salt_id, key_hash) do update set request_id = excluded.request_id",
                    hashes,
                )
            there += [(salt_id, key_hash) for salt_id, key_hash, _ in hashes]
        _drop_others(owner, source, stream, there)
    return len(new)


def _write_request(owner: psycopg.Connection, source: str, stream: str, request: ListedRequest) -> bool:
    inserted = owner.execute(
        "insert into ops.forget_requests (request_id, source, stream, kind, columns, keys, status, with_unreadable,"
        " why, requested_by, requested_at) values (%s, %s, %s, 'forget', %s, %s, 'running', %s, %s, %s, %s)"
        " on conflict (request_id) do nothing",
        [
            request.request_id,
            source,
            stream,
            request.columns,
            request.keys,
            request.with_unreadable,
            request.why,
            request.requested_by,
            request.requested_at,
        ],
    )
    return inserted.rowcount == 1


def _write_salt(owner: psycopg.Connection, source: str, stream: str, keys: ListedKeys) -> int:
    row = owner.execute(
        "insert into ops.forget_salts as s (source, stream, columns, salt, secret) values (%s, %s, %s, %s, %s)"
        " on conflict (source, stream, columns, secret) do update set salt = s.salt returning salt_id, salt",
        [source, stream, keys.columns, base64.b64decode(keys.salt), keys.secret],
    ).fetchone()
    assert row is not None  # noqa: S101 - inserted, or there
    if row[1] != base64.b64decode(keys.salt):
        raise LandingCorruptError(
            f"The list {_key(source, stream)} is of another warehouse: its salt is not the ledger's.",
            remedy="See that HEADWATER_LANDING_URL is the landing of the warehouse that is restored.",
            source=source,
            stream=stream,
        )
    return int(row[0])


def _drop_others(owner: psycopg.Connection, source: str, stream: str, there: Sequence[tuple[int, bytes]]) -> None:
    """Keys that were allowed to come again after the backup."""
    owner.execute(
        "delete from ops.forgotten f using ops.forget_salts s where s.salt_id = f.salt_id"
        " and s.source = %s and s.stream = %s and not exists (select from unnest(%s::bigint[], %s::bytea[])"
        " as t (salt_id, key_hash) where t.salt_id = f.salt_id and t.key_hash = f.key_hash)",
        [source, stream, [salt_id for salt_id, _ in there], [key_hash for _, key_hash in there]],
    )


def _key(source: str, stream: str) -> str:
    return f"_forgotten/{source}.{stream}.json"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
