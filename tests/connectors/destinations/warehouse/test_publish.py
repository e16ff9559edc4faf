"""Publishing: all marts at once, only what differs, and never under a reader's feet."""

from __future__ import annotations

import threading
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.marts import Index, Mart, PublishReport
from connectors.destinations.warehouse.migrations import upgrade
from connectors.destinations.warehouse.publish import publish
from connectors.destinations.warehouse.rollback import roll_back
from tests.conftest import Server, Warehouse

FACTS = Mart("fct_orders", "marts", ("id",), "Orders, one row each.", {"id": "The order.", "total": "In euro."})
SUMS = Mart("fct_sums", "marts", ("kind",))


@pytest.fixture
def built(warehouse: Warehouse) -> Warehouse:
    with warehouse.connect("transformer") as connection:
        connection.execute(
            """
            create schema marts;
            create table marts.fct_orders as
                select n as id, (n * 10)::numeric as total, 'k' || n % 3 as kind from generate_series(1, 100) n;
            create table marts.fct_sums as select kind, sum(total) as total from marts.fct_orders group by kind;
            """
        )
    return warehouse


def run(warehouse: Warehouse, *marts: Mart) -> PublishReport:
    marts = marts or (FACTS, SUMS)
    prepare(warehouse.url("transformer"), marts)
    return publish(warehouse.url("publisher"), marts, invocation_id="test")


def read(warehouse: Warehouse, statement: str) -> list[tuple[object, ...]]:
    with warehouse.connect("reader") as connection:
        return connection.execute(statement.encode()).fetchall()


def change(warehouse: Warehouse, statements: str) -> None:
    with warehouse.connect("transformer") as connection:
        connection.execute(statements.encode())


