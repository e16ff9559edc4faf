"""Marts of the pipeline's own history: what they say of a ledger that is made up, and that they outlive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dbt.conftest import Dbt, Outcome, bad

BUILD = ("build", "--select", "group:pipeline", "--exclude", "resource_type:unit_test")
LEDGER = """
insert into ops.loads (load_id, source, stream, status, attempt, started_at, loaded_at, rows_extracted, rows_inserted,
    rows_updated, rows_unchanged, rows_duplicate, rows_quarantined)
select gen_random_uuid(), 'api', 'orders', status, attempt, at::timestamptz, at::timestamptz + took, n, n - 1, 0, 0, 0,
    1
from (values
    ('loaded', 1, '2024-03-01 10:00Z', interval '10 s', 100), ('loaded', 3, '2024-03-01 11:00Z', interval '30 s', 50),
    ('failed', 2, '2024-03-01 12:00Z', null, 1), ('loaded', 1, '2024-03-02 10:00Z', interval '5 s', 10)
) as given (status, attempt, at, took, n);
insert into ops.dbt_invocations (invocation_id, command, dbt_version, is_success, started_at, ended_at)
select 'b' || day || '-' || n, 'build', '1', true, day, day from
    (values ('2024-03-01 23:50Z'::timestamptz), ('2024-03-08 10:00Z')) as given (day), generate_series(1, 3) n;
insert into ops.dbt_results (invocation_id, node, name, resource_type, layer, status, rows_affected, started_at,
    ended_at, compiled_sha256)
select invocation_id, node, node, kind, 'marts', case when invocation_id like '%-3' then bad else good end, 7,
    started_at, started_at + took * right(invocation_id, 1)::int, right(invocation_id, 1)
from ops.dbt_invocations, (values
    ('model.a', 'model', 'success', 'error', interval '1 s'), ('model.b', 'model', 'success', 'success', interval '5 s')
) as given (node, kind, good, bad, took);
insert into ops.dbt_results (invocation_id, node, name, resource_type, status, severity, failures, started_at, ended_at,
    tests)
select invocation_id, 'test.t', 't', 'test', (array['pass', 'warn', 'fail'])[number], 'error', number - 1, started_at,
    started_at, array['model.a', 'model.b']
from ops.dbt_invocations, lateral (select right(invocation_id, 1)::int as number) n;
insert into ops.freshness (checked_at, source, stream, as_of, status)
select at::timestamptz, 'api', 'orders', as_of::timestamptz, status from (values
    ('2024-03-01 10:00Z', '2024-03-01 09:00Z', 'fresh'), ('2024-03-01 20:00Z', '2024-03-01 09:00Z', 'late'),
    ('2024-03-01 21:00Z', '2024-03-01 09:00Z', 'stale')
) as given (at, as_of, status);
"""
NODES = "select node_name, run_date::text, runs, failed_runs, versions, written_rows, median_seconds::float,"
NODES += " p95_seconds::float, slowness_rank from marts.fct_daily_dbt_nodes where node_name like 'model._'"
NODES += " order by 2, 1"
TESTS = "select run_date::text, runs, passed_runs, warned_runs, failed_runs, most_failing_rows, last_outcome,"
TESTS += " tested_nodes from marts.fct_daily_dbt_tests where test_name = 't' order by 1"
CLEAN = "delete from ops.dbt_invocations; delete from ops.freshness;"


@pytest.fixture(scope="module")
def of_the_ledger(dbt: Dbt, of_good_data: dict[str, Outcome]) -> Iterator[Dbt]:
    """The marts, built from a ledger of a few days; all of it is gone afterwards."""
    dbt.warehouse.execute(LEDGER)
    assert bad(dbt.run(*BUILD)) == {}
    yield dbt
    dbt.warehouse.execute(f"{CLEAN} delete from ops.loads where source = 'api'")
    for mart in ("nodes", "tests"):
        dbt.warehouse.execute(f"delete from marts.fct_daily_dbt_{mart}")
    dbt.warehouse.execute("delete from marts.fct_daily_stream_freshness")


def test_loads_are_counted_by_day_with_failures_retries_and_quarantine(of_the_ledger: Dbt) -> None:
    assert of_the_ledger.warehouse.query(
        "select load_date::text, loads, committed_loads, failed_loads, retries, extracted_rows, quarantined_rows,"
        " median_seconds::float, p95_seconds::float from marts.fct_daily_stream_loads where source_name = 'api'"
        " order by 1"
    ) == [("2024-03-01", 3, 2, 1, 3, 151, 3, 20.0, 29.0), ("2024-03-02", 1, 1, 0, 0, 10, 1, 5.0, 5.0)]


def test_nodes_and_tests_are_counted_by_the_day_on_which_their_build_began(of_the_ledger: Dbt) -> None:
    assert of_the_ledger.warehouse.query(NODES) == [
        ("model.a", "2024-03-01", 3, 1, 3, 21, 2.0, 2.9, 2),
        ("model.b", "2024-03-01", 3, 0, 3, 21, 10.0, 14.5, 1),
        ("model.a", "2024-03-08", 3, 1, 3, 21, 2.0, 2.9, 2),
        ("model.b", "2024-03-08", 3, 0, 3, 21, 10.0, 14.5, 1),
    ]
    first, _ = of_the_ledger.warehouse.query(TESTS)
    day, *counts, last, tested = first
    assert (day, counts, tested) == ("2024-03-01", [3, 1, 1, 1, 2], "model.a, model.b")
    assert last in ("passed", "warned", "failed"), "the three began at one instant"


def test_freshness_has_the_days_greatest_lag_and_its_last_word(of_the_ledger: Dbt) -> None:
    assert of_the_ledger.warehouse.query(
        "select checks, late_checks, stale_checks, greatest_lag_hours::float, last_status"
        " from marts.fct_daily_stream_freshness where source_name = 'api'"
    ) == [(3, 1, 1, 12.0, "stale")]


def test_days_outlive_what_they_were_made_from_and_a_full_refresh(of_the_ledger: Dbt) -> None:
    before = of_the_ledger.warehouse.query(NODES), of_the_ledger.warehouse.query(TESTS)
    of_the_ledger.warehouse.execute(CLEAN)
    of_the_ledger.warehouse.execute(LEDGER.partition(";")[2].replace("2024-03-01 23:50Z", "2024-03-09 00:10Z"))
    assert bad(of_the_ledger.run(*BUILD, "--full-refresh")) == {}
    after = of_the_ledger.warehouse.query(NODES)
    assert after[:4] == before[0]
    assert [row[1] for row in after[4:]] == ["2024-03-09", "2024-03-09"]
    assert of_the_ledger.warehouse.query(TESTS)[:2] == before[1]
