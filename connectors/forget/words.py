"""Forgetting, in the ledger: quarantine, differences, and what messages quote of a row.

Messages are looked through for the values that raw has of the rows, so it is done before raw is erased, and a run that
was killed before it has erased raw does it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.columns import OWN_COLUMNS, column_name
from connectors.destinations.warehouse.connection import column_types
from connectors.destinations.warehouse.forgotten import ForgottenKeys, KeySet, key_kinds, note_place, printed
from connectors.forget.messages import mask_messages, texts
from connectors.model import Source, Stream

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
            found["ops, messages"] = mask_messages(self._owner, self._values)
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

    def _values(self) -> Iterator[str]:
        """All values of the rows that are long enough to be told apart from other words."""
        schema, table = f"raw_{self._names[0]}", self._names[1]
        types = column_types(self._loader, schema, table)
        condition = self._keys.condition(types, types)
        if condition is None:
            return
        columns = [name for name in types if name not in OWN_COLUMNS]
        rows = self._loader.execute(
            sql.SQL("select row_to_json(r) from (select {} from {} where {}) r").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), self._raw, condition
            )
        )
        for (record,) in rows:
            yield from (text for text in texts(record) if len(text) >= _SHORTEST)
