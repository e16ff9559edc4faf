"""The page in a real browser: it says what SQL says, cell by cell, and asks nobody for anything."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.lineage import lineage
from tasks.status_page.page import page
from tests.browser import Tab
from tests.conftest import Warehouse
from tests.tasks.manifests import SHOP, large, manifest
from tests.tasks.status_page.conftest import Site, create_raw_tables
from tests.tasks.status_page.filled import BACKSLASHED, HOSTILE, fill, make_hostile

CELLS = """
[...document.querySelectorAll('table[data-section="%s"] tbody tr')].reduce((rows, line) => {
  const cells = Object.fromEntries([...line.children].map((cell) => [cell.dataset.column,
    cell.querySelector('time')?.dateTime ?? (cell.querySelector('.pill') ?? cell).textContent]));
  if (line.className === 'detail') {
    const [name] = Object.keys(cells);
    rows.at(-1)[name] = line.querySelector('div').lastChild.textContent;
  } else rows.push(cells);
  return rows;
}, [])
"""


def opened(tab: Tab, address: str) -> None:
    """Open a page and have all of it drawn."""
    tab.open(address)
    tab.run("dispatchEvent(new Event('beforeprint'))")
    tab.run("document.querySelectorAll('button.more').forEach((each) => each.click())")


def cells(tab: Tab, section: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = tab.run(CELLS % section)
    return rows


def shown(value: Any) -> str:
    """A value of PostgreSQL as a cell has it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, bool):
        return {True: "passed", False: "failed"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


AGREE = {
    "marts": """
        select status, mart, data_as_of, published_at, generation, rows, tests_passed, tests_failed, tests_warned,
               quarantined_rows, mart_group, why from serving.data_status
    """,
    "streams": """
        select distinct on (source, stream) source || '.' || stream as stream, as_of,
               case when stale_at <= now() then 'stale' when late_at <= now() then 'late' else status end as status
        from ops.freshness order by source, stream, checked_at desc
    """,
    "loads": """
        select status, source || '.' || stream as stream, started_at, rows_extracted, rows_inserted, rows_updated,
               rows_unchanged, rows_quarantined, rows_deleted, bytes_landed, attempt, load_id, run_id, error
        from (
            select *, row_number() over (partition by source, stream order by started_at desc) as place from ops.loads
        ) l where place <= 30
    """,
    "builds": """
        select is_success, started_at, coalesce(selection, 'all') as selection, generation, run_id,
               (select count(*) from ops.dbt_results r where r.invocation_id = i.invocation_id and status = 'pass')
                   as passed,
               (select count(*) from ops.dbt_results r where r.invocation_id = i.invocation_id
                and status in ('fail', 'error')) as failed
        from ops.dbt_invocations i
    """,
    "publishes": """
        select p.generation, p.published_at, sum(m.rows_inserted)::bigint as rows_inserted, count(*) as marts
        from ops.publishes p join ops.published_marts m using (generation) group by p.generation, p.published_at
    """,
    "slowest": """
        select name, rows_affected, layer, materialized,
               to_char(extract(epoch from ended_at - started_at), 'FM999990.' ||
                   case when ended_at - started_at < interval '10 seconds' then '00' else '0' end) || ' s' as seconds
        from ops.dbt_results where resource_type = 'model' and invocation_id = 'build-24'
    """,
    "tests": """
        select status, name, severity, failures,
               (select max(i.started_at) from ops.dbt_results p join ops.dbt_invocations i using (invocation_id)
                where p.node = r.node and p.status = 'pass') as passed_at
        from ops.dbt_results r where resource_type = 'test' and invocation_id = 'build-24'
          and node in (select node from ops.dbt_results where status <> 'pass')
    """,
    "failed_nodes": """
        select status, name, resource_type, failures from ops.dbt_results
        where invocation_id = 'build-24' and status in ('fail', 'error', 'warn')
    """,
    "quarantine": """
        select source || '.' || stream as stream, count(*) as rows, min(quarantined_at) as first_at,
               max(quarantined_at) as last_at
        from ops.quarantine where replayed_by is null group by source, stream
    """,
    "schema_changes": """
        select changed_at, source || '.' || stream as stream, column_name, change, from_type, to_type
        from ops.schema_changes
    """,
    "closed_incidents": """
        select severity, title, opened_at, closed_at, closed_why from ops.incidents where closed_at is not null
    """,
}


@pytest.mark.parametrize("section", AGREE)
def test_the_page_and_the_sql_agree_cell_by_cell(tab: Tab, site: Site, section: str) -> None:
    opened(tab, site.address)
    with site.warehouse.server.connect(site.warehouse.database) as connection:
        cursor = connection.execute(AGREE[section].encode())
        names = [column.name for column in cursor.description or ()]
        expected = [dict(zip(names, map(shown, row), strict=True)) for row in cursor.fetchall()]
    found = [{name: row.get(name, "") for name in names} for row in cells(tab, section)]
    if section == "streams":  # those that were never checked say so; they have no row to hold them against
        assert "not checked" in {row["status"] for row in found}
        found = [row for row in found if row["status"] != "not checked"]
    assert len(expected) > 0
    order = sorted(names)
    assert sorted(found, key=lambda row: [row[name] for name in order]) == sorted(
        expected, key=lambda row: [row[name] for name in order]
    )


def test_incidents_say_what_is_wrong_since_when_and_what_to_type(tab: Tab, site: Site) -> None:
    tab.open(site.address)
    found = tab.run(
        "[...document.querySelectorAll('.incident')].map((e) => [e.querySelector('h3').textContent,"
        " e.querySelector('.command code').textContent, e.querySelector('[data-field=cause]').textContent,"
        " e.querySelector('time').dateTime])"
    )
    expected = site.warehouse.query(
        "select title, next_command, cause, opened_at from ops.incidents where closed_at is null order by severity"
    )
    assert found == [[shown(value) for value in row] for row in expected]
    first = tab.run("document.querySelector('.top .command code').textContent")
    assert first == expected[0][1]


def test_the_verdict_is_the_first_thing_said(tab: Tab, site: Site) -> None:
    tab.open(site.address)
    assert tab.run("document.querySelector('h1').dataset.level") == "bad"
    said = tab.run("document.querySelector('h1').textContent")
    assert said == "2 incidents are open (1 snoozed), 5 of 7 marts are held back, 1 of 7 marts is late."
    assert tab.run("document.title").startswith("Trouble")


def test_coverage_has_each_window_in_its_state(tab: Tab, site: Site) -> None:
    opened(tab, site.address)
    titles = tab.run("[...document.querySelectorAll('#coverage .calendar')].map((c) => [...c.querySelectorAll('title')]"
                     ".map((t) => t.textContent))")  # fmt: skip
    flights, weather = titles
    assert len(flights) == len(weather) == 365
    assert {title.split(": ")[1].split(",")[0] for title in flights} == {"loaded"}
    by_day = {title.split(": ")[0]: title.split(": ")[1].split(",")[0] for title in weather}
    read = site.warehouse.query(
        "select to_char(window_start at time zone 'America/New_York', 'YYYY-MM-DD'), is_stale from ops.windows"
        " where stream = 'weather'"
    )
    failed = site.warehouse.query(
        "select to_char(window_start at time zone 'America/New_York', 'YYYY-MM-DD') from ops.loads"
        " where window_start is not null and status = 'failed'"
    )
    expected = {day: "stale" if is_stale else "loaded" for day, is_stale in read} | {day: "failed" for (day,) in failed}
    assert {day: state for day, state in by_day.items() if day in expected} == expected
    assert {state for day, state in by_day.items() if day not in expected} == {"missing"}
    listed = cells(tab, "windows weather_files.weather")
    assert len(listed) == sum(state != "loaded" for state in by_day.values())


def test_nothing_is_asked_for_and_nothing_is_complained_of(tab: Tab, site: Site) -> None:
    opened(tab, site.address)
    tab.run("location.hash = '#lineage/model.shop.fct_flights/=airport'")
    assert tab.requests == [site.address]
    assert tab.complaints == []


def test_lineage_is_walked_from_the_dashboard_to_the_field(tab: Tab, site: Site) -> None:
    opened(tab, site.address)
    assert "The board" in tab.run("document.querySelector('#focus h3').textContent")
    tab.run("[...document.querySelectorAll('#focus .chip')].find((each) => each.textContent === 'airport').click()")
    time.sleep(0.2)
    steps = tab.run("[...document.querySelectorAll('#origins a')].map((a) => a.textContent)")
    assert steps == ["stg_flights.airport", "raw_flights_api.flights.dest", "flights_api.flights.data[].dest"]
    tab.run("[...document.querySelectorAll('#origins a')].at(-1).click()")
    time.sleep(0.2)
    assert tab.run("document.querySelector('#focus .focus-card').textContent").startswith("source stream")
    assert tab.run("document.querySelector('#uses a').textContent") == "raw_flights_api.flights.dest"
    tab.run("location.hash = '#lineage/model.shop.fct_flights/=seven'")
    time.sleep(0.2)
    assert tab.run("document.querySelector('[data-remark]').dataset.remark") == "constant"


def test_anything_can_be_found_by_name(tab: Tab, site: Site) -> None:
    opened(tab, site.address)
    tab.run("{ const find = document.getElementById('find'); find.value = 'fct seven';"
            " find.dispatchEvent(new Event('input')); }")  # fmt: skip
    assert tab.run("[...document.querySelectorAll('.found a')].map((a) => a.firstChild.textContent)") == [
        "fct_flights.seven"
    ]


@pytest.fixture
def hostile(warehouse: Warehouse, tmp_path: Path) -> Site:
    """A page of things whose names are markup."""
    fill(warehouse)
    make_hostile(warehouse)
    create_raw_tables(warehouse)
    models = {**SHOP, "fct_hostile": (f'select 1 as "{HOSTILE}"', [])}
    content = manifest(models, fct_hostile={"name": HOSTILE, "description": BACKSLASHED})
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    made = Site(warehouse, tmp_path / "page")
    made.make()
    return made


def test_names_that_are_markup_stay_text(tab: Tab, hostile: Site) -> None:
    opened(tab, hostile.address)
    assert tab.run("document.title").startswith("Trouble")
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE in [row["mart"] for row in cells(tab, "marts")]
    assert BACKSLASHED in [row["column_name"] for row in cells(tab, "schema_changes")]
    assert BACKSLASHED in tab.run("[...document.querySelectorAll('.incident h3')].map((e) => e.textContent)")
    assert HOSTILE in [row.get("error") for row in cells(tab, "loads")]
    tab.run("location.hash = '#lineage/model.shop.fct_hostile'")
    time.sleep(0.2)
    assert HOSTILE in tab.run("document.querySelector('#focus').textContent")
    assert (tab.requests, tab.complaints) == ([hostile.address], [])


def test_a_page_that_nobody_makes_anew_says_that_it_is_old(tab: Tab, site: Site, tmp_path: Path) -> None:
    tab.open(site.address)
    assert tab.run("document.getElementById('age').textContent") == ""
    made_at = datetime.now(UTC) - timedelta(hours=5)
    file = tmp_path / "old.html"
    file.write_bytes(page({**site.document, "made_at": made_at.strftime("%Y-%m-%dT%H:%M:%SZ")}))
    tab.open(file.as_uri())
    assert tab.run("document.getElementById('age').innerText").startswith("This page is old. It was made 5 h ago")


CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read(tab: Tab, site: Site, dark: bool) -> None:
    """WCAG 2 AA asks for a contrast of 4.5."""
    tab.show(dark=dark)
    opened(tab, site.address)
    paper = "rgb(19, 21, 23)" if dark else "rgb(251, 250, 248)"
    assert tab.run("getComputedStyle(document.body).backgroundColor") == paper
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.run(CONTRAST) == []
    tab.show()


def test_on_a_phone_only_tables_and_pictures_scroll_sideways(tab: Tab, site: Site) -> None:
    tab.show(width=390, height=844)
    opened(tab, site.address)
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.run("document.documentElement.scrollWidth") == 390
    outside = tab.run(
        "[...document.querySelectorAll('main *, header *')].filter((e) => !e.closest('.box, .command, .hidden')"
        " && e.getBoundingClientRect().right > 391).map((e) => e.tagName + e.className)"
    )
    assert outside == []
    tab.show()


def test_it_can_be_used_without_a_mouse_and_without_sight(tab: Tab, site: Site) -> None:
    tab.show(still=True)
    opened(tab, site.address)
    assert tab.run("document.querySelectorAll('header, nav, main, footer').length") == 4
    assert tab.run("[...document.querySelectorAll('h1')].length") == 1
    levels = tab.run("[...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = tab.run(
        "[...document.querySelectorAll('button, a, input, [role=region], [role=img]')].filter((each) =>"
        " !(each.textContent.trim() || each.getAttribute('aria-label') ||"
        " document.querySelector(`label[for='${each.id}']`))).map((each) => each.outerHTML)"
    )
    assert unnamed == []
    headed = "(each) => each.caption && each.querySelector('thead th[scope=col]')"
    assert tab.run(f"[...document.querySelectorAll('table')].every({headed})")
    assert tab.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    ids = tab.run("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    tab.run("document.querySelector('table[data-section=marts] thead button').focus()")
    tab.run("document.activeElement.click()")
    assert tab.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    tab.show()


def test_five_hundred_models_are_shown_at_once(tab: Tab, site: Site, tmp_path: Path) -> None:
    graph = lineage(large(500, 12), {("raw_flights_api", "flights"): ["id"]}, [])["graph"]
    marts = [
        {**site.document["marts"][0], "mart": node["name"]} for node in graph["nodes"] if node.get("layer") == "marts"
    ]
    content = page({**site.document, "lineage": graph, "marts": marts * 4})
    assert len(content) < 4_000_000
    file = tmp_path / "large.html"
    file.write_bytes(content)
    tab.open(file.as_uri())
    took = tab.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert took < 3000  # some 300 ms on a quiet machine
    started = time.monotonic()
    tab.run("location.hash = '#lineage/model.shop.fct_470/=c3'")
    tab.run("new Promise((done) => setTimeout(done, 0))")
    assert tab.run("document.querySelectorAll('#focus .diagram a').length") > 5
    assert time.monotonic() - started < 5
    assert tab.complaints == []
