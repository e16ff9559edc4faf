"""Superset itself on a demo of its own: what `make bi` makes of the files, by its API and in a browser.

`make bi-test`, which installs Superset first. HEADWATER_TEST_BI_HOME names the home of a demo that has run, to spare
the minutes that one takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from deployments.bi import service
from deployments.local.layout import PROJECT_ROOT
from deployments.local.stack import LocalStack
from tests.deployments.bi.assets import Chart, assets, charts
from tests.deployments.bi.browser import CHROMIUM, page

pytestmark = [
    pytest.mark.bi,
    pytest.mark.skipif(
        not service.environment_folder().exists(), reason="Superset is not installed; `make bi-test` installs it"
    ),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A local stack whose serving schema has the demo's year."""
    if configured := os.environ.get("HEADWATER_TEST_BI_HOME"):
        yield LocalStack(Path(configured))
        return
    home = tmp_path_factory.mktemp("bi") / "home"
    try:
        subprocess.run(
            [str(Path(sys.executable).with_name("headwater")), "demo"],
            cwd=PROJECT_ROOT,
            env={**os.environ, "HEADWATER_HOME": str(home)},
            check=True,
            timeout=600,
        )
        yield LocalStack(home)
    finally:
        LocalStack(home).destroy()


@pytest.fixture(scope="module")
def address(stack: LocalStack) -> str:
    """Superset, started."""
    return service.start(stack)


@pytest.fixture(scope="module")
def client(stack: LocalStack, address: str) -> Iterator[httpx.Client]:
    """Its API, for its administrator."""
    name, password = service.administrator(stack)
    with httpx.Client(base_url=f"{address}/api/v1", timeout=60) as client:
        login = {"username": name, "password": password, "provider": "db"}
        client.headers["Authorization"] = f"Bearer {client.post('/security/login', json=login).json()['access_token']}"
        client.headers["X-CSRFToken"] = client.get("/security/csrf_token/").json()["result"]
        yield client


def ids(client: httpx.Client, kind: str) -> dict[str, int]:
    """Superset's numbers of its objects, by UUID."""
    found = client.get(f"/{kind}/", params={"q": "(page_size:100)"}).raise_for_status().json()["result"]
    return {each["uuid"]: each["id"] for each in found}


def objects(client: httpx.Client) -> dict[str, dict[str, int]]:
    return {kind: ids(client, kind) for kind in ("database", "dataset", "chart", "dashboard")}


