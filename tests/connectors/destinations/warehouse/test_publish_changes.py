"""What is served equals the mart, whatever was done to it; and only what changed is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.destinations.warehouse import changes
from connectors.destinations.warehouse.marts import Mart
from connectors.destinations.warehouse.publish import publish
from tests.conftest import Server, Warehouse, create_warehouse
from tests.connectors.destinations.warehouse.publishing import BUILD, ORDERS, SUMS, change, content, read, run
from tests.waiting import until

ROWS = Mart("rows", "marts", ("id", "part"), is_incremental=True)
MAKE = """
drop table if exists marts.rows cascade;
create table marts.rows as
    select n as id, 'a' || n % 2 as part, n::numeric as amount, null::text as note from generate_series(1, 60) n;
"""

_ids = st.integers(1, 70)
_amounts = st.sampled_from(["null", "1", "1.0", "1.00", "'NaN'", "amount + 1", "-amount"])
_add = "alter table marts.rows add column if not exists more int default"
_drop = "alter table marts.rows drop column if exists more"
_as_dbt_does = """
begin;
delete from marts.rows where id = {0};
insert into marts.rows (id, part, amount) values ({0}, 'again', {0});
commit
"""
_unseen = """
alter table marts.rows disable trigger user;
update marts.rows set amount = 5 where id < 4;
alter table marts.rows enable trigger user
"""
_emptied = """
create temporary table kept as select * from marts.rows;
truncate marts.rows;
insert into marts.rows select * from kept;
drop table kept;
update marts.rows set amount = 3 where id = 9
"""
_swapped = """
alter table marts.rows rename to gone;
create table marts.rows as select * from marts.gone;
drop table marts.gone;
update marts.rows set note = 'swapped' where id = 7
"""
_merged = """
merge into marts.rows r using (values (3, 'a1'), (4000, 'm')) v (id, part) on r.id = v.id and r.part = v.part
when matched then update set note = 'merged'
when not matched then insert (id, part) values (v.id, v.part)
"""
OPERATIONS = st.one_of(
    st.builds("update marts.rows set amount = {} where id = {}".format, _amounts, _ids),
    st.builds("update marts.rows set part = 'b' || part where id = {}".format, _ids),
    st.builds("update marts.rows set id = id + 1000 where id = {}".format, _ids),
    st.builds("delete from marts.rows where id between {0} and {0} + 5".format, _ids),
    st.builds(
        "delete from marts.rows where id = {0}; insert into marts.rows (id, part) values ({0}, 'n')".format, _ids
    ),
    st.builds(_as_dbt_does.format, _ids),
    st.builds("begin; update marts.rows set amount = 7 where id = {}; rollback".format, _ids),
    st.sampled_from(
        [
            MAKE,
            _unseen,
            _emptied,
            _swapped,
            _merged,
            "truncate marts.rows",
            f"{_add} 1",
            _drop,
            f"{_drop}; {_add} 2",
            "alter table marts.rows alter amount type double precision",
            "alter table marts.rows alter amount type numeric using amount::numeric",
            "alter table marts.rows alter id type bigint",
            "drop trigger if exists headwater_notes_update on marts.rows; update marts.rows set note = 'unseen'",
        ]
    ),
)


@pytest.fixture(scope="module")
def house(postgres: Server) -> Iterator[Warehouse]:
    """One warehouse for all examples: what one leaves, the next has to cope with."""
    warehouse = create_warehouse(postgres, f"publish_changes_{uuid4().hex[:8]}")
    change(warehouse, "create schema marts")
    try:
        yield warehouse
    finally:
        postgres.drop_database(warehouse.database)


@pytest.mark.parametrize("examples", [10, pytest.param(200, marks=pytest.mark.chaos)])
def test_what_is_served_equals_the_mart_after_any_changes(house: Warehouse, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=3), min_size=1, max_size=4))
    def check(rounds: list[list[str]]) -> None:
        change(house, MAKE)
        run(house, ROWS)
        for statements in rounds:
            for statement in statements:
                change(house, statement)
            run(house, ROWS)
            assert content(house, "serving.rows") == content(house, "marts.rows")
            assert house.query("select rows from serving.data_status") == house.query("select count(*) from marts.rows")

    check()


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    change(warehouse, BUILD)
    run(warehouse)
    return warehouse


def looked_at(built: Warehouse) -> bool:
    """Whether a publish looks at a row of fct_orders that nobody has noted: it was spoiled where it is served."""
    before = content(built, "published.fct_orders")
    built.execute("update published.fct_orders set total = -1 where id = 50")
    run(built)
    found = content(built, "published.fct_orders") == before
    built.execute("update published.fct_orders set total = 500 where id = 50")
    return found


def test_of_an_incremental_mart_only_the_rows_that_were_written_are_looked_at(built: Warehouse) -> None:
    assert not looked_at(built)
    change(built, "update marts.fct_orders set total = 5 where id = 1; delete from marts.fct_orders where id = 2")
    report = run(built).marts[0]
    assert (report.inserted, report.updated, report.deleted, report.total) == (0, 1, 1, 99)
    assert built.query("select count(*) from pg_tables where schemaname = 'changes'") == [(1,)]
    assert not looked_at(built)


SURPRISES = {
    "truncated": """
        truncate marts.fct_orders;
        insert into marts.fct_orders select n, n * 10, 'k' || n % 3 from generate_series(1, 100) n
        """,
    "not followed for a while": """
        alter table marts.fct_orders disable trigger headwater_notes_update;
        alter table marts.fct_orders enable always trigger headwater_notes_update
        """,
    "made anew": """
        create table marts.other as select * from marts.fct_orders;
        drop table marts.fct_orders;
        alter table marts.other rename to fct_orders
        """,
    "rewritten": "vacuum full marts.fct_orders",
    "most rows were written": "update marts.fct_orders set total = total + 0",
}


@pytest.mark.parametrize("statement", SURPRISES.values(), ids=SURPRISES)
def test_where_the_notes_may_not_be_all_of_it_all_rows_are_looked_at(built: Warehouse, statement: str) -> None:
    for part in statement.split(";"):
        change(built, part)
    assert looked_at(built)


def test_changes_of_a_transaction_that_is_open_during_a_publish_are_in_the_next(built: Warehouse) -> None:
    with built.connect("transformer") as writer:
        writer.execute("begin")
        writer.execute("update marts.fct_orders set total = 0 where id = 1")
        change(built, "update marts.fct_orders set total = 0 where id = 2")
        publish(built.url("publisher"), (ORDERS, SUMS), invocation_id="test")
        assert read(built, "select id from serving.fct_orders where total = 0") == [(2,)]
        writer.execute("commit")
    assert run(built).marts[1].updated == 0
    assert read(built, "select id from serving.fct_orders where total = 0 order by 1") == [(1,), (2,)]


def test_notes_do_not_break_a_build_that_changes_the_key(built: Warehouse) -> None:
    change(built, "alter table marts.fct_orders rename id to order_id; update marts.fct_orders set total = 1")
    assert "has no column id" in run(built).held_back["sales"]
    assert read(built, "select count(*) from serving.fct_orders where total = 1") == [(0,)]


def test_notes_that_nobody_publishes_do_not_grow_for_ever(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_SMALL_BYTES", 0)
    for _ in range(20):
        change(built, "update marts.fct_orders set total = total + 1")
        changes.prepare(built.url("transformer"), (ORDERS,))
    notes = built.query("select sum(pg_relation_size(oid)) from pg_class where relnamespace = 'changes'::regnamespace")
    assert notes < built.query("select 3 * pg_relation_size('marts.fct_orders')")
    run(built)
    assert content(built, "serving.fct_orders") == content(built, "marts.fct_orders")


def test_notes_of_tables_that_are_gone_go(built: Warehouse) -> None:
    change(built, "drop table marts.fct_orders; create table marts.fct_orders as select 1 as id")
    run(built)
    assert built.query("select count(*) from pg_tables where schemaname = 'changes'") == [(1,)]


def test_whoever_has_a_table_and_then_wants_its_entry_in_the_catalog_is_waited_for(warehouse: Warehouse) -> None:
    """As an autovacuum of what dbt has just made: if the entry were changed first, each would wait for the other."""
    change(warehouse, BUILD)
    with warehouse.connect("transformer") as vacuum, ThreadPoolExecutor(1) as pool:
        with vacuum.transaction():
            vacuum.execute("lock table marts.fct_orders in share update exclusive mode")
            prepared = pool.submit(changes.prepare, warehouse.url("transformer"), [ORDERS])
            waits = "select from pg_locks where not granted and relation = 'marts.fct_orders'::regclass"
            until(lambda: warehouse.query(waits), "it waits for the table")
            vacuum.execute("alter table marts.fct_orders set (autovacuum_enabled = true)")
        prepared.result(timeout=60)
    assert run(warehouse).generation == 1
