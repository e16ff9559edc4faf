"""What each role may do, in a warehouse that has been through everything: as the list has it, as the page prints it, as
PostgreSQL says, and as it turns out when it is tried."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.migrations import upgrade
from connectors.destinations.warehouse.publish import publish
from connectors.destinations.warehouse.role_check import deviations, rule_of, strangers
from connectors.destinations.warehouse.roles import DATABASE, LEDGER, ROLES, SCHEMAS, Grants
from connectors.ingest import Destination
from tasks.dbt_graph import Graph
from tests.conftest import Server, Warehouse
from tests.connectors.examples import erp, load_table
from tests.flows.transforms import Transforms

PAGE = Path(__file__).resolve().parents[2] / "docs" / "roles.md"
SHORT = {role: role.removeprefix("headwater_") for role in ROLES}
STATEMENTS = {
    "select": "explain select * from {table}",
    "insert": "explain insert into {table} default values",
    "update": "explain update {table} set {column} = null",
    "delete": "explain delete from {table}",
    "truncate": "truncate {table}",
}
"""They are checked for privileges and, but for the last, not executed."""


def as_the_page_has_it(server: Server, name: str) -> None:
    """A database made by the statements of docs/roles.md; the roles are there."""
    [script] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with server.connect() as connection:
        for statement in script.split(";")[len(ROLES) :]:
            if statement.strip():
                connection.execute(statement.replace("database headwater", f"database {name}").encode())


@pytest.fixture(scope="module")
def whole(postgres: Server, _transforms: Transforms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A copy of a warehouse that real builds were published in, with a load and a second generation on top."""
    name = f"roles_{time.monotonic_ns()}"
    postgres.create_database(name, template=_transforms.warehouse.database, owner="headwater_owner")
    warehouse = Warehouse(postgres, name)
    source = f"source_{name}"
    try:
        warehouse.execute("drop schema kept cascade")  # the tests' own
        # What is granted on a database is not copied with it.
        warehouse.execute(f"revoke all on database {name} from public")
        for role, privileges in DATABASE.items():
            warehouse.execute(f"grant {', '.join(privileges)} on database {name} to {role}")
        postgres.create_database(source)
        with postgres.connect(source) as connection:
            connection.execute("create table t (id int primary key, v text); insert into t values (1, 'a')")
            landing = Landing(StoreLocation(tmp_path_factory.mktemp("landing").as_uri()))
            destination = Destination(warehouse.url("loader"), landing)
            load_table(erp(name="t", primary_key=("id",)), connection, warehouse, destination)
        with warehouse.connect("transformer") as connection:
            connection.execute("update marts.dim_airlines set airline_name = airline_name || '!'")
        marts = Graph(json.loads((_transforms.target / "manifest.json").read_bytes())).marts()
        prepare(warehouse.url("transformer"), marts)
        publish(warehouse.url("publisher"), marts, invocation_id="roles")
        yield warehouse
    finally:
        postgres.drop_database(name)
        postgres.drop_database(source)


def relations(warehouse: Warehouse) -> list[tuple[str, str, str, str, str]]:
    """Schema, name, kind, owner and a column of every table and view in Headwater's schemas."""
    found = warehouse.query(
        "select n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner), min(a.attname) from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " and not a.attisdropped and a.attidentity = '' where c.relkind in ('r', 'v', 'm')"
        " group by 1, 2, 3, 4 order by 1, 2"
    )
    return [each for each in found if rule_of(each[0]) is not None]


def test_a_whole_warehouse_is_as_the_list_has_it(whole: Warehouse) -> None:
    there = [rule_of(schema) for schema, *_ in relations(whole)]
    assert {rule.name for rule in there if rule} >= {rule.name for rule in SCHEMAS} - {"loading", "failures"}
    with whole.connect("watcher") as connection:
        assert deviations(connection) == []
        assert strangers(connection) == []


@pytest.mark.usefixtures("_warehouse_template")  # makes the roles
def test_a_warehouse_made_as_the_page_says_is_as_the_list_has_it_before_anything_is_loaded(postgres: Server) -> None:
    name = f"roles_{time.monotonic_ns()}"
    try:
        as_the_page_has_it(postgres, name)
        warehouse = Warehouse(postgres, name)
        upgrade(warehouse.url("owner"))
        with warehouse.connect("reader") as connection:
            assert deviations(connection) == []
    finally:
        postgres.drop_database(name)


def test_what_is_promised_can_be_done_and_nothing_else(whole: Warehouse) -> None:
    """Every role tries everything with every table; what the list says is worked out here once more, from its print."""
    tried = 0
    for role in ROLES:
        with whole.connect(SHORT[role]) as connection:
            connection.execute("set lock_timeout = '5s'")
            for (schema, name, kind, owner, column), privilege in product(relations(whole), STATEMENTS):
                rule = rule_of(schema)
                assert rule is not None
                if privilege == "truncate" and kind == "v":
                    continue  # no view can be emptied
                granted = rule.exceptions.get(name, rule.inside).get(role, frozenset())
                single = rule.exceptions.get(f"{name}.{column}", {}).get(role, frozenset())
                # A role sees no table of a schema that it may not use, whatever it may do with the table.
                may_enter = role == rule.owner or "usage" in rule.grants.get(role, ())
                expected = may_enter and (owner == role or privilege in granted | single)
                statement = sql.SQL(STATEMENTS[privilege]).format(
                    table=sql.Identifier(schema, name), column=sql.Identifier(column)
                )
                found = _may(connection, statement)
                if found is None:
                    continue
                assert found == expected, (role, schema, name, privilege)
                tried += 1
    assert tried > 2000


