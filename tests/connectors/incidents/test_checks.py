"""What is wrong, as `ops` says it: each trouble is seen, says what to type, and is gone with the next good run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
import pytest
import typer
import yaml

from connectors import errors
from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.ledger import Lease
from connectors.destinations.warehouse.marts import Feed, Mart
from connectors.destinations.warehouse.positions import positions
from connectors.destinations.warehouse.publish import publish
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.incidents.checks import CHECKS, commands, take_stock
from connectors.incidents.checks.loads import CAUSES, cause_of
from connectors.incidents.observe import Observed
from connectors.incidents.rules import Rules
from connectors.ingest import Destination, ingest
from connectors.model import Window, Windows
from connectors.reconcile.run import can_be_reconciled
from connectors.registry import SOURCES
from deployments.cli import app
from deployments.local.layout import PROJECT_ROOT
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Prepare, Shop, erp, load, order, shop_source
from tests.connectors.incidents.watching import MART, STREAM, events, incidents, shop

RUN = "flow run ingest shop (0189d6f2-0000-7000-8000-000000000001)"


def look(warehouse: Warehouse, *scopes: str, rules: Rules | None = None) -> Observed:
    """As a run does at its end; every command that it says can be typed."""
    found = take_stock(warehouse.url("watcher"), scopes or CHECKS, rules=rules or Rules())
    assert found.problems == ()
    for (command,) in warehouse.query("select next_command from ops.signs"):
        parse(command)
    return found


def signs(warehouse: Warehouse, columns: str = "kind, severity, node") -> list[Any]:
    return warehouse.query(f"select {columns} from ops.signs order by key")


def parse(command: str) -> None:
    """Have the command line take a command apart, without doing it."""
    program, *words = shlex.split(command)
    if program == "prefect":
        assert words[:2] == ["deployment", "run"]
        assert words[2].count("/") == 1
        return
    assert program == "headwater"
    group: click.Command = typer.main.get_command(app)
    context = click.Context(group)
    while isinstance(group, click.Group):
        _, found, words = group.resolve_command(context, words)
        assert found is not None
        group = found
        context = click.Context(group, parent=context)
    group.make_context(group.name, words)


@contextmanager
def refusing(api: Api, status: int) -> Iterator[None]:
    before = api.answer
    api.answer = lambda _: Answer({"error": "no"}, status)
    try:
        yield
    finally:
        api.answer = before


def test_a_source_that_fails_is_one_incident_through_five_runs_and_recovers_with_the_next_good_one(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1)])
    source = shop_source()
    shop(warehouse)
    load(source, api, destination)
    assert look(warehouse).opened == ()
    with refusing(api, 503):
        for number in range(5):
            with pytest.raises(errors.SourceUnavailableError):
                load(source, api, destination, run=RUN)
            assert look(warehouse).opened == ((1,) if number == 0 else ())
    [(title, cause, command, owner, run)] = warehouse.query(
        "select i.title, i.cause, i.next_command, i.owner, s.run_id"
        " from ops.incidents i join ops.signs s using (incident_id)"
    )
    assert title == "Stream shop.orders failed to load"
    assert "down, cannot be reached" in cause
    assert "503" in cause
    assert (command, owner, run) == ("prefect deployment run ingest/shop --watch", "platform", RUN)
    load(source, api, destination)
    assert look(warehouse).closed == (1,)
    assert events(warehouse) == ["opened", "sign gone", "closed"]


def test_streams_of_a_source_that_fail_alike_are_the_sources_trouble(warehouse: Warehouse) -> None:
    shop(warehouse)
    fail(
        warehouse, "crm.staff", "ConfigurationError", "The key was refused [source crm, stream staff, load 1] Mend it."
    )
    assert (look(warehouse).opened, incidents(warehouse, "root")) == ((1,), ["stream.crm.staff"])
    fail(
        warehouse, "crm.teams", "ConfigurationError", "The key was refused [source crm, stream teams, load 2] Mend it."
    )
    fail(warehouse, "crm.rooms", "ConfigurationError", "There is no table rooms [source crm, stream rooms] Mend it.")
    look(warehouse)
    assert incidents(warehouse, "incident_id, root, title") == [
        (1, "system.crm", "Source crm cannot be loaded: 2 of its streams fail for the same reason")
    ]
    fail(warehouse, "shop.orders", "DestinationUnavailableError", "The bucket did not answer")
    look(warehouse)
    assert incidents(warehouse, "root") == ["system.crm", "stream.shop.orders"]
    fail(warehouse, "erp.t", "DestinationUnavailableError", "The bucket did not answer in time")
    found = look(warehouse)
    assert (found.closed, incidents(warehouse, "root")) == ((2,), ["destination"])
    recover(warehouse, "shop.orders", "erp.t", "crm.staff", "crm.teams")
    look(warehouse)
    assert incidents(warehouse, "root") == ["stream.crm.rooms"]


def test_a_load_that_was_killed_is_seen_and_one_that_is_tried_again_is_not_yet_well(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1)])
    with pytest.raises(errors.SourceUnavailableError), refusing(api, 503):
        load(shop_source(), api, destination)
    look(warehouse)
    with Lease(warehouse.url("loader"), "shop", "orders", "another run"):
        warehouse.execute("update ops.loads set status = 'extracting', error = null, error_kind = null")
        assert (look(warehouse).closed, signs(warehouse, "kind")) == ((), [("load failed",)])
    warehouse.execute(
        "update ops.streams set holder = 'another run', holder_pid = 1, lease_until = now() + interval '1 h'"
    )
    assert (look(warehouse).opened, signs(warehouse, "kind")) == ((), [("load killed",)])
    load(shop_source(), api, destination)
    assert look(warehouse).closed == (1,)


def test_each_class_of_error_has_a_cause(warehouse: Warehouse) -> None:
    kinds = [HeadwaterError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in kinds[1:]:
        if kind.__module__ == "connectors.errors":
            assert cause_of(kind) in CAUSES.values(), kind
    fail(warehouse, "shop.orders", "SourceRewoundError", "The source is behind")
    fail(warehouse, "shop.lines", "ZeroDivisionError", "division by zero")
    look(warehouse)
    found = dict(signs(warehouse, "node, next_command || ' | ' || cause"))
    assert "-p full_refresh=true" in found["stream.shop.orders"]
    assert "run's log" in found["stream.shop.lines"]


def test_rows_in_quarantine_and_columns_that_are_gone_are_warnings(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    rows = [order(number, price=number, note="x") for number in range(3)]
    served = Shop(api, rows)
    source = shop_source(columns={"changed": "timestamptz", "at": "timestamptz", "price": "bigint"}, reject_limit=1.0)
    load(source, api, destination)
    assert look(warehouse).open == ()
    changed = "2024-01-02T00:00:00Z"
    served.orders = [order(7, price="dear", note="x", changed=changed), order(8, price=1, note="x", changed=changed)]
    load(source, api, destination)
    look(warehouse)
    [(kind, severity, node, title, command)] = signs(warehouse, "kind, severity, node, title, next_command")
    assert (kind, severity, node, command) == ("rows quarantined", "warning", STREAM, "headwater replay shop.orders")
    assert title.startswith("1 of 2 rows of the latest load of shop.orders")
    served.orders = [order(9, price=1, changed="2024-01-03T00:00:00Z")]
    load(source, api, destination)
    warehouse.execute(
        "insert into ops.schema_changes (source, stream, load_id, column_name, change)"
        " select source, stream, load_id, 'note', 'removed' from ops.loads order by started_at desc limit 1"
    )
    look(warehouse)
    assert signs(warehouse) == [("columns removed", "warning", STREAM)]
    warehouse.execute(
        "insert into ops.schema_changes (source, stream, load_id, column_name, change)"
        " select source, stream, load_id, column_name, 'returned' from ops.schema_changes where column_name = 'note'"
    )
    assert look(warehouse).open == ()


def test_a_stale_source_stays_stale_when_an_old_window_is_read_again_and_recovers_when_it_is_up_to_date(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    """Of a stream whose rows are read by window: its last window is of long ago, and all runs are green."""
    connection = source_database(
        "create table t (id int primary key, at timestamptz);"
        "insert into t select n, now() - n * interval '1 day' from generate_series(0, 9) n"
    )
    [(first, reached)] = warehouse.query("select (current_date - 9)::text, (current_date - 5)::text")
    source = erp(name="t", primary_key=("id",), event_time="at", cursor=None, windows=Windows(first=first))
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    environment = EnvironmentConnections({"HEADWATER_ERP_URL": url})
    warehouse.execute(
        "create schema marts; create table marts.fct_t as select 1 as id;"
        "grant usage on schema marts to headwater_publisher; grant select on marts.fct_t to headwater_publisher"
    )
    shop(warehouse)
    warehouse.execute(
        "insert into ops.lineage_nodes (node, kind, name) values ('stream.erp.t', 'stream', 't');"
        f"insert into ops.lineage_edges values ('stream.erp.t', '{MART}')"
    )
    mart = Mart("fct_t", "marts", ("id",), feeds=(Feed("erp", "t", timedelta(days=2), timedelta(days=4)),))

    def read(days_ago: int) -> None:
        [(start,)] = warehouse.query("select date_trunc('day', now()) - %s * interval '1 day'", [days_ago])
        day = Window(start, start + timedelta(days=1))
        ingest(source, source.streams[0], environment, destination, window=day)
        known = positions(warehouse.url("loader"), [source])
        publish(warehouse.url("publisher"), [mart], invocation_id="test", positions=known)

    for days_ago in (9, 8, 7, 6):
        read(days_ago)
    look(warehouse)
    [(kind, severity, title, command)] = signs(warehouse, "kind, severity, title, next_command")
    assert (kind, severity) == ("stream stale", "critical")
    assert title == f"erp.t is stale: readers have it up to {reached} 00:00 UTC"
    assert command == "prefect deployment run ingest/erp --watch"
    read(8)
    assert look(warehouse).closed == ()
    for days_ago in (5, 4, 3):
        read(days_ago)
    assert (look(warehouse).closed, signs(warehouse, "kind, severity")) == ((), [("stream late", "warning")])
    for days_ago in (2, 1):
        read(days_ago)
    assert look(warehouse).closed == (1,)


def test_what_dbt_says_of_the_latest_whole_build(warehouse: Warehouse) -> None:
    models = shop(warehouse)
    invocation(warehouse, "one", is_success=False)
    result(warehouse, "one", models[2], "error", message="column x does not exist")
    result(warehouse, "one", models[3], "skipped")
    result(warehouse, "one", "test.shop.orphans", "fail", "test", tests=[MART], failures=12)
    result(warehouse, "one", "test.shop.odd", "warn", "test", tests=["model.shop.dim_staff"], failures=1)
    result(warehouse, "one", "test.shop.agree", "fail", "test", tests=["model.shop.dim_staff", "model.crm.alone"])
    result(warehouse, "one", "unit_test.shop.given", "fail", "unit_test", tests=[MART], failures=1)
    look(warehouse)
    assert signs(warehouse, "kind, severity, node, title") == [
        ("model failed", "error", models[2], "dbt could not build m2"),
        ("test failed", "error", "test.shop.agree", "Test agree of dim_staff, alone failed"),
        ("test warned", "warning", "model.shop.dim_staff", "Test odd of dim_staff warns, 1 row"),
        ("test failed", "error", MART, "Test orphans of fct_orders failed, 12 rows"),
        ("test failed", "error", MART, "Unit test given of fct_orders failed"),
    ]
    assert incidents(warehouse, "root, affected_marts, owner") == [
        ("model.shop.dim_staff", ["dim_staff"], "people"),
        (models[2], ["fct_orders"], "sales"),
    ]
    invocation(warehouse, "of a part", selection="m2")
    assert look(warehouse).closed == ()
    invocation(warehouse, "broken off", is_success=False)
    look(warehouse)
    assert signs(warehouse) == [("build failed", "error", "build")]
    invocation(warehouse, "good")
    assert look(warehouse).open == ()


def test_a_build_that_was_killed_is_seen_until_one_has_run(warehouse: Warehouse) -> None:
    transformer = warehouse.url("transformer")
    with Lease(transformer, "dbt", "transform", "flow run a (1)"):
        assert look(warehouse).open == ()
    assert look(warehouse).open == ()
    warehouse.execute(
        "update ops.streams set holder = 'flow run a (1)', holder_pid = 1, lease_until = now() - interval '1 s'"
    )
    look(warehouse)
    assert signs(warehouse) == [("build killed", "error", "build")]
    with Lease(transformer, "dbt", "transform", "flow run b (2)"):
        pass
    assert look(warehouse).open == ()


def test_a_group_that_is_held_back_by_a_failed_test_is_the_same_incident_and_one_on_hold_a_warning(
    warehouse: Warehouse,
) -> None:
    shop(warehouse)
    invocation(warehouse, "one", is_success=False)
    result(warehouse, "one", "test.shop.orphans", "fail", "test", tests=[MART])
    warehouse.execute(
        "insert into ops.publishes (generation, invocation_id) values (1, 'before');"
        "insert into ops.serving_groups (mart_group, generation, held_back_since, held_back_why)"
        " values ('sales', 1, now(), 'orphans');"
        "insert into ops.serving_groups (mart_group, hold_since, hold_by, hold_why)"
        " values ('people', now(), 'ann', 'wrong currency');"
        "insert into ops.serving_marts (mart, mart_group, generation, invocation_id)"
        " values ('fct_orders', 'sales', 1, 'one')"
    )
    look(warehouse)
    assert incidents(warehouse, "root, severity, next_command") == [
        ("group.people", "warning", "headwater release --group people"),
        (MART, "error", "prefect deployment run transform/nyc --watch"),
    ]
    assert ("group held back", "error", "group.sales") in signs(warehouse)
    warehouse.execute(
        "insert into ops.published_sources values (1, 'fct_orders', 'shop', 'orders', now(), now(), now())"
    )
    assert look(warehouse, "serving").worse == (2,)
    assert incidents(warehouse, "severity, affected_dashboards") == [("warning", []), ("critical", ["board"])]
    invocation(warehouse, "two")
    warehouse.execute(
        "update ops.serving_groups set held_back_since = null, held_back_why = null, hold_since = null, hold_why = null"
    )
    look(warehouse, "serving", "builds")
    assert incidents(warehouse) == []


def test_windows_that_failed_are_seen_until_they_are_read(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    Shop(api, [order(1, at="2024-01-02T00:00:00Z")])
    source = shop_source()
    week = Window.parse("2024-01-01", "2024-01-05")
    with pytest.raises(errors.SourceUnavailableError), refusing(api, 503):
        load(source, api, destination, window=week)
    look(warehouse)
    [(kind, node, command)] = signs(warehouse, "kind, node, next_command")
    assert (kind, node) == ("windows failed", STREAM)
    assert "backfill run shop.orders --start 2024-01-01T00:00:00+00:00 --end 2024-01-05T00:00:00+00:00" in command
    load(source, api, destination, window=Window.parse("2024-01-01", "2024-01-03"))
    assert look(warehouse).closed == ()
    load(source, api, destination, window=Window.parse("2024-01-03", "2024-01-05"))
    assert look(warehouse).closed == (1,)


def test_a_backfill_that_was_killed_is_seen_until_another_one_is_begun(warehouse: Warehouse) -> None:
    backfill = (
        "insert into ops.backfills (backfill_id, source, stream, window_start, window_end, mode, rows_at_once, at_once,"
        " started_at) values (gen_random_uuid(), 'shop', 'orders', '2024-01-01Z', '2024-01-03Z', 'all', 1, 1,"
        " now() - interval '1 hour') returning backfill_id"
    )
    [(backfill_id,)] = warehouse.query(backfill)
    warehouse.execute(
        "insert into ops.backfill_windows (backfill_id, window_start, window_end, state, holder_pid)"
        f" values ('{backfill_id}', '2024-01-01Z', '2024-01-02Z', 'running', 1),"
        f" ('{backfill_id}', '2024-01-02Z', '2024-01-03Z', 'waiting', null)"
    )
    look(warehouse)
    assert signs(warehouse) == [("backfill killed", "error", STREAM)]
    warehouse.query(backfill.replace("now() - interval '1 hour'", "now()"))
    assert look(warehouse).open == ()


def test_rows_that_differ_are_seen_until_their_window_is_compared_again(warehouse: Warehouse) -> None:
    reconciliation(warehouse, "2024-01-01", "different", key='["7"]')
    reconciliation(warehouse, "2024-01-02", "equal")
    look(warehouse)
    [(kind, severity, node, command)] = signs(warehouse, "kind, severity, node, next_command")
    assert (kind, severity, node) == ("rows differ", "error", STREAM)
    assert command.endswith("--start 2024-01-01T00:00:00+00:00 --end 2024-01-02T00:00:00+00:00 --heal")
    reconciliation(warehouse, "2024-01-01", "healed")
    assert look(warehouse).closed == (1,)
    warehouse.execute(
        "insert into ops.reconciliations (reconciliation_id, source, stream, compared_by, status, error, ended_at)"
        " values (gen_random_uuid(), 'shop', 'orders', 'rows', 'failed', 'its run was killed', now())"
    )
    look(warehouse)
    assert signs(warehouse) == [("reconciliation failed", "warning", STREAM)]
    reconciliation(warehouse, "2024-01-02", "equal")
    assert look(warehouse).open == ()


def test_a_check_that_cannot_be_made_leaves_its_signs_and_the_other_checks(warehouse: Warehouse) -> None:
    shop(warehouse)
    fail(warehouse, "shop.orders", "SourceUnavailableError", "gone")
    look(warehouse)
    warehouse.execute(
        "alter table ops.streams rename to hidden; alter table ops.dbt_invocations rename column selection to s"
    )
    with pytest.raises(ConfigurationError, match="lacks a table or column"):
        take_stock(warehouse.url("watcher"))
    warehouse.execute("alter table ops.dbt_invocations rename column s to selection")
    found = take_stock(warehouse.url("watcher"))
    assert [problem.partition(":")[0] for problem in found.problems] == ["loads", "backfills", "quarantine", "builds"]
    assert found.open == (1,)
    with pytest.raises(ConfigurationError, match="There is no check `weather`. Use one of `loads`"):
        take_stock(warehouse.url("watcher"), ["weather"])


def fail(warehouse: Warehouse, name: str, kind: str, error: str) -> None:
    """A load that ended so."""
    source, _, stream = name.partition(".")
    with warehouse.connect("loader") as connection:
        connection.execute(
            "insert into ops.streams (source, stream, epoch, lease_until) values (%s, %s, 1, now())", [source, stream]
        )
        connection.execute(
            "insert into ops.loads (load_id, source, stream, status, attempt, error, error_kind, run_id)"
            " values (gen_random_uuid(), %s, %s, 'failed', 1, %s, %s, %s)",
            [source, stream, error, kind, RUN],
        )


def recover(warehouse: Warehouse, *names: str) -> None:
    for name in names:
        warehouse.execute(
            "insert into ops.loads (load_id, source, stream, status, attempt, rows_extracted, rows_inserted,"
            " rows_updated, rows_unchanged, rows_duplicate, rows_quarantined, raw_loaded_at)"
            f" values (gen_random_uuid(), split_part('{name}', '.', 1), split_part('{name}', '.', 2), 'loaded', 1,"
            " 0, 0, 0, 0, 0, 0, now())"
        )


def invocation(warehouse: Warehouse, name: str, *, is_success: bool = True, selection: str | None = None) -> None:
    with warehouse.connect("watcher") as connection:
        connection.execute(
            "insert into ops.dbt_invocations (invocation_id, command, selection, dbt_version, is_success, started_at,"
            " ended_at) values (%s, 'build', %s, '1.11', %s, clock_timestamp(), clock_timestamp())",
            [name, selection, is_success],
        )


def result(
    warehouse: Warehouse,
    of: str,
    node: str,
    status: str,
    resource_type: str = "model",
    tests: list[str] | None = None,
    failures: int | None = None,
    message: str = "Got results",
) -> None:
    with warehouse.connect("watcher") as connection:
        connection.execute(
            "insert into ops.dbt_results (invocation_id, node, name, resource_type, status, tests, failures, message)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [of, node, node.rpartition(".")[2], resource_type, status, tests or [], failures, message],
        )


def reconciliation(warehouse: Warehouse, day: str, status: str, key: str = "") -> None:
    with warehouse.connect("loader") as connection:
        row = connection.execute(
            "insert into ops.reconciliations (reconciliation_id, source, stream, compared_by, status, ended_at)"
            " values (gen_random_uuid(), 'shop', 'orders', 'rows', %s, now()) returning reconciliation_id",
            [status],
        ).fetchone()
        assert row is not None
        of = {"id": row[0], "start": f"{day}Z", "key": key}
        connection.execute(
            "insert into ops.reconciled_windows values ('shop', 'orders', %(start)s, %(id)s, now())"
            " on conflict (source, stream, window_start) do update set reconciliation_id = excluded.reconciliation_id",
            of,
        )
        if key:
            connection.execute(
                "insert into ops.differences (reconciliation_id, source, stream, window_start, window_end, key, kind,"
                " is_certain) values (%(id)s, 'shop', 'orders', %(start)s, %(start)s::timestamptz + interval '1 day',"
                " %(key)s, 'missing', true)",
                of,
            )


def test_the_deployments_that_commands_name_are_those_of_prefect_yaml() -> None:
    known = {
        f"{str(each['entrypoint']).split('.')[1]}/{each['name']}"
        for each in yaml.safe_load((PROJECT_ROOT / "prefect.yaml").read_text())["deployments"]
    }
    named = {commands.TRANSFORM}
    for source in SOURCES.values():
        named |= {commands.ingest(source.name), commands.ingest(source.name, full_refresh=True)}
        if any(stream.deletes for stream in source.streams):
            named.add(commands.deletions(source.name))
        if any(can_be_reconciled(source, stream) for stream in source.streams):
            named.add(commands.reconciliation(source.name))
    assert {shlex.split(command)[3] for command in named} <= known


def test_names_that_a_shell_would_take_apart_are_quoted() -> None:
    assert shlex.split(commands.release("sales & co")) == ["headwater", "release", "--group", "sales & co"]
    assert shlex.split(commands.replay("shop", "my orders; rm -r")) == ["headwater", "replay", "shop.my orders; rm -r"]
