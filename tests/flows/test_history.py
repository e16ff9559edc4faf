"""What each build leaves in `ops` and in Prefect; and that nothing that can go wrong there touches the build."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect_sqlalchemy import SqlAlchemyConnector

import tasks.transform
from connectors.connections import Database, EnvironmentConnections
from connectors.destinations.warehouse.history import forget_history
from connectors.errors import ConfigurationError, DataError
from connectors.ingest import WAREHOUSE_LOADER
from connectors.model import Cursor
from connectors.postgres import PostgresSource, TableStream
from connectors.registry import SOURCES
from flows.transform import transform
from tasks.credentials import (
    DOCS_LINK,
    STATUS_PAGE_LINK,
    WAREHOUSE_PUBLISHER,
    WAREHOUSE_TRANSFORMER,
    WAREHOUSE_WATCHER,
    register,
)
from tasks.dbt_results import message_of
from tests.conftest import Warehouse
from tests.shop import GOOD, Shop

MANY_SECONDS = 20.0
"""More than history and the status page may wait between them, and less than a lock is waited for."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs the flow on the shop's project."""

    warehouse: Warehouse
    warnings: Callable[[], list[str]]

    def run(self, spoil: str = "", **parameters: Any) -> Any:
        self.warehouse.execute(GOOD + spoil)
        return transform(**parameters)

    def last(self, columns: str) -> tuple[Any, ...]:
        [row] = self.warehouse.query(f"select {columns} from ops.dbt_invocations order by collected_at desc limit 1")
        return row

    def results(self, columns: str) -> dict[str, tuple[Any, ...]]:
        """Of the last build, by name."""
        rows = self.warehouse.query(
            f"select name, {columns} from ops.dbt_results where invocation_id ="
            " (select invocation_id from ops.dbt_invocations order by collected_at desc limit 1)"
        )
        return {name: row for name, *row in rows}  # type: ignore[misc]


UNIT_TEST = """
unit_tests:
  - name: staff_are_as_staged
    model: dim_staff
    given: [{input: ref('stg_staff'), rows: [{id: 1, part: 50}]}]
    expect: {rows: [{id: 1, part: 50}]}
"""


@pytest.fixture
def unit_test(builder: Builder) -> Iterator[None]:
    path = tasks.transform.DBT_PROJECT / "models/marts/unit_tests.yml"
    path.write_text(UNIT_TEST)
    yield
    path.unlink()


