"""Which of the shop's groups a failed node holds back, and what is served."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.destinations.warehouse.marts import Feed, PublishReport
from connectors.destinations.warehouse.windows import UnbuiltWindow
from connectors.errors import DataError
from tasks.dbt_graph import Outcome
from tasks.publish import check, shown
from tasks.transform import BuildReport
from tests.shop import Shop


def test_of_a_project_that_passes_all_groups_move_and_each_mart_knows_its_tests_and_streams(shop: Shop) -> None:
    report = shop.run()
    assert (report.groups, report.held_back) == (("people", "sales", "ungrouped"), {})
    assert shop.tests() == [("all_in_one", 5, 0, 0), ("dim_staff", 1, 0, 0), ("fct_orders", 5, 0, 0)]
    graph, _ = shop.build()
    marts = {mart.name: mart for mart in graph.marts()}
    orders = Feed("shop", "orders", timedelta(days=2), timedelta(days=4))
    assert marts["all_in_one"].feeds == (orders, Feed("shop", "staff"))
    assert marts["all_in_one"].reads == {"fct_orders", "dim_staff"}
    assert [(mart.group, mart.is_incremental) for mart in marts.values()].count(("sales", True)) == 1


@pytest.mark.parametrize(
    ("spoil", "moved", "says"),
    [
        (
            "update raw_shop.orders set total = null where id = 2",
            ("people",),
            "not_null_stg_orders_total: Got 1 result",
        ),
        ("insert into raw_shop.orders values (1, 1, 1, now())", ("people",), "source_unique_shop_orders_id: Got 1 "),
        ("update raw_shop.orders set staff_id = 9 where id = 2", ("people",), "relationships_fct_orders_staff_id__id_"),
        ("update raw_shop.staff set size = 0", ("sales",), "dim_staff: "),
        ("update raw_shop.staff set name = 'nobody'", (), "assert_orders_and_staff_agree: Got 3 results"),
        ("drop table raw_shop.staff", ("sales",), "stg_staff: "),
        ("update raw_shop.orders set total = 3", ("people", "sales", "ungrouped"), ""),
    ],
    ids=["test of staging", "test of a source", "relationship", "model", "across models", "view", "only a warning"],
)
def test_a_failed_node_holds_back_just_the_groups_that_depend_on_it(
    shop: Shop, spoil: str, moved: tuple[str, ...], says: str
) -> None:
    report = shop.run(spoil)
    assert report.groups == moved
    assert all(says in why for why in report.held_back.values()), report.held_back


def test_what_an_invocation_has_not_run_is_not_served(shop: Shop) -> None:
    graph, outcomes = shop.build()
    cut_short = [each for each in outcomes if each.name != "assert_orders_and_staff_agree"]
    whys = {name: verdict.why for name, verdict in graph.judge(cut_short).items()}
    assert set(whys.values()) == {"not run by this build: assert_orders_and_staff_agree"}
    assert all(verdict.why for verdict in graph.judge([]).values())


def test_a_hook_that_failed_holds_back_everything(shop: Shop) -> None:
    graph, outcomes = shop.build()
    hook = Outcome("operation.shop.shop-on-run-end-0", "shop-on-run-end-0", "error", "out of luck")
    whys = {verdict.why for verdict in graph.judge([*outcomes, hook]).values()}
    assert all("shop-on-run-end-0: out of luck" in why for why in whys)


def test_a_run_fails_with_what_failed_and_what_that_means_for_readers() -> None:
    failed = Outcome("test.shop.unique_id", "unique_id", "fail", "Got 2 results")
    skipped = Outcome("model.shop.fct_orders", "fct_orders", "skipped")
    build = BuildReport("test", 3, 1, 0, (failed, skipped), (failed,))
    nothing = PublishReport(None, (), (), {"sales": "unique_id: Got 2 results"})
    with pytest.raises(DataError) as of_all:
        check(build, nothing)
    assert str(of_all.value).startswith(
        "1 dbt node failed: unique_id: Got 2 results. 1 that need them were skipped. Nothing was published; readers"
    )
    one_group = PublishReport(7, ("people",), (), {"sales": "unique_id: Got 2 results"})
    with pytest.raises(DataError, match="Readers of `people` have generation 7; those of `sales` keep the last"):
        check(build, one_group)
    passed = BuildReport("test", 3, 1, 0, (skipped,))
    with pytest.raises(DataError, match="The build passed, but not all of it can be served: sales: unique_id"):
        check(passed, one_group)
    check(passed, PublishReport(7, ("people", "sales"), (), {}, {"other": "on hold"}))


def test_windows_count_as_built_when_no_mart_that_reads_them_was_held_back(shop: Shop) -> None:
    graph, _ = shop.build()
    windows = [UnbuiltWindow("shop", stream, None, None) for stream in ("orders", "staff", "unread")]  # type: ignore[arg-type] - not looked at
    built = {groups: [each.stream for each in shown(windows, graph.marts(), groups)] for groups in [
        ("people", "sales", "ungrouped"), ("people", "ungrouped"), ("people", "sales"),
    ]}  # fmt: skip
    assert list(built.values()) == [["orders", "staff", "unread"], ["staff", "unread"], ["unread"]]
