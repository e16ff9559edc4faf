"""What a table holds, as a number of rows and a checksum: to tell whether a backup came back as it was."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from connectors.backups.parts import Table
from connectors.backups.store import Fingerprint


def fingerprints(connection: psycopg.Connection, tables: Sequence[Table]) -> list[Fingerprint]:
    """Those of some tables, as the connection's snapshot shows them; it must print values as `connect` has it."""
    return [_fingerprint(connection, table) for table in tables]


def _fingerprint(connection: psycopg.Connection, table: Table) -> Fingerprint:
    row = connection.execute(
        sql.SQL(
            "select count(*), coalesce(sum(hashtextextended(whole_row::text, 0)::numeric), 0)::text"
            " from only {} as whole_row"
        ).format(sql.Identifier(table.schema, table.name))
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return Fingerprint(str(table), row[0], row[1])


def differences(there: Sequence[Fingerprint], expected: Sequence[Fingerprint]) -> list[str]:
    """In what they differ, a sentence a table; empty if they are the same."""
    found = {each.table: each for each in there}
    said = []
    for each in expected:
        other = found.get(each.table)
        if other is None:
            said.append(f"{each.table} is missing")
        elif other.rows != each.rows:
            said.append(f"{each.table} has {other.rows:,} rows of {each.rows:,}")
        elif other.checksum != each.checksum:
            said.append(f"{each.table} has other rows")
    return said
