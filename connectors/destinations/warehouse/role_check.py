"""Holds the list of `roles` against what PostgreSQL says of a warehouse: both what is missing and what is too much.

It asks what each role can do in the end (`has_table_privilege` and its like), not what was granted to it, so that what
comes by way of PUBLIC or of another role counts too. Any role may ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import psycopg
from psycopg import sql

from connectors.destinations.warehouse.roles import DATABASE, OWNER, ROLES, SCHEMAS, Grants, SchemaRule

PUBLIC = "public"
"""Everybody, as PostgreSQL's own functions call it."""
_TABLE_PRIVILEGES = ("select", "insert", "update", "delete", "truncate", "references", "trigger")
_COLUMN_PRIVILEGES = ("select", "insert", "update", "references")
_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence"}
_HELD = """array(
    select role || ' ' || privilege
    from unnest(%(roles)s::text[]) role, unnest(%(privileges)s::text[]) privilege where {}
)"""
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that is not as the list has it."""

    what: str
    """A sentence."""
    remedy: str
    """A statement of SQL that mends it."""


@dataclass(frozen=True, slots=True)
class _Object:
    """A table, a column, a schema, the database: what privileges are on."""

    kind: str
    name: str
    """As it is written in a statement."""
    owner: str
    held: Grants
    """What each role can do with it."""
    expected: Grants
    owners: frozenset[str] = _NONE
    """Who may own it; empty: that is judged elsewhere."""
    column: str | None = None
    may_lack: bool = False
    """Whether what is missing is no deviation."""


def deviations(connection: psycopg.Connection) -> list[Deviation]:
    """All that is not as it should be, roles first, then from the database down."""
    rows = connection.execute(
        "select rolname from pg_catalog.pg_roles where rolname = any(%s)", [list(ROLES)]
    ).fetchall()
    if missing := [role for role in ROLES if (role,) not in rows]:
        return [Deviation(f"There is no role {role}.", f"create role {role} login password '…'") for role in missing]
    found = list(_role_deviations(connection))
    for each in _objects(connection):
        found += _deviations_of(each)
    return found


def strangers(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Roles that are not Headwater's and that were granted something in its schemas, with the schema; `serving` is for
    whoever is let in, and is left out."""
    rows = connection.execute(
        """
        select distinct grantee.rolname, n.nspname
        from pg_catalog.pg_namespace n
        left join pg_catalog.pg_class c on c.relnamespace = n.oid
        cross join lateral (
            select grantee from pg_catalog.aclexplode(n.nspacl)
            union all select grantee from pg_catalog.aclexplode(c.relacl)
        ) acl
        join pg_catalog.pg_roles grantee on grantee.oid = acl.grantee
        where not grantee.rolsuper and grantee.rolname <> all(%s) and grantee.rolname not like 'pg\\_%%'
        order by 1, 2
        """,
        [list(ROLES)],
    ).fetchall()
    return [(role, schema) for role, schema in rows if schema != "serving" and rule_of(schema) is not None]


def rule_of(schema: str) -> SchemaRule | None:
    """The rule that a schema falls under; None for one that is not Headwater's."""
    return next((rule for rule in SCHEMAS if fnmatchcase(schema, rule.name)), None)


def _role_deviations(connection: psycopg.Connection) -> Iterator[Deviation]:
    flags = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls")
    rows = connection.execute(
        sql.SQL("select rolname, array[{}] from pg_catalog.pg_roles where rolname = any(%s)").format(
            sql.SQL(", ").join(map(sql.Identifier, flags))
        ),
        [list(ROLES)],
    ).fetchall()
    for role, held in rows:
        for name in (flag.removeprefix("rol") for flag, has in zip(flags, held, strict=True) if has):
            word = "superuser" if name == "super" else name
            yield Deviation(f"{role} has the attribute {word}.", f"alter role {role} no{word}")
    memberships = connection.execute(
        """
        select member.rolname, granted.rolname
        from pg_catalog.pg_auth_members m
        join pg_catalog.pg_roles member on member.oid = m.member
        join pg_catalog.pg_roles granted on granted.oid = m.roleid
        where member.rolname = any(%(roles)s) or (granted.rolname = any(%(roles)s) and not member.rolsuper
            and not member.rolcreaterole)
        order by 1, 2
        """,
        {"roles": list(ROLES)},
    ).fetchall()
    for member, granted in memberships:
        yield Deviation(
            f"{member} may do all that {granted} may: it is a member of it.",
            f"revoke {_written(granted)} from {_written(member)}",
        )


def _deviations_of(each: _Object) -> Iterator[Deviation]:
    name = each.name
    on = f"{each.kind} {name}" if each.kind != "table" else name
    if each.owners and each.owner not in each.owners:
        should = " or ".join(sorted(each.owners))
        yield Deviation(
            f"{on} belongs to {each.owner}, not to {should}.",
            f"alter {each.kind} {name} owner to {min(each.owners)}",
        )
        return  # what its owner should have would be told once more, privilege by privilege
    for role in (PUBLIC, *ROLES):
        if role == each.owner:
            continue
        held, expected = each.held.get(role, _NONE), each.expected.get(role, _NONE)
        who = "PUBLIC, which is everybody," if role == PUBLIC else role
        column = f" ({each.column})" if each.column else ""
        for verb, names in (("grant", expected - held), ("revoke", held - expected)):
            if names and not (verb == "grant" and each.may_lack):
                words = ", ".join(f"{word}{column}" for word in sorted(names))
                yield Deviation(
                    f"{who} {'lacks' if verb == 'grant' else 'has'} {words} on {on}.",
                    f"{verb} {words} on {each.kind} {name} {'to' if verb == 'grant' else 'from'} {role}",
                )