def _may(connection: psycopg.Connection, statement: sql.Composed) -> bool | None:
    """Whether a role gets as far as that; None where nobody would, as with a view of several tables."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return None
    except psycopg.errors.FeatureNotSupported:  # it may; others that refer to the table would have to be emptied too
        return True
    return True


@pytest.mark.parametrize(
    ("spoiling", "says", "mending"),
    [
        (
            "grant select on ops.loads to public",
            "PUBLIC, which is everybody, has select on ops.loads",
            "revoke select on table ops.loads from public",
        ),
        (
            "grant update (status) on ops.loads to headwater_reader",
            "headwater_reader has update (status) on ops.loads",
            "revoke update (status) on table ops.loads from headwater_reader",
        ),
        (
            "revoke usage on schema serving from headwater_reader",
            "headwater_reader lacks usage on schema serving",
            "grant usage on schema serving to headwater_reader",
        ),
        (
            "grant execute on function ops.note_changes to headwater_loader",
            "headwater_loader has execute on function ops.note_changes()",
            "revoke execute on function ops.note_changes() from headwater_loader",
        ),
        (
            "alter table raw_erp.t owner to headwater_transformer",
            "raw_erp.t belongs to headwater_transformer, not to headwater_loader",
            "alter table raw_erp.t owner to headwater_loader",
        ),
        (
            "alter role headwater_watcher createdb",
            "has the attribute createdb",
            "alter role headwater_watcher nocreatedb",
        ),
        (
            "grant pg_read_all_data to headwater_watcher",
            "headwater_watcher may do all that pg_read_all_data may",
            "revoke pg_read_all_data from headwater_watcher",
        ),
    ],
)
def test_what_deviates_is_told_with_the_statement_that_mends_it(
    whole: Warehouse, spoiling: str, says: str, mending: str
) -> None:
    # In a transaction that is never committed: other tests have the same roles.
    with whole.server.connect(whole.database) as connection, connection.transaction(force_rollback=True):
        connection.execute(spoiling.encode())
        found = deviations(connection)
        told = next(each for each in found if says in each.what)
        assert told.remedy == mending
        connection.execute(mending.encode())
        connection.execute("grant select on raw_erp.t to headwater_transformer")  # a former owner's rights went with it
        assert deviations(connection) == []


def test_a_role_of_the_team_s_own_that_sees_more_than_serving_is_named(whole: Warehouse) -> None:
    name = f"analyst_{time.monotonic_ns()}"
    with whole.server.connect(whole.database) as connection, connection.transaction(force_rollback=True):
        who = sql.Identifier(name)
        connection.execute(sql.SQL("create role {}").format(who))
        connection.execute(sql.SQL("grant select on all tables in schema serving, marts to {}").format(who))
        assert strangers(connection) == [(name, "marts")]


def printed() -> list[str]:
    """The tables of docs/roles.md."""
    columns = [f"`{SHORT[role]}`" for role in ROLES]

    def row(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    def cells(grants: Grants, owner: str | None = None) -> list[str]:
        return ["owns" if role == owner else ", ".join(sorted(grants.get(role, ()))) for role in ROLES]

    rule = "|---" * (len(ROLES) + 1) + "|"
    schemas = [row("On", *columns), rule, row("the database", *cells(DATABASE, ROLES[0]))]
    schemas += [row(f"schema `{each.name}`", *cells(each.grants, each.owner)) for each in SCHEMAS]
    inside = [row("In", "made by", *columns), rule + "---|"]
    inside += [
        row(
            f"`{each.name}`",
            ", ".join(SHORT[role] for role in sorted(each.owners_inside)),
            *cells(each.inside),
        )
        for each in SCHEMAS
        if each.name not in ("public", "ops")
    ]
    ledger = [row("`ops`", *columns[1:5]), "|---" * 5 + "|"]
    ledger += [row(f"`{name}`", *cells(grants)[1:5]) for name, grants in LEDGER.items()]
    return ["\n".join(table) for table in (schemas, inside, ledger)]


def test_the_page_prints_the_list() -> None:
    page = PAGE.read_text()
    for table in printed():
        assert table in page, f"docs/roles.md should have this table:\n{table}"


def test_the_page_makes_the_roles_without_any_attribute() -> None:
    made = re.findall(r"^create role (\w+) login password '…';$", PAGE.read_text(), re.MULTILINE)
    assert tuple(made) == ROLES
    assert PAGE.read_text().count("create role") == len(ROLES)
