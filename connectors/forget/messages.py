"""Values out of what the ledger says in words: errors, reasons, incidents, alerts. `***` takes their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from connectors.masking import Mask

_WORDS = (
    *("error", "last_error", "reason", "why", "message", "detail", "title", "subject", "cause", "body"),
    *("held_back_why", "hold_why", "snoozed_why", "closed_why"),
)
"""What columns of the ledger are called that say something in words."""
_OWN_TABLES = ("forget_requests", "forget_places")


def mask_messages(owner: psycopg.Connection, values: Callable[[], Iterator[str]]) -> int:
    """Inside a transaction: mask values wherever a row of the ledger quotes them; how many rows do.

    Args:
        owner: a connection of `headwater_owner`.
        values: called only if there is anything that could quote one.
    """
    tables = owner.execute(
        "select table_name, array_agg(column_name::text order by column_name) from information_schema.columns"
        " where table_schema = 'ops' and data_type in ('text', 'jsonb') and column_name = any(%s)"
        " and not table_name = any(%s) group by table_name order by table_name",
        [list(_WORDS), list(_OWN_TABLES)],
    ).fetchall()
    rows = {
        (table, place): dict(zip(columns, said, strict=True))
        for table, columns in tables
        for place, *said in _rows(owner, table, columns)
    }
    everything = "\0".join(text for said in rows.values() for each in said.values() for text in texts(each))
    quoted = [value for value in {*values()} if _is_quoted(value, everything)] if everything else []
    changed = 0
    if quoted:
        mask = Mask(quoted)
        for (table, place), said in rows.items():
            told = {column: _masked(value, mask) for column, value in said.items()}
            if told != said:
                changed += 1
                _write(owner, table, place, told)
    return changed


def texts(value: object) -> Iterator[str]:
    """The single values of one that may be a list or an object, as texts; true, false and null tell nothing."""
    inner: Collection[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif value is not None and not isinstance(value, bool):
        yield str(value)
    for each in inner:
        yield from texts(each)


def _rows(owner: psycopg.Connection, table: str, columns: Collection[str]) -> list[tuple[object, ...]]:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return owner.execute(
        sql.SQL("select ctid::text, {0} from {1} where num_nonnulls({0}) > 0 for update").format(
            names, sql.Identifier("ops", table)
        )
    ).fetchall()


def _write(owner: psycopg.Connection, table: str, place: object, told: Mapping[str, object]) -> None:
    """All columns of a row at once: its place is another afterwards."""
    owner.execute(
        sql.SQL("update {} set {} where ctid = %s::tid").format(
            sql.Identifier("ops", table),
            sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in told),
        ),
        [*(Jsonb(each) if isinstance(each, dict | list) else each for each in told.values()), place],
    )


def _masked(value: object, mask: Mask) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _masked(each, mask) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, mask) for each in value]
    return value


def _is_quoted(value: str, text: str) -> bool:
    return value in text or repr(value)[1:-1] in text
