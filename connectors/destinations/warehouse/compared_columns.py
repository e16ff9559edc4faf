"""By which columns a source's table and raw's can be compared, and in which form each side writes their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from connectors.comparison.digests import ComparedAs, Key
from connectors.comparison.row_digests import RowDigests
from connectors.destinations.warehouse.columns import DELETED_AT, column_name, column_names, widens
from connectors.errors import ContractViolationError
from connectors.model import Column, Stream
from connectors.privacy import Dropped, Hashed, of_column


@dataclass(frozen=True, slots=True)
class ComparedColumns:
    """What is compared, in the words of either side."""

    at_source: ComparedAs
    in_raw: ComparedAs
    left_out: tuple[str, ...]
    """Columns of the source or of raw that the other does not have, or has as another kind of type."""

    @classmethod
    def of(cls, stream: Stream, source: Sequence[Column], raw: Mapping[str, str]) -> ComparedColumns:
        """Of two values of different types the wider one is compared. What raw holds as text it holds as the source
        prints it. Where raw's type cannot hold all that the source's can, each value was judged by itself when it was
        loaded (the contract `discard_value`, say), so nothing tells what raw should have. What is hashed or dropped
        before it lands is not compared either.

        Raises:
            ContractViolationError: the key is not among what can be compared.
        """
        columns = column_names(column.name for column in source)
        forms: dict[str, tuple[str, str | None, str | None]] = {}
        for column in source:
            name = columns[column.name]
            if isinstance(of_column(stream.privacy, column.name), Hashed | Dropped):
                continue
            form = _form(column.type, raw[name]) if name in raw else None
            if form is not None:
                forms[name] = (column.name, *form)
        key = [column_name(field) for field in stream.primary_key]
        if lacking := [name for name in key if name not in forms]:
            raise ContractViolationError(
                f"The key `{', '.join(lacking)}` is not the same in raw and at the source, so no row can be found.",
                remedy="Load the stream first; if that fails too, it says what to do.",
                stream=stream.name,
            )
        values = sorted(forms.keys() - set(key))
        return cls(
            ComparedAs({forms[name][0]: forms[name][1] for name in key}, {forms[n][0]: forms[n][1] for n in values}),
            ComparedAs({name: forms[name][2] for name in key}, {name: forms[name][2] for name in values}),
            tuple(sorted({*columns.values(), *raw} - forms.keys())),
        )


def _form(source: str, raw: str) -> tuple[str | None, str | None] | None:
    """What each side casts a value to before it is written as text; None where they cannot be compared."""
    if source == raw or raw == "text":
        return None, None
    if widens(source, raw):
        return raw, None
    if widens(raw, source):
        return None, source
    return None


def raw_digests(
    connection: psycopg.Connection,
    source: str,
    stream: Stream,
    types: Mapping[str, str],
    compared: ComparedAs,
    left_out: Sequence[Key],
    errors: Callable[[], AbstractContextManager[None]],
) -> RowDigests:
    """The live rows of a raw table; of a stream with a cursor those that have one.

    Args:
        types: raw's types.
        left_out: keys of rows that the next load changes.
    """
    settled = sql.SQL("t.{} is null").format(sql.Identifier(DELETED_AT))
    if stream.cursor is not None:
        settled += sql.SQL(" and t.{} is not null").format(sql.Identifier(column_name(stream.cursor.field)))
    return RowDigests(
        connection,
        sql.Identifier(f"raw_{source}", stream.name),
        compared,
        [kind or types[name] for name, kind in compared.key.items()],
        column_name(stream.event_time) if stream.event_time else None,
        settled,
        errors,
        left_out,
    )