def exported(stack: LocalStack, folder: Path) -> dict[str, str]:
    """Superset's assets as files: name and content."""
    shutil.copytree(service.ASSETS, folder)
    for path in folder.glob("charts/*.yaml"):
        path.unlink()  # so that each that is there afterwards was written
    service.provision(stack, "export", folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.yaml")}


def test_a_second_start_changes_nothing_and_superset_has_what_the_files_say(
    stack: LocalStack, client: httpx.Client, tmp_path: Path
) -> None:
    before = objects(client)
    expected = {kind: set(assets(f"{kind}s")) for kind in before}
    assert {kind: set(found) & expected[kind] for kind, found in before.items()} == expected
    service.start(stack)
    assert objects(client) == before
    files = {path.relative_to(service.ASSETS).as_posix(): path.read_text() for path in service.ASSETS.rglob("*.yaml")}
    assert exported(stack, tmp_path / "assets") == files


def test_what_was_changed_by_hand_is_exported_and_the_next_start_sets_it_back(
    stack: LocalStack, client: httpx.Client, tmp_path: Path
) -> None:
    [(uuid, number)] = [
        (uuid, number) for uuid, number in ids(client, "dashboard").items() if uuid in assets("dashboards")
    ]
    client.put(f"/dashboard/{number}", json={"dashboard_title": "By hand"}).raise_for_status()
    changed = exported(stack, tmp_path / "assets")
    assert "dashboard_title: By hand\n" in changed[f"dashboards/{service.DASHBOARD.replace('-', '_')}.yaml"]
    service.start(stack)
    title = client.get(f"/dashboard/{number}").json()["result"]["dashboard_title"]
    assert title == assets("dashboards")[uuid]["dashboard_title"]


@pytest.mark.parametrize("chart", list(charts()), ids=lambda each: each.name)
def test_superset_answers_the_query_of_each_chart(client: httpx.Client, chart: Chart) -> None:
    query: dict[str, Any] = {"columns": chart.columns, "metrics": chart.metrics, "row_limit": 100}
    if chart.having:
        query["extras"] = {"having": chart.having}
    if chart.dataset["main_dttm_col"]:
        query |= {"granularity": chart.dataset["main_dttm_col"], "time_range": "2013-12-01 : 2014-01-01"}
    datasource = {"id": ids(client, "dataset")[chart.dataset["uuid"]], "type": "table"}
    answer = client.post("/chart/data", json={"datasource": datasource, "queries": [query]})
    assert answer.status_code == 200, answer.text
    [result] = answer.json()["result"]
    assert result["error"] is None
    assert result["rowcount"] > 0


def test_superset_reads_as_the_reader_and_does_not_keep_its_password(stack: LocalStack, client: httpx.Client) -> None:
    reader = make_url(stack.environment()["HEADWATER_WAREHOUSE_READER_URL"])
    [database] = [number for uuid, number in ids(client, "database").items() if uuid in assets("databases")]
    sql = "select role_name::text as role from information_schema.enabled_roles"  # it forbids current_user
    answer = client.post("/sqllab/execute/", json={"database_id": database, "sql": sql, "schema": "serving"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == [{"role": "headwater_reader"}]
    refused = client.post("/sqllab/execute/", json={"database_id": database, "sql": "create table serving.t (i int)"})
    assert "does not allow for DDL/DML" in refused.text
    password = stack.secrets.password(service.SUPERSET)
    with psycopg.connect(
        host=reader.host, port=reader.port, dbname=service.SUPERSET, user=service.SUPERSET, password=password
    ) as connection:
        kept = connection.execute("select string_agg(dbs::text, '') from dbs").fetchall()[0][0]
    assert "headwater-warehouse" in kept
    assert str(reader.password) not in kept


def test_nobody_gets_in_without_the_password(address: str) -> None:
    login = {"username": service.ADMINISTRATOR, "password": "admin", "provider": "db"}
    assert httpx.post(f"{address}/api/v1/security/login", json=login, timeout=30).status_code == 401
    assert httpx.get(f"{address}/api/v1/dashboard/", timeout=30).status_code == 401


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_dashboard_shows_every_chart_and_loads_nothing_from_elsewhere(
    stack: LocalStack, address: str, tmp_path: Path
) -> None:
    name, password = service.administrator(stack)
    with page(tmp_path, height=1800) as browser:
        browser.open(f"{address}/login/")
        browser.wait_for("document.querySelector('#csrf_token') !== null")
        token = browser.evaluate("document.querySelector('#csrf_token').value")
        form = json.dumps({"username": name, "password": password, "csrf_token": token})
        there = f"fetch('/login/', {{method: 'POST', body: new URLSearchParams({form})}}).then(answer => answer.url)"
        assert browser.evaluate(there).endswith("/superset/welcome/")
        browser.open(f"{address}/superset/dashboard/{service.DASHBOARD}/")
        expected = len(assets("charts"))
        browser.wait_for(f"document.querySelectorAll('.chart-slice').length === {expected}")
        browser.wait_for("document.querySelectorAll('.chart-slice .slice_container').length === " + str(expected))
        browser.wait_for("document.querySelectorAll('[data-test=loading-indicator], .loading').length === 0")
        text = browser.evaluate("document.body.innerText")
        shot = tmp_path / "dashboard.png"
        browser.screenshot(shot)
        asked = {key: each for key, each in browser.requests.items() if "/chart/data?form_data" in each["url"]}
        answers = [json.loads(browser.body(key))["result"] for key in asked]
        outside = [
            each for each in browser.requests.values() if not each["url"].startswith((address, "data:", "blob:"))
        ]
    assert len(answers) == expected
    assert {each["status"] for each in asked.values()} == {200}
    assert all(result["error"] is None and result["rowcount"] for answer in answers for result in answer), answers
    assert all(chart.name in text for chart in charts())
    assert "fresh" in text
    assert not [word for word in ("Unexpected error", "No results", "Data error") if word in text]
    assert shot.stat().st_size > 50_000, "more than an empty page"
    assert {each.get("blocked") for each in outside} <= {"csp"}, "the browser was told to ask no other host"


def test_it_is_in_the_status_until_it_is_stopped(stack: LocalStack, address: str) -> None:
    def status() -> dict[str, str | None]:
        return {each.name: each.address for each in stack.status()}

    assert status()[service.SUPERSET] == address
    assert stack.stop_service(service.SUPERSET)
    assert service.SUPERSET not in status()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")
    assert stack.postgres.server() is not None, "nothing else was stopped"
