"""Each generic test of the local package, on a table that it passes and on tables that it fails, in one run of dbt.

The package is installed here as another project would install it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from dbt.artifacts.schemas.results import NodeStatus

from deployments.local.layout import PROJECT_ROOT
from tests.conftest import Warehouse
from tests.dbt.conftest import Dbt, Outcome

PACKAGE = PROJECT_ROOT / "dbt/packages/headwater_tests"
NOW = "2013-07-31T16:00:00Z"  # a Wednesday, noon in New York
NEW_YORK = "America/New_York"


@dataclass(frozen=True, slots=True)
class Case:
    """A test as it would be declared, on rows; and how many failures it reports."""

    test: str
    rows: str
    """A query."""
    arguments: dict[str, Any]
    failures: int = 0
    warns: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    column: str | None = None


def days(*, first: str, last: str, a_day: str = "10", without: tuple[str, ...] = ()) -> str:
    """Rows of some days, at noon in New York; `a_day` is SQL over `day`."""
    left_out = "".join(f" and day::date <> '{day}'" for day in without)
    return (
        f"select (day::date + time '12:00') at time zone '{NEW_YORK}' as happened_at"
        f" from generate_series('{first}'::timestamp, '{last}', '1 day') as day, generate_series(1, {a_day}) as each"
        f" where true{left_out}"
    )


KEYED = "select a, b from (values {}) as rows (a, b)"
BY_NEW_YORK = {"event_time": "happened_at", "time_zone": NEW_YORK}
# 100 rows on a weekday, 30 on a Saturday or Sunday.
WEEKLY = "case when extract(isodow from day) >= 6 then 30 else 100 end"
OTHER_ON_MONDAY = f"case when day::date = '2013-07-29' then {{}} else {WEEKLY} end"
WEEKS: dict[str, str] = {"first": "2013-06-01", "last": "2013-07-31"}
PARENT = {"to": "source('cases', 'parent')", "field": "id"}

CASES = {
    "key_kept": Case("unique_combination", KEYED.format("(1, 1), (1, 2)"), {"columns": ["a", "b"]}),
    "key_twice": Case("unique_combination", KEYED.format("(1, 1), (1, 1), (2, 2)"), {"columns": ["a", "b"]}, 1),
    "key_null": Case("unique_combination", KEYED.format("(1, 1), (1, null)"), {"columns": ["a", "b"]}, 1),
    "all_known": Case("columns_not_null", KEYED.format("(1, 1), (2, 2)"), {"columns": ["a", "b"]}),
    "one_unknown": Case("columns_not_null", KEYED.format("(1, 1), (2, null)"), {"columns": ["a", "b"]}, 1),
    "condition_true": Case("satisfies", KEYED.format("(1, 2), (2, 3)"), {"condition": "a < b"}),
    "condition_false_or_null": Case("satisfies", KEYED.format("(1, 2), (3, 2), (1, null)"), {"condition": "a < b"}, 2),
    "share_kept": Case(
        "satisfies", KEYED.format("(1, 2), (1, 2), (1, 2), (3, 2)"), {"condition": "a < b", "tolerated_share": 0.25}
    ),
    "share_exceeded": Case(
        "satisfies", KEYED.format("(1, 2), (1, 2), (3, 2)"), {"condition": "a < b", "tolerated_share": 0.25}, 1
    ),
    "range_closed": Case(
        "accepted_range", KEYED.format("(0, 0), (10, 0), (null, 0)"), {"minimum": 0, "maximum": 10}, column="a"
    ),
    "range_left": Case(
        "accepted_range", KEYED.format("(-1, 0), (11, 0), (5, 0)"), {"minimum": 0, "maximum": 10}, 2, column="a"
    ),
    "range_left_by_a_share": Case(
        "accepted_range",
        KEYED.format("(-1, 0), (5, 0)"),
        {"minimum": 0, "maximum": 10, "tolerated_share": 0.5},
        column="a",
    ),
    "orphans_within": Case(
        "relationship_within",
        KEYED.format("(1, 0), (2, 0), (3, 0), (9, 0), (null, 0)"),
        {**PARENT, "tolerated_share": 0.25},
        column="a",
    ),
    "orphans_beyond": Case(
        "relationship_within",
        KEYED.format("(1, 0), (2, 0), (8, 0), (9, 0), (null, 0)"),
        {**PARENT, "tolerated_share": 0.25},
        2,
        column="a",
    ),
    "count_equal": Case(
        "row_count_equals", KEYED.format("(7, 0), (8, 0), (9, 0)"), {"other": "source('cases', 'parent')"}
    ),
    "count_less": Case("row_count_equals", KEYED.format("(7, 0)"), {"other": "source('cases', 'parent')"}, 1),
    "some_rows": Case("is_not_empty", KEYED.format("(null, null)"), {}),
    "no_rows": Case("is_not_empty", KEYED.format("(1, 1)") + " where false", {}, 1),
    "sums_equal": Case(
        "reconciles_with",
        "select * from (values (1, 10), (2, 5), (4, 0)) as rows (id, amount)",
        {"other": "source('cases', 'child')", "by": {"id": "parent_id"}, "measures": {"sum(amount)": "sum(part)"}},
    ),
    "sums_differ": Case(
        "reconciles_with",
        "select * from (values (1, 9), (3, 1)) as rows (id, amount)",
        {"other": "source('cases', 'child')", "by": {"id": "parent_id"}, "measures": {"sum(amount)": "sum(part)"}},
        3,
    ),
    "built_as_computed": Case(
        "equals_a_rebuild_from",
        "select * from (values (1, 'a', 1), (2, 'b', 1)) as rows (id, what, version)",
        {"other": "source('cases', 'computed')", "key": "id", "versions": ["version"]},
    ),
    "built_otherwise": Case(
        "equals_a_rebuild_from",
        "select * from (values (1, 'z', 1), (4, 'gone', 1)) as rows (id, what, version)",
        {"other": "source('cases', 'computed_before')", "key": "id", "versions": ["version"]},
        4,
    ),
    "yesterday_is_there": Case("is_recent", days(first="2013-07-01", last="2013-07-30"), BY_NEW_YORK),
    "yesterday_is_late": Case("is_recent", days(first="2013-07-01", last="2013-07-29"), BY_NEW_YORK, 1),
    "yesterday_may_be_late": Case(
        "is_recent",
        days(first="2013-07-01", last="2013-07-29"),
        BY_NEW_YORK,
        1,
        warns=True,
        config={"error_if": ">2"},
    ),
    "frozen_for_days": Case(
        "is_recent", days(first="2013-07-01", last="2013-07-27"), BY_NEW_YORK, 3, config={"error_if": ">2"}
    ),
    "within_grace": Case(
        "is_recent", days(first="2013-07-01", last="2013-07-29"), {**BY_NEW_YORK, "grace": "13 hours"}
    ),
    "after_the_last_that_is_due": Case(
        "is_recent", days(first="2013-07-01", last="2013-07-20"), {**BY_NEW_YORK, "until": "2013-07-21"}
    ),
    "before_the_first_that_is_due": Case(
        "is_recent", days(first="2013-07-31", last="2013-07-30"), {**BY_NEW_YORK, "first": "2013-07-31"}
    ),
    "nothing_at_all": Case("is_recent", days(first="2013-07-02", last="2013-07-01"), BY_NEW_YORK, 2_147_483_647),
    "future_hides_nothing": Case(
        "is_recent",
        f"select * from ({days(first='2013-07-01', last='2013-07-29')}) as past"
        " union all select '2013-08-09T16:00Z'::timestamptz",
        BY_NEW_YORK,
        1,
        config={"where": "happened_at < '2013-08-01'"},
    ),
    # An hour before midnight in New York is the next day in UTC.
    "last_hour_of_the_day": Case("is_recent", "select '2013-07-31T03:30Z'::timestamptz as happened_at", BY_NEW_YORK),
    "every_day": Case("has_no_gaps", days(first="2013-03-08", last="2013-03-12"), BY_NEW_YORK),
    "a_day_missing": Case(
        "has_no_gaps", days(first="2013-03-08", last="2013-03-12", without=("2013-03-10",)), BY_NEW_YORK, 1
    ),
    "a_day_known_to_be_missing": Case(
        "has_no_gaps",
        days(first="2013-03-08", last="2013-03-12", without=("2013-03-10",)),
        {**BY_NEW_YORK, "tolerated": ["2013-03-10"]},
    ),
    "begun_late": Case(
        "has_no_gaps", days(first="2013-03-08", last="2013-03-12"), {**BY_NEW_YORK, "first": "2013-03-06"}, 2
    ),
    "weekends": Case("volume_follows_history", days(**WEEKS, a_day=WEEKLY), BY_NEW_YORK),
    "halved": Case("volume_follows_history", days(**WEEKS, a_day=OTHER_ON_MONDAY.format(50)), BY_NEW_YORK, 1),
    "doubled": Case("volume_follows_history", days(**WEEKS, a_day=OTHER_ON_MONDAY.format(200)), BY_NEW_YORK, 1),
    "a_weekday_as_a_sunday": Case(
        "volume_follows_history", days(**WEEKS, a_day=OTHER_ON_MONDAY.format(30)), BY_NEW_YORK, 1
    ),
    "a_holiday": Case("volume_follows_history", days(**WEEKS, a_day=OTHER_ON_MONDAY.format(65)), BY_NEW_YORK),
    "halved_and_known": Case(
        "volume_follows_history",
        days(**WEEKS, a_day=OTHER_ON_MONDAY.format(50)),
        {**BY_NEW_YORK, "tolerated": ["2013-07-29"]},
    ),
    "too_young_to_tell": Case(
        "volume_follows_history",
        days(first="2013-07-15", last="2013-07-31", a_day=OTHER_ON_MONDAY.format(50)),
        BY_NEW_YORK,
    ),
    "today_is_not_over": Case(
        "volume_follows_history",
        days(**WEEKS, a_day=f"case when day::date = '2013-07-31' then 1 else {WEEKLY} end"),
        BY_NEW_YORK,
    ),
}
OTHERS = {
    "parent": "select id from generate_series(1, 3) as id",
    "child": "select * from (values (1, 4), (1, 6), (2, 5)) as rows (parent_id, part)",
    "computed": "select * from (values (1, 'a', 1), (2, 'b', 1), (3, 'new', 2)) as rows (id, what, version)",
}
# What was loaded after the model was built is the next run's work; what was there before is not.
OTHERS["computed_before"] = OTHERS["computed"].replace("2)) as", "1)) as")


@pytest.fixture(scope="module")
def outcomes(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    statements = [f"create table cases.{name} as {query}" for name, query in OTHERS.items()]
    statements += [f"create table cases.{name} as {case.rows}" for name, case in CASES.items()]
    module_warehouse.execute(
        "create schema cases; grant usage on schema cases to headwater_transformer;"
        f"{';'.join(statements)}; grant select on all tables in schema cases to headwater_transformer;"
        f"alter database {module_warehouse.database} set headwater.now = '{NOW}'"
    )
    project = tmp_path_factory.mktemp("project")
    write_project(project)
    dbt = Dbt(module_warehouse, project, project / "target")
    dbt.install()
    return dbt.run("test")


def write_project(folder: Path) -> None:
    tables: list[dict[str, Any]] = [{"name": name} for name in OTHERS]
    for name, case in CASES.items():
        declared = {"name": name, "arguments": case.arguments, "config": case.config}
        tests = [{f"headwater_tests.{case.test}": declared}]
        if case.column:
            tables.append({"name": name, "columns": [{"name": case.column, "data_tests": tests}]})
        else:
            tables.append({"name": name, "data_tests": tests})
    files: dict[str, Any] = {
        "dbt_project.yml": {
            "name": "another_project",
            "profile": "headwater",
            "flags": {"require_generic_test_arguments_property": True},
        },
        "packages.yml": {"packages": [{"local": str(PACKAGE)}]},
        "models/sources.yml": {"sources": [{"name": "cases", "tables": tables}]},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", CASES)
def test_generic_tests_pass_and_fail_as_their_docs_say(outcomes: dict[str, Outcome], name: str) -> None:
    case, outcome = CASES[name], outcomes[name]
    expected = NodeStatus.Pass if not case.failures else NodeStatus.Warn if case.warns else NodeStatus.Fail
    assert (outcome.status, outcome.failures) == (expected, case.failures), outcome.message


def test_every_generic_test_is_documented_and_has_both_cases() -> None:
    files = {path.stem for path in (PACKAGE / "tests/generic").glob("*.sql")}
    documented = yaml.safe_load((PACKAGE / "tests/generic/_generic_tests.yml").read_text())["macros"]
    assert {macro["name"].removeprefix("test_") for macro in documented} == files
    for wanted in (True, False):
        assert {case.test for case in CASES.values() if bool(case.failures) == wanted} == files
    for macro in documented:
        [text] = [(PACKAGE / f"tests/generic/{macro['name'].removeprefix('test_')}.sql").read_text()]
        for argument in macro["arguments"]:
            assert argument["name"] in text.partition("%}")[0], f"{macro['name']} takes {argument['name']}"
