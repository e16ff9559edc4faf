"""The sources of the README: what `headwater new-source` writes, as short as it says, and they load."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from connectors.connections import EnvironmentConnections
from connectors.ingest import Destination, ingest
from connectors.model import Source
from deployments.local.layout import PROJECT_ROOT
from deployments.scaffold import Kind, NewSource, filled
from tests.conftest import Answer, Api, Request, Server, Warehouse
from tests.sources.conduct_checks import CONDUCT_CHECKS
from tests.sources.row_checks import ROW_CHECKS
from tests.sources.stand_in import database_with_reader

TICKETS = NewSource("tickets_api", Kind.REST, "tickets")
ORDERS = NewSource("crm_db", Kind.POSTGRES, "orders")


def blocks() -> list[str]:
    readme = (PROJECT_ROOT / "README.md").read_text()
    return [dedent(block) for block in re.findall(r"```python\n(.*?) *```", readme, re.DOTALL)]


def source(code: str, name: str) -> Source:
    namespace: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102 - the README's own example
    found: Source = namespace[name]
    return found


@pytest.mark.parametrize(("number", "new", "most"), [(0, TICKETS, 25), (1, ORDERS, 15)], ids=["rest", "database"])
def test_it_is_what_the_scaffold_writes_and_no_longer_than_promised(number: int, new: NewSource, most: int) -> None:
    docstring, _, definition = filled(f"{new.kind}/source.py", new).partition("\n\n")
    assert docstring.startswith('"""')
    assert blocks()[number] == definition
    assert len(definition.splitlines()) <= most


def test_the_api_is_read_page_by_page_and_then_what_has_changed(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    tickets = [{"id": n, "updated_at": f"2024-05-{n:02}T08:00:00Z", "subject": "How?"} for n in range(1, 6)]

    def answer(request: Request) -> Answer:
        assert (request.path, request.headers["X-API-Key"]) == ("/v1/tickets", "sesame")
        since, start = request.parameters.get("updated_since", ""), int(request.parameters.get("after", 0))
        found = [each for each in tickets if str(each["updated_at"]) >= since]
        return Answer({"data": found[start : start + 2], "next": start + 2 if start + 2 < len(found) else None})

    api.answer = answer
    tickets_api = source(blocks()[0], "tickets_api")
    assert tickets_api.requirements == TICKETS.requirements
    connections = EnvironmentConnections({"HEADWATER_TICKETS_API_URL": api.url, "HEADWATER_TICKETS_API_KEY": "sesame"})
    assert ingest(tickets_api, tickets_api.streams[0], connections, destination)[-1].inserted == 5
    assert len(api.requests) == 3
    tickets.append({"id": 6, "updated_at": "2024-05-06T08:00:00Z", "subject": "Why?"})
    report = ingest(tickets_api, tickets_api.streams[0], connections, destination)[-1]
    assert (report.extracted, report.inserted) == (2, 1)
    assert warehouse.query("select count(*), max(updated_at)::text from raw_tickets_api.tickets") == [
        (6, "2024-05-06 08:00:00+00")
    ]


def test_the_database_is_read_and_then_what_has_changed(
    postgres: Server, warehouse: Warehouse, destination: Destination
) -> None:
    tables = "create table orders (id int primary key, updated_at timestamptz default now(), total numeric(8, 2));"
    with database_with_reader(postgres, f"{tables} insert into orders (id) values (1), (2)") as (url, _):
        crm_db = source(blocks()[1], "crm_db")
        assert crm_db.requirements == ORDERS.requirements
        connections = EnvironmentConnections({"HEADWATER_CRM_DB_URL": url})
        assert ingest(crm_db, crm_db.streams[0], connections, destination)[-1].inserted == 2
        with postgres.connect(str(make_url(url).database)) as changing:
            changing.execute("update orders set total = 9.50, updated_at = clock_timestamp() where id = 2")
        assert ingest(crm_db, crm_db.streams[0], connections, destination)[-1].updated == 1
    assert warehouse.query("select id, total::text from raw_crm_db.orders order by id") == [(1, None), (2, "9.50")]


def test_the_page_on_sources_names_every_check() -> None:
    page = (PROJECT_ROOT / "docs/sources.md").read_text().partition("## What every source promises")[2]
    assert re.findall(r"(?m)^\| `(\w+)` \|", page) == [check.__name__ for check in (*ROW_CHECKS, *CONDUCT_CHECKS)]