def test_readers_see_what_was_published_and_nothing_else(built: Warehouse) -> None:
    run(built)
    assert read(built, "select count(*), sum(total) from serving.fct_orders") == [(100, 50500)]
    for table in ("marts.fct_orders", "published.fct_orders", "ops.loads"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            read(built, f"select * from {table}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        read(built, "delete from serving.fct_orders")


def test_only_rows_that_differ_are_written(built: Warehouse) -> None:
    first = run(built)
    assert [(mart.inserted, mart.updated, mart.deleted) for mart in first.marts] == [(100, 0, 0), (3, 0, 0)]
    assert all(mart.moved == 0 for mart in run(built).marts)
    change(
        built,
        "update marts.fct_orders set total = null where id = 7; delete from marts.fct_orders where id > 98;"
        "insert into marts.fct_orders values (500, 1, 'k9')",
    )
    before = dict(built.query("select id, xmin::text from published.fct_orders"))
    third = run(built)
    assert (third.marts[0].inserted, third.marts[0].updated, third.marts[0].deleted) == (1, 1, 2)
    after = dict(built.query("select id, xmin::text from published.fct_orders"))
    assert {key for key in after if before.get(key) != after[key]} == {7, 500}
    assert read(built, "select mart, generation, rows from serving.data_status order by 1") == [
        ("fct_orders", 3, 99),
        ("fct_sums", 3, 3),
    ]


def test_dbt_dropping_its_tables_takes_nothing_from_readers(built: Warehouse) -> None:
    run(built)
    change(built, "drop table marts.fct_orders cascade")
    assert read(built, "select count(*) from serving.fct_orders") == [(100,)]


def test_if_one_mart_cannot_be_published_none_is(built: Warehouse) -> None:
    run(built)
    change(built, "update marts.fct_sums set total = 0; insert into marts.fct_orders values (1, 0, 'twin')")
    report = run(built, SUMS, FACTS)
    assert report.generation is None
    assert "key (id) of the mart `fct_orders` is not unique" in report.held_back["ungrouped"]
    assert read(built, "select count(*) from serving.fct_sums where total = 0") == [(0,)]
    assert read(built, "select max(generation) from serving.data_status") == [(1,)]


def test_a_mart_that_changes_shape_is_served_in_its_new_shape(built: Warehouse) -> None:
    run(built)
    change(built, "alter table marts.fct_orders add note text, alter total type text")
    run(built)
    assert read(built, "select total, note from serving.fct_orders where id = 1") == [("10", None)]


def test_a_mart_whose_columns_change_places_is_served_in_the_new_order(built: Warehouse) -> None:
    run(built)
    change(
        built,
        "alter table marts.fct_orders add id2 int; update marts.fct_orders set id2 = id;"
        "alter table marts.fct_orders drop id; alter table marts.fct_orders rename id2 to id",
    )
    run(built)
    with built.connect("reader") as connection:
        described = connection.execute("select * from serving.fct_orders limit 0").description
    assert [column.name for column in described or ()] == ["total", "kind", "id"]
    assert read(built, "select count(*) from serving.fct_orders") == [(100,)]


def indexes(warehouse: Warehouse) -> dict[str, str]:
    """What the copy of the facts has beside its key, by name."""
    return dict(
        warehouse.query(
            "select indexname, split_part(indexdef, ' USING ', 2) from pg_indexes where schemaname = 'published'"
            " and tablename = 'fct_orders' and indexname not like 'key\\_%%'"
        )
    )


def test_readers_have_the_indexes_of_a_mart_in_each_of_its_shapes(built: Warehouse) -> None:
    by_kind = replace(FACTS, indexes=(Index(("kind", "id")), Index(("total",), "hash")))
    run(built)
    assert indexes(built) == {}
    run(built, by_kind, SUMS)
    before = indexes(built)
    assert sorted(before.values()) == ["btree (kind, id)", "hash (total)"]
    run(built, by_kind, SUMS)
    assert indexes(built) == before, "they are made once"
    for column in ("note", "remark"):  # the table goes to undo with its indexes, twice
        change(built, f"alter table marts.fct_orders add {column} text")
        run(built, by_kind, SUMS)
        assert sorted(indexes(built).values()) == sorted(before.values())
    roll_back(built.url("publisher"), by="test", why="no remarks")
    assert sorted(indexes(built).values()) == sorted(before.values())
    with built.connect("reader") as connection:
        described = connection.execute("select * from serving.fct_orders limit 0").description
    assert [column.name for column in described or ()] == ["id", "total", "kind", "note"]


def test_an_index_that_a_mart_no_longer_has_goes_and_one_made_by_hand_stays(built: Warehouse) -> None:
    run(built, replace(FACTS, indexes=(Index(("kind",)), Index(("total",)))), SUMS)
    built.execute("create index by_hand on published.fct_orders (total desc)")
    run(built, replace(FACTS, indexes=(Index(("total",)),)), SUMS)
    assert sorted(indexes(built).values()) == ["btree (total DESC)", "btree (total)"]


def test_two_publishers_at_once_take_turns(built: Warehouse) -> None:
    run(built)
    change(built, "update marts.fct_orders set total = total + 1")
    reports: list[PublishReport | Exception] = []

    def work() -> None:
        try:
            reports.append(publish(built.url("publisher"), (FACTS, SUMS), invocation_id="test"))
        except Exception as error:  # noqa: BLE001 - looked at below
            reports.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = [report for report in reports if isinstance(report, PublishReport)]
    assert len(published) == 4, reports
    assert sorted(report.generation for report in published) == [2, 3, 4, 5]
    assert sum(report.marts[0].updated for report in published) == 100


def test_a_mart_that_is_no_longer_built_is_no_longer_served(built: Warehouse) -> None:
    run(built)
    run(built, SUMS)
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(built, "select * from serving.fct_orders")


def test_descriptions_become_comments(built: Warehouse) -> None:
    run(built)
    comments = "select col_description('serving.fct_orders'::regclass, n) from generate_series(1, 3) n"
    assert built.query(comments) == [("The order.",), ("In euro.",), (None,)]
    run(built, replace(FACTS, columns={"id": "Its number."}), SUMS)
    assert built.query(comments)[0] == ("Its number.",)


def test_a_mart_without_key_or_table_is_refused_by_name(built: Warehouse) -> None:
    assert "`fct_orders` has no primary key" in run(built, replace(FACTS, key=())).held_back["ungrouped"]
    assert "no mart marts.dim_absent" in run(built, Mart("dim_absent", "marts", ("id",))).held_back["ungrouped"]
    assert "cannot be called `data_status`" in run(built, Mart("data_status", "marts", ("id",))).held_back["ungrouped"]


def test_readers_never_see_marts_of_two_generations(built: Warehouse) -> None:
    """A reader's transaction that sums both marts finds them equal, while generation after generation is published."""
    run(built)
    stop = threading.Event()
    wrong: list[object] = []
    seen = set()

    def poll() -> None:
        with built.connect("reader") as connection:
            while not stop.is_set():
                row = connection.execute(
                    "select (select sum(total) from serving.fct_orders), (select sum(total) from serving.fct_sums)"
                ).fetchone()
                assert row is not None
                seen.add(row[0])
                if row[0] != row[1]:
                    wrong.append(row)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for _ in range(10):
            change(
                built,
                "update marts.fct_orders set total = total + 1; delete from marts.fct_sums;"
                "insert into marts.fct_sums select kind, sum(total) from marts.fct_orders group by kind",
            )
            run(built)
    finally:
        stop.set()
        reader.join()
    assert not wrong
    assert len(seen) > 2


def test_a_warehouse_from_before_there_were_groups_goes_on(postgres: Server) -> None:
    """Its copies, and the view that the publisher then made of the generations."""
    name = f"before_groups_{uuid4().hex[:8]}"
    postgres.create_database(name, owner="headwater_owner")
    before = Warehouse(postgres, name)
    try:
        upgrade(before.url("owner"), to="0003")
        with before.connect("publisher") as connection:
            connection.execute(
                """
                create table published.fct_orders (id int, total numeric, kind text, primary key (id));
                insert into published.fct_orders values (1, 9, 'k1'), (500, 1, 'gone');
                create view serving.fct_orders as select * from published.fct_orders;
                insert into ops.publishes values (7, now(), 'old');
                insert into ops.published_marts values (7, 'fct_orders', 2, 0, 0, 2);
                create view serving.data_status as select mart, generation from ops.published_marts;
                """
            )
        upgrade(before.url("owner"))
        change(before, "create schema marts; create table marts.fct_orders (id int, total numeric, kind text)")
        change(before, "insert into marts.fct_orders values (1, 10, 'k1'), (2, 20, 'k2')")
        [report] = run(before, FACTS).marts
        assert (report.inserted, report.updated, report.deleted, report.total) == (1, 1, 1, 2)
        assert read(before, "select mart, generation, rows from serving.data_status") == [("fct_orders", 8, 2)]
    finally:
        postgres.drop_database(name)
