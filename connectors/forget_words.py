"""Forgetting, in the ledger: quarantine, differences, and what messages quote of a row.

Messages are looked through for the values that raw has of the rows, so it is done before raw is erased, and a run that
was killed before it has erased raw does it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.columns import OWN_COLUMNS, column_name
from connectors.destinations.warehouse.connection import column_types
from connectors.destinations.warehouse.forgotten import ForgottenKeys, KeySet, key_kinds, note_place, printed
from connectors.masking import Mask
from connectors.model import Source, Stream

_WORDS = ("error", "reason", "why", "message", "detail", "held_back_why", "hold_why")
"""What columns of the ledger are called that say something in words."""
_OWN_TABLES = ("forget_requests", "forget_places")
_SHORTEST = 4
"""Characters of a value from which on it is looked for in messages: shorter ones are in many that do not mean them."""


class LedgerOfStream:
    """What the ledger has of the rows of a stream.

    Args:
        owner: a connection of `headwater_owner`, in autocommit.
        loader: one of `headwater_loader`, likewise.
        request: None to only look.
    """

    def __init__(
        self,
        owner: psycopg.Connection,
        loader: psycopg.Connection,
        source: Source,
        stream: Stream,
        keys: ForgottenKeys,
        request: UUID | None,
    ) -> None:
        self._owner = owner
        self._loader = loader
        self._names = [source.name, stream.name]
        self._stream = stream
        self._keys = keys
        self._kinds = key_kinds(loader, source.name, stream)
        self._request = request
        self._raw = sql.Identifier(f"raw_{source.name}", stream.name)

    def forget(self) -> dict[str, int]:
        """Erase, or only count; rows by place."""
        found: dict[str, int] = {}
        with self._owner.transaction(force_rollback=self._request is None):
            found["ops.quarantine"] = self._quarantine()
            found["ops.differences"] = self._differences()
            found["ops.reconciliations"] = self._ranges()
            found["ops, messages"] = self._messages()
            if self._request is not None:
                for place, rows in found.items():
                    note_place(self._owner, self._request, place, rows)
        return found

    def _quarantine(self) -> int:
        """Lines whose payload tells the key; those of rows in the landing are gone with them."""
        fields = {column_name(name): name for name in self._stream.primary_key}
        rows = 0
        for each in self._keys.sets:
            values = [
                sql.SQL("coalesce(record ->> {}, record ->> {})").format(
                    sql.Literal(column), sql.Literal(fields.get(column, column))
                )
                for column in each.columns
            ]
            rows += self._owner.execute(
                sql.SQL(
                    "delete from ops.quarantine where id in (select id from (select id,"
                    " case when pg_input_is_valid(payload, 'jsonb') then payload::jsonb end as record"
                    " from ops.quarantine where source = %s and stream = %s) q"
                    " where jsonb_typeof(record) = 'object' and {})"
                ).format(self._has(each, values)),
                self._names,
            ).rowcount
        return rows

    def _differences(self) -> int:
        rows = 0
        for each in self._of_primary_key():
            values = [sql.SQL("(key ->> {})").format(sql.Literal(place)) for place in range(len(each.columns))]
            rows += self._owner.execute(
                sql.SQL("delete from ops.differences where source = %s and stream = %s and {}").format(
                    self._has(each, values)
                ),
                self._names,
            ).rowcount
        return rows

    def _ranges(self) -> int:
        """Bounds of what was compared: without one, the next comparison begins at the lowest key."""
        rows = 0
        for each in self._of_primary_key():
            for column in ("key_from", "key_to") if len(each.columns) == 1 else ():
                rows += self._owner.execute(
                    sql.SQL(
                        "update ops.reconciliations set {0} = null where source = %s and stream = %s and {1}"
                    ).format(sql.Identifier(column), self._has(each, [sql.Identifier(column)])),
                    self._names,
                ).rowcount
        return rows

    def _of_primary_key(self) -> Iterator[KeySet]:
        primary = tuple(column_name(name) for name in self._stream.primary_key)
        return (each for each in self._keys.sets if each.columns == primary)

    def _has(self, each: KeySet, values: Sequence[sql.Composable]) -> sql.Composed:
        kinds = [self._kinds.get(column, "text") for column in each.columns]
        return each.has([printed(value, kind) for value, kind in zip(values, kinds, strict=True)])

    def _messages(self) -> int:
        """What messages quote of the rows, of any table of the ledger."""
        columns = self._owner.execute(
            "select table_name, column_name from information_schema.columns where table_schema = 'ops'"
            " and data_type = 'text' and column_name = any(%s) and not table_name = any(%s)",
            [list(_WORDS), list(_OWN_TABLES)],
        ).fetchall()
        texts = {
            (table, column, place): text
            for table, column in columns
            for place, text in self._owner.execute(
                sql.SQL("select ctid::text, {0} from {1} where {0} <> '' for update").format(
                    sql.Identifier(column), sql.Identifier("ops", table)
                )
            )
        }
        everything = "\0".join(texts.values())
        quoted = [value for value in self._values() if _is_quoted(value, everything)] if texts else []
        if not quoted:
            return 0
        mask = Mask(quoted)
        changed = {where: told for where, text in texts.items() if (told := mask(text)) != text}
        for (table, column, place), told in changed.items():
            self._owner.execute(
                sql.SQL("update {} set {} = %s where ctid = %s::tid").format(
                    sql.Identifier("ops", table), sql.Identifier(column)
                ),
                [told, place],
            )
        return len(changed)

    def _values(self) -> set[str]:
        """All values of the rows that are long enough to be told apart from other words."""
        schema, table = f"raw_{self._names[0]}", self._names[1]
        types = column_types(self._loader, schema, table)
        condition = self._keys.condition(types, types)
        if condition is None:
            return set()
        columns = [name for name in types if name not in OWN_COLUMNS]
        rows = self._loader.execute(
            sql.SQL("select row_to_json(r) from (select {} from {} where {}) r").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), self._raw, condition
            )
        )
        return {text for (record,) in rows for text in _texts(record) if len(text) >= _SHORTEST}


def _texts(value: object) -> Iterator[str]:
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif value is not None and not isinstance(value, bool):
        yield str(value)
    for each in inner:
        yield from _texts(each)


def _is_quoted(value: str, text: str) -> bool:
    return value in text or repr(value)[1:-1] in text
