"""The keys whose rows were erased, as hashes: how rows are told by them, wherever they are.

A key is hashed as the text that PostgreSQL prints of it in raw's types, its columns as a JSON list: HMAC-SHA256 with a
salt of the stream and, if HEADWATER_FORGET_KEY is set, with that secret. The database computes the hashes, so one
condition finds a row in an attempt's table, in raw, or in a mart, and nobody needs the key itself any more.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.connections import Secret
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.raw_table import raw_columns, type_name
from connectors.errors import ConfigurationError
from connectors.model import Stream

FORGET_KEY = Secret("forget_key")
"""Optional: with it, nobody who has the warehouse alone can find out by trying which keys were forgotten."""
_SHORTEST_SECRET = 16
_BLOCK = 64
"""Bytes of a block of SHA-256."""

Key = tuple[str, ...]
"""The texts of a key's columns."""
SecretOf = Callable[[], str | None]


def no_secret() -> None:
    """For who has none."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys that are told by some columns of a stream."""

    columns: tuple[str, ...]
    """Of raw."""
    salt: bytes = field(repr=False)
    hashes: tuple[bytes, ...]

    def hash_of(self, values: Sequence[sql.Composable]) -> sql.Composed:
        """The hash of a key, in SQL (RFC 2104).

        Args:
            values: its texts, as `printed` makes them.
        """
        block = self.salt.ljust(_BLOCK, b"\0")
        return sql.SQL(
            "sha256({outer}::bytea || sha256({inner}::bytea || convert_to(jsonb_build_array({values})::text, 'UTF8')))"
        ).format(
            outer=sql.Literal(bytes(byte ^ 0x5C for byte in block)),
            inner=sql.Literal(bytes(byte ^ 0x36 for byte in block)),
            values=sql.SQL(", ").join(values),
        )

    def has(self, values: Sequence[sql.Composable]) -> sql.Composed:
        """The condition that a key is one of them."""
        return sql.SQL("{} = any({}::bytea[])").format(self.hash_of(values), sql.Literal(list(self.hashes)))


@dataclass(frozen=True, slots=True)
class ForgottenKeys:
    """All forgotten keys of a stream."""

    sets: tuple[KeySet, ...]

    def condition(
        self, columns: Collection[str], kinds: Mapping[str, str], names: Mapping[str, str] | None = None
    ) -> sql.Composed | None:
        """The condition that a row has one of the keys; None where it cannot have any.

        Args:
            columns: those that the rows have.
            kinds: the type that each is to be taken for.
            names: what the columns of raw are called there, if otherwise.
        """
        found = []
        for each in self.sets:
            called = [column if names is None else names.get(column, "") for column in each.columns]
            if set(called) <= set(columns):
                texts = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in called]
                found.append(each.has([printed(t, kinds.get(n, "text")) for t, n in zip(texts, called, strict=True)]))
        return sql.SQL("({})").format(sql.SQL(" or ").join(found)) if found else None

    def among(
        self, connection: psycopg.Connection, columns: Sequence[str], kinds: Mapping[str, str], keys: Iterable[Key]
    ) -> set[Key]:
        """Those of some keys that are forgotten.

        Args:
            columns: what the keys are made of.
        """
        asked = [key for key in dict.fromkeys(keys) if all(map(_can_be, key))]
        found: set[Key] = set()
        for each in self.sets if asked else ():
            if set(each.columns) <= set(columns):
                texts = [printed(sql.Identifier(column), kinds.get(column, "text")) for column in each.columns]
                rows = connection.execute(
                    sql.SQL("select {names} from {keys} where {has}").format(
                        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
                        keys=_unnested(columns, asked),
                        has=each.has(
                            [printed(t, kinds.get(c, "text")) for t, c in zip(texts, each.columns, strict=True)]
                        ),
                    )
                )
                found.update(rows.fetchall())
        return found


def printed(text: sql.Composable, kind: str) -> sql.Composable:
    """A value's text as raw's type prints it, so that `017` and `17` of a bigint are one; as it is, if it is none."""
    if kind == "text":
        return text
    value = sql.SQL("{}::{}").format(text, type_name(kind))
    if kind.startswith("numeric"):
        value = sql.SQL("trim_scale({})").format(value)
    return sql.SQL("case when pg_input_is_valid({0}, {1}) then ({2})::text else {0} end").format(
        text, sql.Literal(kind), value
    )


def key_kinds(connection: psycopg.Connection, source: str, stream: Stream) -> dict[str, str]:
    """The types that a stream's values are taken for: raw's; before there is one, those that the definition names."""
    if kinds := raw_columns(connection, source, stream.name):
        return kinds
    rows = connection.execute(
        "select name, pg_catalog.format_type(to_regtype(kind), null)"
        " from unnest(%s::text[], %s::text[]) as d (name, kind) where to_regtype(kind) is not null",
        [[column_name(name) for name in stream.columns], list(stream.columns.values())],
    )
    return dict(rows.fetchall())


