"""What of an attempt raw can hold, value by value, and what becomes of the rest under the stream's contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.columns import PAYLOAD, REJECTED, Kind, column_name, needs_check, widens
from connectors.destinations.warehouse.exactness import unfit
from connectors.destinations.warehouse.raw_table import RawTable, type_name
from connectors.model import SchemaContract
from connectors.privacy import MASK, folded

_JSON_NUMBERS = ("bigint", "numeric")
"""The types that numbers of documents get by themselves."""


class Judgement:
    """Marks the rows that go to quarantine and takes out the values that are discarded, inside the transaction.

    Args:
        relied_on: the key and the cursor, whose values are never discarded, and what is wrong with a row where one is
            null (None: nothing).
        incoming: the type that each column of the load asks for.
        types: raw's types.
        masked: the fields whose values are not to be shown in quarantine.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        attempt: AttemptTable,
        table: RawTable,
        contract: SchemaContract,
        *,
        relied_on: Mapping[str, str | None],
        incoming: Mapping[str, str],
        types: Mapping[str, str],
        masked: Iterable[str] = (),
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._table = table
        self._contract = contract
        self._relied_on = relied_on
        self._incoming = incoming
        self._types = types
        self._masked = {folded(column_name(field)) for field in masked}
        self._declared = table.declared_types()

    def run(self, columns: Iterable[str], lacking: Iterable[str]) -> int:
        """Judge every row.

        Args:
            columns: those of the load that raw has.
            lacking: those of the load that raw does not have, and will not get.

        Returns:
            How many rows were rejected.
        """
        doubtful = {name: self._unfit(name, self._types[name]) for name in columns if self._is_doubtful(name)}
        lacking = list(lacking)
        rejected = self._reject(doubtful, lacking)
        if self._contract is SchemaContract.DISCARD_VALUE:
            self._discard({name: why for name, why in doubtful.items() if name not in self._relied_on}, lacking)
        if self._attempt.types is not None:
            self._conform(doubtful)
        return rejected

    def take_out(self, name: str, kind: str) -> None:
        """Make the values of a column null that are no values of a type."""
        column = sql.Identifier(name)
        self._connection.execute(
            sql.SQL("update {} set {} = null where {} is not null").format(
                self._attempt.name, column, _case(self._unfit(name, kind))
            )
        )

    def _is_doubtful(self, name: str) -> bool:
        """Whether some of a column's values may not fit; where the source typed them, only after its type changed."""
        target = self._types[name]
        if (typed := self._attempt.types) is not None:
            return target not in (typed[name], "text") and not widens(typed[name], target)
        kinds = self._attempt.kinds
        return needs_check(kinds[name] if kinds is not None else None, target)

    def _unfit(self, name: str, kind: str) -> sql.Composed:
        value: sql.Composable = sql.Identifier(name)
        if self._attempt.types is not None:
            value = sql.SQL("({}::text)").format(value)
        kinds = self._attempt.kinds
        own_number = kind in _JSON_NUMBERS and name not in self._declared
        has_texts = own_number and kinds is not None and bool(kinds[name] & Kind.TEXT)
        return unfit(name, kind, value, has_texts=has_texts)

    def _reject(self, doubtful: Mapping[str, sql.Composed], lacking: list[str]) -> int:
        """Mark the rows that raw cannot hold: a value that its column's type refuses, a key that is missing.

        Only those rows are written; a load without any costs one scan.
        """
        discards = self._contract is SchemaContract.DISCARD_VALUE
        reasons: list[sql.Composable] = [
            why for name, why in doubtful.items() if not discards or name in self._relied_on
        ]  # fmt: skip
        if self._contract is SchemaContract.DISCARD_ROW:
            reasons += [
                sql.SQL("when {} is not null then {}").format(
                    sql.Identifier(name), sql.Literal(f"column {name}: raw does not have it (contract `discard_row`)")
                )
                for name in lacking
            ]
        reasons += [
            sql.SQL("when {} is null then {}").format(sql.Identifier(name), sql.Literal(f"column {name}: {why}"))
            for name, why in self._relied_on.items()
            if why is not None
        ]
        if not reasons:
            return 0
        case = _case(sql.SQL(" ").join(reasons))
        # A row as JSON by its columns: json_build_object would end at 50 of them.
        return self._connection.execute(
            sql.SQL("update {table} set {rejected} = {case},"
                    " {payload} = (select row_to_json(r.*)::text from (select {columns}) r)"
                    " where {rejected} is null and {case} is not null").format(
                table=self._attempt.name,
                rejected=sql.Identifier(REJECTED),
                payload=sql.Identifier(PAYLOAD),
                case=case,
                columns=sql.SQL(", ").join(map(self._shown, self._attempt.columns)),
            )
        ).rowcount  # fmt: skip

    def _shown(self, name: str) -> sql.Composable:
        """A column as it is in quarantine."""
        column = sql.Identifier(name)
        if folded(name) not in self._masked:
            return column
        return sql.SQL("case when {0} is not null then {1} end as {0}").format(column, sql.Literal(MASK))

    def _discard(self, doubtful: Mapping[str, sql.Composed], lacking: list[str]) -> None:
        """Count the values that raw will not have, and take those out that it has a column for."""
        lost: dict[str, sql.Composable] = {
            name: sql.SQL("{} is not null").format(sql.Identifier(name)) for name in lacking
        }
        lost |= {name: sql.SQL("{} is not null").format(_case(why)) for name, why in doubtful.items()}
        if not lost:
            return
        row = self._connection.execute(
            sql.SQL("select {} from {} where {} is null").format(
                sql.SQL(", ").join(sql.SQL("count(*) filter (where {})").format(test) for test in lost.values()),
                self._attempt.name,
                sql.Identifier(REJECTED),
            )
        ).fetchone()
        counts = {name: rows for name, rows in zip(lost, row or (), strict=True) if rows}
        for name, rows in counts.items():
            has, wants = self._types.get(name), self._incoming.get(name)
            self._table.note_discarded(name, has, wants if wants != has else None, rows)
        emptied = [name for name in counts if name in doubtful]
        if emptied and self._attempt.types is None:
            self._connection.execute(
                sql.SQL("update {} set {} where {} is null and ({})").format(
                    self._attempt.name,
                    sql.SQL(", ").join(
                        sql.SQL("{0} = case when {1} then null else {0} end").format(sql.Identifier(name), lost[name])
                        for name in emptied
                    ),
                    sql.Identifier(REJECTED),
                    sql.SQL(" or ").join(lost[name] for name in emptied),
                )
            )

    def _conform(self, doubtful: Mapping[str, sql.Composed]) -> None:
        """Give typed columns the type that raw has; what does not fit is null then, discarded or in quarantine."""
        for name, why in doubtful.items():
            self._connection.execute(
                sql.SQL("alter table {} alter column {} type {kind} using case when {} is null then {}").format(
                    self._attempt.name,
                    sql.Identifier(name),
                    _case(why),
                    sql.SQL("{}::text::{} end").format(sql.Identifier(name), type_name(self._types[name])),
                    kind=type_name(self._types[name]),
                )
            )


def _case(clauses: sql.Composable) -> sql.Composed:
    return sql.SQL("(case {} end)").format(clauses)
