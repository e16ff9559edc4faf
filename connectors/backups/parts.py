"""What a backup consists of: four dumps, one for each role that owns something.

Each role reads and restores what is its own, so that neither a backup nor a restore needs a superuser, or anything
beyond what the roles may anyway. Only the ledger is read by another role than its owner, the watcher: the owner's login
stays away from the machines that run flows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from connectors.connections import Database


class Part(StrEnum):
    """A dump, by what is in it; in the order in which they are restored, for each needs those before it."""

    LEDGER = "ledger"
    """The rows of `ops`; what they stand in is made by the migrations."""
    RAW = "raw"
    MODELS = "models"
    """What dbt has made, snapshots included."""
    SERVING = "serving"
    """What is published, its views, and what a rollback would bring back."""

    @property
    def reader(self) -> Database:
        """Who dumps it."""
        return Database(f"warehouse_{_READERS[self]}")

    @property
    def owner(self) -> Database:
        """Whose it is, and who restores it."""
        return Database(f"warehouse_{_OWNERS[self]}")

    @property
    def owner_name(self) -> str:
        return f"headwater_{_OWNERS[self]}"


_READERS = {Part.LEDGER: "watcher", Part.RAW: "loader", Part.MODELS: "transformer", Part.SERVING: "publisher"}
_OWNERS = {**_READERS, Part.LEDGER: "owner"}

_LEDGER_SCHEMA = "ops"
_NOT_KEPT = ("loading", "changes")
"""Schemas of tables that are there in passing: attempts under way, and notes that go by the numbers of tables."""
_ANYBODY = "pg_database_owner"
"""Who owns the schema public."""
NOTING_TRIGGERS = "headwater_notes_"
"""How the triggers are called that note which rows of a mart were written. They go by the number of their table, which
is another one after a restore; the first publish makes them anew, and compares all rows."""

_SCHEMAS = """
select n.nspname, pg_get_userbyid(n.nspowner)
from pg_catalog.pg_namespace n
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1
"""
_RELATIONS = """
select n.nspname, c.relname, pg_get_userbyid(c.relowner), c.relkind in ('r', 'p')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  and not exists (select from pg_catalog.pg_depend d where d.objid = c.oid and d.deptype in ('i', 'e'))
order by 1, 2
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, by its schema and name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What there is of a part."""

    arguments: tuple[str, ...]
    """For pg_dump, to take just this; empty if there is nothing."""
    tables: tuple[Table, ...]
    """Those whose rows are in it."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is in a warehouse, by part, as a snapshot shows it."""

    holdings: dict[Part, Holdings]
    left_out: tuple[str, ...]
    """What is none of Headwater's: schemas and relations of other roles. No backup has it."""


def take_inventory(connection: psycopg.Connection) -> Inventory:
    """What there is, by who owns it; any role may look."""
    owner_of: dict[str, str] = dict(connection.execute(_SCHEMAS).fetchall())
    relations = connection.execute(_RELATIONS).fetchall()
    ours = {part.owner_name for part in Part}
    left_out = [f"schema {name} of {owner}" for name, owner in owner_of.items() if owner not in {*ours, _ANYBODY}]
    left_out += [
        f"{schema}.{name} of {owner}"
        for schema, name, owner, _ in relations
        if owner not in ours and owner_of[schema] in {*ours, _ANYBODY}
    ]
    holdings = {}
    for part in Part:
        mine = [
            (schema, name, is_table)
            for schema, name, owner, is_table in relations
            if owner == part.owner_name and schema not in _NOT_KEPT
        ]
        arguments: list[str] = []
        if part is Part.LEDGER:
            # Its tables, those of schemas that others fill, and the grants are made by the migrations.
            arguments = ["--data-only", f"--schema={_quoted(_LEDGER_SCHEMA)}"]
            mine = [each for each in mine if each[0] == _LEDGER_SCHEMA]
        elif part is Part.SERVING:
            # In schemas of the owner's.
            arguments = [f"--table={_quoted(schema)}.{_quoted(name)}" for schema, name, _ in mine]
        else:
            inside = [name for name, owner in owner_of.items() if owner == part.owner_name]
            arguments = [f"--schema={_quoted(name)}" for name in inside]
            arguments += [
                f"--exclude-table={_quoted(schema)}.{_quoted(name)}"
                for schema, name, owner, _ in relations
                if schema in inside and owner != part.owner_name
            ]
        tables = tuple(Table(schema, name) for schema, name, is_table in mine if is_table)
        holdings[part] = Holdings(tuple(arguments), tables)
    return Inventory(holdings, tuple(left_out))


def restorable(entries: Iterable[str]) -> list[str]:
    """Those entries of a dump's table of contents that are restored."""
    return [line for line in entries if "TRIGGER" not in line.split() or f" {NOTING_TRIGGERS}" not in line]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