def _objects(connection: psycopg.Connection) -> Iterator[_Object]:
    """All that privileges are on and that is Headwater's."""
    for name, owner, held in _ask(
        connection,
        "select d.datname, pg_catalog.pg_get_userbyid(d.datdba), {held} from pg_catalog.pg_database d"
        " where d.datname = current_database()",
        "pg_catalog.has_database_privilege(role, d.oid, privilege)",
        ("connect", "create", "temporary"),
    ):
        yield _Object("database", _written(name), owner, held, DATABASE, frozenset((OWNER,)))
    for name, owner, held in _ask(
        connection,
        "select n.nspname, pg_catalog.pg_get_userbyid(n.nspowner), {held} from pg_catalog.pg_namespace n order by 1",
        "pg_catalog.has_schema_privilege(role, n.oid, privilege)",
        ("usage", "create"),
    ):
        if (rule := rule_of(name)) is not None:
            # Of a database that was made by PostgreSQL 15 or later, `public` belongs to whoever owns the database.
            owner = OWNER if owner == "pg_database_owner" else owner
            yield _Object("schema", _written(name), owner, held, rule.grants, frozenset((rule.owner,)))
    is_17 = connection.info.server_version >= 170000
    for schema, name, kind, owner, held in _ask(
        connection,
        "select n.nspname, c.relname, c.relkind, pg_catalog.pg_get_userbyid(c.relowner), {held}"
        " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_' order by 1, 2",
        "case when c.relkind <> 'S' then pg_catalog.has_table_privilege(role, c.oid, privilege)"
        " when privilege in ('select', 'update') then pg_catalog.has_sequence_privilege(role, c.oid, privilege) end",
        _TABLE_PRIVILEGES + (("maintain",) if is_17 else ()),
    ):
        if (rule := rule_of(schema)) is not None:
            expected = rule.sequences if kind == "S" else rule.exceptions.get(name, rule.inside)
            word = _KINDS.get(kind, "table")
            yield _Object(
                word,
                _written(schema, name),
                owner,
                held,
                expected,
                rule.owners_inside,
                may_lack=rule.is_built_anew,
            )
    for schema, name, column, owner, held in _ask(
        connection,
        "select n.nspname, c.relname, a.attname, pg_catalog.pg_get_userbyid(c.relowner), {held}"
        " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_'"
        " and (a.attacl is not null or n.nspname || '.' || c.relname || '.' || a.attname = any(%(columns)s))"
        " order by 1, 2, 3",
        "pg_catalog.has_column_privilege(role, c.oid, a.attnum, privilege)",
        _COLUMN_PRIVILEGES,
        columns=[f"{rule.name}.{name}" for rule in SCHEMAS for name in rule.exceptions if "." in name],
    ):
        if (rule := rule_of(schema)) is not None:
            whole, single = rule.exceptions.get(name, rule.inside), rule.exceptions.get(f"{name}.{column}", {})
            expected = {
                role: (whole.get(role, _NONE) & set(_COLUMN_PRIVILEGES)) | single.get(role, _NONE) for role in ROLES
            }
            yield _Object("table", _written(schema, name), owner, held, expected, column=column)
    for schema, name, signature, owner, held in _ask(
        connection,
        "select n.nspname, p.proname, p.oid::regprocedure::text, pg_catalog.pg_get_userbyid(p.proowner), {held}"
        " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname not in ('pg_catalog', 'information_schema') order by 1, 2",
        "pg_catalog.has_function_privilege(role, p.oid, privilege)",
        ("execute",),
    ):
        # What others put into `public`, extensions above all, is out of reach: nobody may use that schema.
        if (rule := rule_of(schema)) is not None and schema != "public":
            expected = rule.exceptions.get(f"{name}()", {})
            yield _Object("function", signature, owner, held, expected, rule.owners_inside)


def _ask(
    connection: psycopg.Connection, query: str, test: str, privileges: tuple[str, ...], **parameters: Any
) -> list[tuple[Any, ...]]:
    """Rows of a query, in which `{held}`, the last column, stands for who may do what by a test: privileges by role."""
    held = _HELD.format(test)
    rows = connection.execute(
        query.format(held=held).encode(),
        {"roles": [PUBLIC, *ROLES], "privileges": list(privileges), **parameters},
    ).fetchall()
    return [(*row[:-1], _by_role(row[-1])) for row in rows]


def _written(*names: str) -> str:
    """A name as part of a statement that people read: in quotes where it needs them."""
    return ".".join(
        name if re.fullmatch("[a-z_][a-z0-9_]*", name) else f'"{name.replace(chr(34), 2 * chr(34))}"' for name in names
    )


def _by_role(pairs: list[str]) -> Grants:
    found: dict[str, frozenset[str]] = {}
    for pair in pairs:
        role, _, name = pair.partition(" ")
        found[role] = found.get(role, _NONE) | {name}
    return found