@pytest.fixture
def builder(
    shop: Shop, prefect_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Builder:
    monkeypatch.setattr(tasks.transform, "DBT_PROJECT", shop.folder)
    monkeypatch.setattr(tasks.transform, "DBT_TARGET", shop.folder / "target")
    streams = (
        TableStream(name="orders", primary_key=("id",), cursor=Cursor("at")),
        TableStream(name="staff", primary_key=("id",)),
        TableStream(name="unread", primary_key=("id",)),
    )
    monkeypatch.setitem(SOURCES, "shop", PostgresSource(name="shop", database=Database("erp"), streams=streams))
    needed = (WAREHOUSE_LOADER, WAREHOUSE_TRANSFORMER, WAREHOUSE_PUBLISHER, WAREHOUSE_WATCHER)
    urls = {
        each.environment_variable: shop.warehouse.url(each.name.partition("_")[2]).render_as_string(hide_password=False)
        for each in needed
    }
    register(EnvironmentConnections(urls), needed)
    return Builder(
        shop.warehouse, lambda: [each.getMessage() for each in caplog.records if "history" in each.getMessage()]
    )


def shown(key: str) -> list[dict[str, Any]]:
    """The latest artifact of a key."""
    with get_client(sync_client=True) as client:
        found = [each for each in client.read_artifacts() if each.key == key]
    latest = max(found, key=lambda each: each.created)  # type: ignore[arg-type, return-value]
    rows: list[dict[str, Any]] = json.loads(latest.data) if isinstance(latest.data, str) else latest.data  # type: ignore[assignment]
    return rows


def links() -> dict[str, str]:
    """Where the latest links lead, by key."""
    with get_client(sync_client=True) as client:
        found = [each for each in client.read_artifacts() if each.key in ("dbt-docs", "status-page")]
    found.sort(key=lambda each: str(each.created))
    return {str(each.key): str(each.data).partition("](")[2].rstrip(")") for each in found}


@pytest.mark.usefixtures("unit_test")
def test_a_build_leaves_its_invocation_each_nodes_result_the_lineage_and_how_fresh_each_stream_was(
    builder: Builder,
) -> None:
    builder.warehouse.execute(
        "insert into ops.loads (load_id, source, stream, status, attempt, started_at, rows_extracted, rows_inserted,"
        " rows_updated, rows_unchanged, rows_duplicate, rows_quarantined)"
        " select gen_random_uuid(), 'shop', stream, 'loaded', 1, now() - age, 0, 0, 0, 0, 0, 0"
        " from (values ('orders', interval '3 days'), ('unread', interval '1 hour')) as given (stream, age)"
    )
    published = builder.run()
    assert builder.warnings() == []
    columns = "selection, is_success, generation, error, ended_at > started_at, run_id ~ '^flow run transform all'"
    assert builder.last(columns) == (None, True, published.generation, None, True, True)
    results = builder.results("resource_type, status, layer, materialized, severity, failures, rows_affected, tests")
    assert results["fct_orders"] == ["model", "success", "marts", "incremental", None, None, 3, []]
    tested = ["model.shop.stg_orders"]
    assert results["not_null_stg_orders_total"] == ["test", "pass", None, None, "error", 0, None, tested]
    assert results["source_unique_shop_orders_id"][-1] == ["source.shop.shop.orders"]
    assert len(results["assert_orders_and_staff_agree"][-1]) == 2
    assert results["staff_are_as_staged"][-1] == ["model.shop.dim_staff"], "and not what it is given rows for"
    assert len(results) == 11
    [(complete,)] = builder.warehouse.query(
        "select bool_and(ended_at >= started_at and compiled_sha256 ~ '^[0-9a-f]{64}$') from ops.dbt_results"
    )
    assert complete
    assert links() == {"dbt-docs": (tasks.transform.DBT_TARGET / "static_index.html").resolve().as_uri()}

    before = builder.results("compiled_sha256")
    pages = {"HEADWATER_DOCS_LINK": "https://docs.test/", "HEADWATER_STATUS_PAGE_LINK": "https://status.test/"}
    register(EnvironmentConnections(pages), (DOCS_LINK, STATUS_PAGE_LINK))
    builder.run()
    assert links() == {"dbt-docs": "https://docs.test/", "status-page": "https://status.test/"}
    assert builder.results("compiled_sha256")["dim_staff"] == before["dim_staff"], "the same query, the same mark"

    walk = """
    with recursive walk as (
        select 'stream.shop.orders' as node
        union select child from walk join ops.lineage_edges on parent = node
    ) select string_agg(name, ' ' order by name) from walk join ops.lineage_nodes using (node)
    """
    assert builder.warehouse.query(walk) == [("all_in_one fct_orders orders orders stg_orders",)]
    nodes = "select kind, layer, mart_group, owner, relation from ops.lineage_nodes where name = "
    assert builder.warehouse.query(nodes + "'fct_orders'") == [("model", "marts", "sales", "sales", "marts.fct_orders")]
    assert builder.warehouse.query("select count(*) from ops.lineage_nodes where kind = 'test'") == [(6,)]

    freshness = "select stream, status, late_at - as_of, stale_at - as_of from ops.freshness where source = 'shop'"
    freshness += " and checked_at = (select max(checked_at) from ops.freshness) order by stream"
    assert builder.warehouse.query(freshness) == [
        ("orders", "late", timedelta(days=2), timedelta(days=4)),
        ("staff", "never loaded", None, None),
        ("unread", "not watched", None, None),
    ]
    statuses = builder.warehouse.query("select distinct status from serving.data_status where mart = 'fct_orders'")
    assert statuses == [("late",)], "as the trust record says"


def test_a_build_that_fails_is_written_down_with_why_and_without_the_values_that_broke_it(builder: Builder) -> None:
    spoil = "alter table raw_shop.staff alter size type text; update raw_shop.staff set size = 'secret-81' where id = 2"
    model = tasks.transform.DBT_PROJECT / "models/staging/stg_staff.sql"
    text = model.read_text()
    model.write_text(text.replace("size)", "size::int)"))
    try:
        with pytest.raises(DataError, match="Readers of `sales` have generation"):
            builder.run(spoil)
    finally:
        model.write_text(text)
    assert builder.last("is_success, generation is not null, error") == (False, True, None)
    results = builder.results("status, message, started_at is null")
    status, message, _ = results["dim_staff"]
    assert status == "error"
    assert 'invalid input syntax for type integer: "***"' in message
    assert results["all_in_one"] == ["skipped", None, True]
    first, *_ = shown("dbt-results")
    assert (first["node"], first["status"]) == ("dim_staff", "error")
    assert "secret-81" not in str(builder.warehouse.query("select * from ops.dbt_results")) + str(shown("dbt-results"))
    [(why,)] = builder.warehouse.query("select held_back_why from ops.serving_groups where mart_group = 'people'")
    assert "***" in why


def test_a_selection_is_written_down_and_leaves_the_lineage_alone(builder: Builder) -> None:
    builder.warehouse.execute("delete from ops.lineage_edges; delete from ops.lineage_nodes")
    assert builder.run(select="stg_staff") is None
    assert builder.last("selection, is_success, generation") == ("stg_staff", True, None)
    assert builder.results("status") == {"stg_staff": ["success"]}
    assert builder.warehouse.query("select count(*) from ops.lineage_nodes") == [(0,)]
    with get_client(sync_client=True) as client:
        assert "transform stg_staff" in {run.name for run in client.read_flow_runs()}


def test_a_build_that_does_not_start_is_written_down_with_the_reason(builder: Builder) -> None:
    with pytest.raises(ConfigurationError):
        builder.run(select="no_such_model")
    success, error = builder.last("is_success, error")
    assert not success
    assert "selected nothing by `no_such_model`" in error
    assert builder.results("status") == {}


FAULTS = {
    "the role cannot write": (
        "revoke insert on ops.dbt_invocations from headwater_watcher",
        "grant insert on ops.dbt_invocations to headwater_watcher",
        "permission denied for table dbt_invocations",
    ),
    "a trigger sleeps": (
        """
        create function ops.sleep() returns trigger language plpgsql as
        $$ begin perform pg_sleep(600); return new; end $$;
        create trigger sleep before insert on ops.dbt_invocations execute function ops.sleep()
        """,
        "drop function ops.sleep cascade",
        "statement timeout",
    ),
    "the table is gone": (
        "alter table ops.dbt_invocations rename to elsewhere",
        "alter table ops.elsewhere rename to dbt_invocations",
        "Run `headwater migrate`",
    ),
    "a trigger fails": (
        """
        create function ops.refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;
        create trigger refuse before insert on ops.dbt_results execute function ops.refuse()
        """,
        "drop function ops.refuse cascade",
        "refused",
    ),
}


@contextmanager
def injected(warehouse: Warehouse, fault: str) -> Iterator[str]:
    """A fault of the history's tables, and what is said of it."""
    break_it, mend_it, said = FAULTS[fault]
    warehouse.execute(break_it)
    try:
        yield said
    finally:
        warehouse.execute(mend_it)


@contextmanager
def waits_little(warehouse: Warehouse) -> Iterator[None]:
    """However long a build takes on a busy machine: its statements do not wait in the warehouse for long."""
    waits = (
        "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'"
        " and usename = 'headwater_watcher' and wait_event_type in ('Lock', 'Timeout')"
    )
    over, waited = threading.Event(), 0.0

    def look() -> None:
        nonlocal waited
        with warehouse.server.connect(warehouse.database) as connection:
            before = time.monotonic()
            while not over.wait(0.1):
                now = time.monotonic()
                if connection.execute(waits.encode()).fetchone() != (0,):
                    waited += now - before
                before = now

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert 0 < waited < MANY_SECONDS


@pytest.mark.parametrize("fault", FAULTS)
def test_history_that_cannot_be_written_is_one_warning_and_the_build_ends_well(builder: Builder, fault: str) -> None:
    watched = waits_little(builder.warehouse) if fault == "a trigger sleeps" else nullcontext()
    with injected(builder.warehouse, fault) as said, watched:
        assert builder.run(select="stg_staff") is None
    [warning] = builder.warnings()
    assert said in warning
    assert "The build itself is as it is." in warning


def test_history_whose_table_is_locked_is_not_waited_for_and_the_rest_of_it_is_written(builder: Builder) -> None:
    builder.warehouse.execute("delete from ops.lineage_edges; delete from ops.lineage_nodes")
    with builder.warehouse.server.connect(builder.warehouse.database) as connection, connection.transaction():
        connection.execute("lock table ops.dbt_results")
        with waits_little(builder.warehouse):
            assert builder.run().generation is not None
    [warning] = builder.warnings()
    assert "lock" in warning
    assert builder.warehouse.query("select count(*) > 15 from ops.lineage_nodes") == [(True,)]


def test_without_a_watcher_a_build_ends_well(builder: Builder) -> None:
    SqlAlchemyConnector.delete(WAREHOUSE_WATCHER.block_name)
    assert builder.run(select="stg_staff") is None
    [warning] = builder.warnings()
    assert "block sqlalchemy-connector/warehouse-watcher" in warning


DUPLICATE = 'Database Error in model m duplicate key value violates unique constraint "k" compiled code at m.sql'


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            """Database Error in model m
  duplicate key value violates unique constraint "k"
  DETAIL:  Key (email)=(a@b.test) already exists.
  compiled code at m.sql""",
            DUPLICATE,
        ),
        ('column "totl" does not exist', 'column "totl" does not exist'),
        ('date/time field value out of range: "31.12.81"', 'date/time field value out of range: "***"'),
        ('value "99999999999" is out of range for type integer', 'value "***" is out of range for type integer'),
        ('invalid input for type json\nDETAIL:  Token "x".\nCONTEXT:  JSON data: x', "invalid input for type json"),
        ("Got 3 results, configured to fail if != 0", "Got 3 results, configured to fail if != 0"),
        (None, ""),
        ("a\0b", "ab"),
        ("\x1b[32mactual\x1b[0m differs from \x1b[0;1mexpected\x1b[0m", "actual differs from expected"),
    ],
)
def test_messages_keep_names_and_lose_values(said: str | None, shown: str) -> None:
    assert message_of(said) == shown


