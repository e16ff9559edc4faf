"""Columns of one query, followed to the relations that it reads: what is known, and that nothing else is said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.column_lineage import NOTHING_KNOWN, Kind, QueryLineage, Remark, query_lineage

KNOWN = {("raw", "a"): ["id", "x", "y"], ("raw", "b"): ["id", "z"]}


def origins(sql: str, *, known: dict[tuple[str, str], list[str]] | None = None) -> dict[str, dict[str, str] | str]:
    """By column what it comes from and how, or what is said of it instead."""
    return said(query_lineage(sql, KNOWN if known is None else known, own=("marts", "own")))


def said(found: QueryLineage) -> dict[str, dict[str, str] | str]:
    return {
        column.name: {f"{each.relation[1]}.{each.column or '(rows)'}": str(each.kind) for each in column.origins}
        if column.remark is Remark.NONE
        else str(column.remark)
        for column in found.columns
    }


AS_IT_IS, COMPUTED, AGGREGATED = map(str, Kind)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param("select x as renamed from raw.a", {"renamed": {"a.x": AS_IT_IS}}, id="renamed"),
        pytest.param(
            'select a."x", A.Y from "db"."raw"."a"', {"x": {"a.x": AS_IT_IS}, "y": {"a.y": AS_IT_IS}}, id="quoted"
        ),
        pytest.param(
            "select x::text as t, coalesce(x, y, 0) as c from raw.a",
            {"t": {"a.x": COMPUTED}, "c": {"a.x": COMPUTED, "a.y": COMPUTED}},
            id="expressions",
        ),
        pytest.param(
            "with s as (select * from raw.a), t as (select s.*, b.z from s left join raw.b on b.id = s.id)"
            " select * from t",
            {
                "id": {"a.id": AS_IT_IS},
                "x": {"a.x": AS_IT_IS},
                "y": {"a.y": AS_IT_IS},
                "z": {"b.z": AS_IT_IS},
            },
            id="stars through a chain",
        ),
        pytest.param(
            "with s as (select x + 1 as x from raw.a), t as (select x from s) select sum(x) as x from t",
            {"x": {"a.x": AGGREGATED}},
            id="the most that was done on the way counts",
        ),
        pytest.param(
            "select count(*) as n, count(*) filter (where x > 0) as m, max(y) as y from raw.a",
            {"n": {"a.(rows)": AGGREGATED}, "m": {"a.(rows)": AGGREGATED, "a.x": AGGREGATED}, "y": {"a.y": AGGREGATED}},
            id="aggregates",
        ),
        pytest.param(
            "select percentile_cont(0.5) within group (order by x) as m from raw.a",
            {"m": {"a.x": AGGREGATED}},
            id="ordered-set aggregate",
        ),
        pytest.param(
            "select sum(x) over (partition by y) as s, row_number() over (order by x) as n from raw.a",
            {"s": {"a.x": COMPUTED, "a.y": COMPUTED}, "n": {"a.x": COMPUTED}},
            id="window functions are of many rows and make one of each",
        ),
        pytest.param(
            "select x from raw.a union all select z from raw.b union all select 1",
            {"x": {"a.x": AS_IT_IS, "b.z": AS_IT_IS}},
            id="unions go by place",
        ),
        pytest.param(
            "select id, x, z from raw.a join raw.b using (id)",
            {"id": {"a.id": AS_IT_IS, "b.id": AS_IT_IS}, "x": {"a.x": AS_IT_IS}, "z": {"b.z": AS_IT_IS}},
            id="using",
        ),
        pytest.param(
            "select (select max(z) from raw.b where b.id = a.id) as m, exists (select 1 from raw.b) as e from raw.a",
            {"m": {"b.z": AGGREGATED}, "e": {"b.(rows)": COMPUTED}},
            id="queries within expressions",
        ),
        pytest.param(
            "with recursive r as (select id, x from raw.a union all select a.id, r.x from raw.a join r on r.id = a.y)"
            " select * from r",
            {"id": {"a.id": AS_IT_IS}, "x": {"a.x": AS_IT_IS}},
            id="recursive",
        ),
        pytest.param(
            "with c (p, q) as (select id, x from raw.a) select q, p from c",
            {"q": {"a.x": AS_IT_IS}, "p": {"a.id": AS_IT_IS}},
            id="columns named with the query",
        ),
        pytest.param(
            "select l.v, e.k from raw.a, lateral (select b.z + a.x as v from raw.b) as l, jsonb_each(a.y) as e (k, w)",
            {"v": {"a.x": COMPUTED, "b.z": COMPUTED}, "k": {"a.y": COMPUTED}},
            id="lateral",
        ),
        pytest.param(
            "select x from raw.a where id not in (select id from marts.own)", {"x": {"a.x": AS_IT_IS}}, id="incremental"
        ),
        pytest.param(
            "select o.id, o.x from marts.own as o union all select id, x from raw.a",
            {"id": {"a.id": AS_IT_IS}, "x": {"a.x": AS_IT_IS}},
            id="what comes from itself comes from where that came from",
        ),
        pytest.param(
            "select a from raw.a", {"a": {"a.id": COMPUTED, "a.x": COMPUTED, "a.y": COMPUTED}}, id="whole row"
        ),
    ],
)
def test_a_column_is_followed(sql: str, expected: dict[str, dict[str, str]]) -> None:
    assert origins(sql) == expected


def test_what_has_no_origin_says_why() -> None:
    sql = "select 1 as one, null::int as none, now() as at, v, d from (values (1)) as t (v), generate_series(1, 2) d"
    assert origins(sql) == {
        "one": "constant",
        "none": "constant",
        "at": "generated",
        "v": "constant",
        "d": "generated",
    }


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("select c from raw.unknown_one join raw.unknown_two on true", id="of either of two"),
        pytest.param("select nothing from raw.a", id="of a table that has no such column"),
        pytest.param("select other.c from raw.a", id="of a table that is not there"),
        pytest.param("select c from (select * from raw.p join raw.q on true) as t", id="behind a star of two"),
        pytest.param("select (select max(x) from raw.unknown) as m from raw.a", id="of the inner query or the outer"),
        pytest.param("with c as (select xmin from raw.a) select xmin from c, raw.unknown", id="not seen from a cte"),
        pytest.param("select x from marts.own", id="of nothing but itself"),
    ],
)
def test_what_cannot_be_followed_is_not_guessed(sql: str) -> None:
    [column] = query_lineage(sql, KNOWN, own=("marts", "own")).columns
    assert (column.origins, column.remark) == ((), Remark.NOT_KNOWN)


def test_part_of_it_unknown_is_said_with_the_part_that_is_known() -> None:
    [column] = query_lineage("select x + p.q as s from raw.a join raw.b on true", KNOWN).columns
    assert [each.column for each in column.origins] == ["x"]
    assert column.remark is Remark.NOT_KNOWN


def test_a_star_of_one_unknown_table_still_leads_there() -> None:
    found = query_lineage("with s as (select * from raw.unknown) select c as d from s", {})
    assert said(found) == {"d": {"unknown.c": AS_IT_IS}}
    whole = query_lineage("select * from raw.unknown", {})
    assert (whole.columns, whole.is_complete) == ((), False)


def test_unnamed_columns_have_the_names_that_the_table_has() -> None:
    sql = "select upper(x), case when y then 1 end from raw.a"
    assert [column.name for column in query_lineage(sql, KNOWN).columns] == ["upper", "case"]
    named = query_lineage(sql, KNOWN, names=["big", "flag"])
    assert [column.name for column in named.columns] == ["big", "flag"]


def test_rows_are_those_of_what_is_selected_from_and_joined_but_not_looked_up() -> None:
    sql = "select 1 as one from raw.a {} join raw.b on true"
    assert query_lineage(sql.format("inner"), KNOWN).rows_of == (("raw", "a"), ("raw", "b"))
    assert query_lineage(sql.format("left"), KNOWN).rows_of == (("raw", "a"),)


@pytest.mark.parametrize("sql", ["not sql (((", "insert into raw.a values (1)", "", "select 1; select 2"])
def test_what_is_no_single_query_is_not_known(sql: str) -> None:
    assert query_lineage(sql, KNOWN) == NOTHING_KNOWN


names = st.sampled_from(["id", "x", "y"])


@given(st.lists(st.lists(names, min_size=3, max_size=3, unique=True), min_size=1, max_size=6), st.booleans())
def test_any_chain_of_renamings_leads_back_to_the_column_it_began_with(steps: list[list[str]], starred: bool) -> None:
    """Each step gives each of three columns the name of another; what comes out is found by composing the steps."""
    sql, source = "with ", "raw.a"
    expected = {name: name for name in ("id", "x", "y")}
    for number, step in enumerate(steps):
        renamed = ", ".join(f"{old} as {new}" for old, new in zip(("id", "x", "y"), step, strict=True))
        sql += f"s{number} as (select {renamed} from {source}), "
        source = f"s{number}"
        expected = {new: expected[old] for old, new in zip(("id", "x", "y"), step, strict=True)}
    sql += f"final as (select {'*' if starred else 'id, x, y'} from {source}) select * from final"
    assert origins(sql) == {name: {f"a.{origin}": AS_IT_IS} for name, origin in expected.items()}


@settings(max_examples=40)
@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_breaks_it(text: str, name: str) -> None:
    query_lineage(text, KNOWN)
    found = query_lineage('select x as "{}" from raw.a'.format(name.replace('"', '""')), KNOWN)
    assert all({each.column for each in column.origins} <= {"x"} for column in found.columns)