def forgotten_keys(
    connection: psycopg.Connection, source: str, stream: str, secret: SecretOf, *, request: UUID | None = None
) -> ForgottenKeys | None:
    """The forgotten keys of a stream; None if there are none, which costs one look at an index.

    Args:
        secret: asked for only if it is needed.
        request: only the keys of this request.

    Raises:
        ConfigurationError: they were hashed with a secret that is not the one of this process.
    """
    rows = connection.execute(
        "select s.columns, s.salt, s.secret, array_agg(f.key_hash)"
        " from ops.forget_salts s join ops.forgotten f using (salt_id)"
        " where s.source = %s and s.stream = %s and (%s::uuid is null or f.request_id = %s)"
        " group by s.salt_id order by s.salt_id",
        [source, stream, request, request],
    ).fetchall()
    if not rows:
        return None
    given = secret() if any(row[2] is not None for row in rows) else None
    sets = []
    for columns, salt, told_by, hashes in rows:
        if told_by is not None and (given is None or _told_by(given) != told_by):
            raise ConfigurationError(
                f"Rows of this stream were forgotten, and which ones only the secret `{FORGET_KEY.name}` tells, which"
                f" is {'not set' if given is None else 'another one here'}.",
                remedy=f"Set {FORGET_KEY.environment_variable} as it was then, and run `headwater register`.",
                source=source,
                stream=stream,
            )
        sets.append(KeySet(tuple(columns), _mixed(salt, given if told_by else None), tuple(hashes)))
    return ForgottenKeys(tuple(sets))


def unrecorded(
    connection: psycopg.Connection, columns: Sequence[str], kinds: Mapping[str, str], keys: Iterable[Key]
) -> ForgottenKeys:
    """The same for keys that are nowhere recorded, to see what there is of them."""
    plain = KeySet(tuple(columns), secrets.token_bytes(32), ())
    return ForgottenKeys((KeySet(plain.columns, plain.salt, tuple(_hashes(connection, plain, kinds, keys))),))


def record(
    connection: psycopg.Connection,
    source: str,
    stream: str,
    columns: Sequence[str],
    kinds: Mapping[str, str],
    keys: Iterable[Key],
    request: UUID,
    secret: str | None,
) -> None:
    """Write down keys, as hashes. Those that are known already go over to this request.

    Raises:
        ConfigurationError: the secret is too short.
    """
    if secret is not None and len(secret) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"The secret `{FORGET_KEY.name}` has fewer than {_SHORTEST_SECRET} characters: it could be guessed.",
            remedy=f"Set {FORGET_KEY.environment_variable} to a long random one, once and for all.",
        )
    told_by = _told_by(secret) if secret is not None else None
    names = [source, stream, list(columns), told_by]
    connection.execute(
        "insert into ops.forget_salts (source, stream, columns, secret, salt) values (%s, %s, %s, %s, %s)"
        " on conflict (source, stream, columns, secret) do nothing",
        [*names, secrets.token_bytes(32)],
    )
    row = connection.execute(
        "select salt_id, salt from ops.forget_salts"
        " where source = %s and stream = %s and columns = %s and secret is not distinct from %s",
        names,
    ).fetchone()
    assert row is not None  # noqa: S101 - inserted just now, or before
    key_set = KeySet(tuple(columns), _mixed(row[1], secret), ())
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.forgotten as f (salt_id, key_hash, request_id) values (%s, %s, %s)"
            " on conflict (salt_id, key_hash) do update set request_id = excluded.request_id",
            [[row[0], key_hash, request] for key_hash in _hashes(connection, key_set, kinds, keys)],
        )


def allow_again(
    connection: psycopg.Connection,
    source: str,
    stream: str,
    columns: Sequence[str],
    kinds: Mapping[str, str],
    keys: Iterable[Key],
    secret: SecretOf,
) -> int:
    """Take keys out of what is forgotten; how many of them were in it.

    Raises:
        ConfigurationError: as `forgotten_keys`.
    """
    asked = list(keys)
    there = forgotten_keys(connection, source, stream, secret)
    removed = 0
    for each in there.sets if there is not None else ():
        if each.columns == tuple(columns):
            removed += connection.execute(
                "delete from ops.forgotten f using ops.forget_salts s where s.salt_id = f.salt_id"
                " and s.source = %s and s.stream = %s and s.columns = %s and f.key_hash = any(%s::bytea[])",
                [source, stream, list(columns), _hashes(connection, each, kinds, asked)],
            ).rowcount
    return removed


def note_place(connection: psycopg.Connection, request: UUID, place: str, rows: int) -> None:
    """Add to what a request has erased, in the transaction that erases it."""
    connection.execute(
        "insert into ops.forget_places as p (request_id, place, rows) values (%s, %s, %s)"
        " on conflict (request_id, place) do update set rows = p.rows + excluded.rows, noted_at = clock_timestamp()",
        [request, place, rows],
    )


def _hashes(
    connection: psycopg.Connection, key_set: KeySet, kinds: Mapping[str, str], keys: Iterable[Key]
) -> list[bytes]:
    texts = [printed(sql.Identifier(column), kinds.get(column, "text")) for column in key_set.columns]
    rows = connection.execute(
        sql.SQL("select distinct {} from {}").format(key_set.hash_of(texts), _unnested(key_set.columns, list(keys)))
    ).fetchall()
    return [key_hash for (key_hash,) in rows]


def _unnested(columns: Sequence[str], keys: Sequence[Key]) -> sql.Composed:
    """Keys as a table in SQL."""
    lists = [sql.SQL("{}::text[]").format(sql.Literal([key[place] for key in keys])) for place in range(len(columns))]
    return sql.SQL("unnest({}) as k ({})").format(
        sql.SQL(", ").join(lists), sql.SQL(", ").join(map(sql.Identifier, columns))
    )


def _can_be(text: str) -> bool:
    """Whether PostgreSQL can have such a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _mixed(salt: bytes, secret: str | None) -> bytes:
    return salt if secret is None else hmac.digest(secret.encode(), salt, "sha256")


def _told_by(secret: str) -> str:
    return hmac.digest(secret.encode(), b"headwater.forget", "sha256").hex()[:16]