def test_old_history_is_forgotten_in_small_parts_and_none_that_is_young(warehouse: Warehouse) -> None:
    warehouse.execute(
        "insert into ops.dbt_invocations (invocation_id, command, dbt_version, is_success, started_at, ended_at)"
        " select 'i' || n, 'build', '1', true, now() - n * interval '1 day', now() from generate_series(1, 200) n;"
        "insert into ops.dbt_results (invocation_id, node, name, resource_type, status)"
        " select invocation_id, 'n' || n, 'n', 'model', 'success' from ops.dbt_invocations, generate_series(1, 3) n;"
        "insert into ops.freshness (checked_at, source, stream, status)"
        " select now() - n * interval '1 hour', 's', 't', 'fresh' from generate_series(1, 9000) n"
    )
    watcher = warehouse.url("watcher")
    assert forget_history(watcher, seconds=0) == (0, 0), "no time, no work"
    assert forget_history(watcher, kept=timedelta(days=90)) == (111, 9000 - 90 * 24 + 1)
    counts = "select (select count(*) from ops.dbt_invocations), (select count(*) from ops.dbt_results)"
    assert warehouse.query(counts) == [(89, 267)]
    assert forget_history(watcher) == (0, 0)
    with pytest.raises(ConfigurationError, match="cannot be kept for only 2 days"):
        forget_history(watcher, kept=timedelta(days=2))
    assert datetime.now(UTC) - warehouse.query("select min(checked_at) from ops.freshness")[0][0] < timedelta(days=90)
