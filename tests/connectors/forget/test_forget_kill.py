"""A run that forgets and is killed, at any instant: nothing comes back meanwhile, and whoever resumes it ends it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forget_requests import open_requests
from connectors.failpoints import FORGET_FAILPOINTS
from connectors.forget.keys import subject_of
from connectors.forget.run import Roles, forget, resume
from connectors.ingest import Destination, ingest
from connectors.rebuild import rebuild
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import connections, order, raw, shop_source
from tests.connectors.forget.forgetting import (
    MODELS,
    build_again,
    build_models,
    change_models,
    check_gone,
    check_whole,
    forgotten,
    resumed,
)
from tests.victims import kill_at


def forget_by_key(key: str, destination: Destination, roles: Roles) -> None:
    subject = subject_of(source(), source().streams[0], [key], EnvironmentConnections({}))
    forget(subject, destination, roles, MODELS, by="the victim")


def resume_all(destination: Destination, roles: Roles) -> None:
    with connect(roles.owner, "victim") as connection:
        requests = open_requests(connection)
    for request in requests:
        resume(request, source(), source().streams[0], destination, roles, MODELS)


def source() -> RestSource:
    return shop_source(pages=None, cursor=None, since_parameter=None)


def canary(number: int) -> str:
    return f"canary.{number:02}@birds.test"


@pytest.fixture
def loaded(api: Api, warehouse: Warehouse, destination: Destination) -> Warehouse:
    """A row for each instant and three others, in two loads, one of them with rows in quarantine; and models."""
    numbers = range(1, len(FORGET_FAILPOINTS) + 4)
    rows: list[dict[str, Any]] = [order(n, email=canary(n)) for n in numbers]
    api.answer = lambda _: Answer({"result": {"orders": rows}})
    ingest(source(), source().streams[0], connections(api), destination)
    ingest(source(), source().streams[0], connections(api), destination)
    build_models(warehouse)
    change_models(warehouse)
    return warehouse


@pytest.mark.parametrize(
    "instants",
    [
        pytest.param(("object-rewritten", "manifest-replaced", "ledger-erased", "mart-erased"), id="some"),
        pytest.param(FORGET_FAILPOINTS, id="all", marks=pytest.mark.chaos),
    ],
)
def test_whoever_resumes_a_run_that_was_killed_ends_it(
    api: Api, loaded: Warehouse, destination: Destination, landing_folder: Path, instants: tuple[str, ...]
) -> None:
    roles = Roles(*(loaded.url(role) for role in ("owner", "transformer", "publisher")))
    gone: list[str] = []
    for number, instant in enumerate(instants, 1):
        if instant == "generations-forgotten":  # reached by who resumes it, once all is built
            forgotten(source(), loaded, destination, str(number), lineage=MODELS)
            build_again(loaded)
            kill_at(instant, partial(resume_all, destination, roles))
        else:
            kill_at(instant, partial(forget_by_key, str(number), destination, roles))
        # Neither a load nor a rebuild brings it back, and raw is whole for all others.
        report = ingest(source(), source().streams[0], connections(api), destination)[-1]
        assert (report.forgotten, report.inserted) == (number, 0), instant
        rebuild(source(), source().streams[0], destination)
        others = [(n,) for n in range(number + 1, len(FORGET_FAILPOINTS) + 4)]
        assert raw(loaded, "id") == others, instant
        resumed(source(), loaded, destination, MODELS)
        build_again(loaded)
        assert {each.status for each in resumed(source(), loaded, destination, MODELS)} <= {"done"}, instant
        gone.append(canary(number))
        check_gone(loaded, landing_folder, *gone)
        assert raw(loaded, "id") == others, instant
    check_whole(loaded, destination, landing_folder, source())
    assert loaded.query("select distinct status from ops.forget_requests") == [("done",)]
    assert loaded.query("select person_id from serving.fct_people order by person_id::int") == [
        (str(n),) for (n,) in others
    ]


@pytest.mark.parametrize("instant", ["object-rewritten", "manifest-replaced"])
def test_a_load_that_is_killed_while_it_leaves_rows_out_is_taken_up_without_them(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path, instant: str
) -> None:
    rows: list[dict[str, Any]] = [order(n, email=canary(n)) for n in (1, 2, 3)]
    api.answer = lambda _: Answer({"result": {"orders": rows}})
    ingest(source(), source().streams[0], connections(api), destination)
    forgotten(source(), warehouse, destination, "2")
    kill_at(instant, partial(ingest, source(), source().streams[0], connections(api), destination))
    reports = ingest(source(), source().streams[0], connections(api), destination)
    assert [(each.extracted, each.forgotten) for each in reports] == [(3, 1), (3, 1)]
    assert raw(warehouse, "id") == [(1,), (3,)]
    forgotten(source(), warehouse, destination, "2")  # what the killed run has left is deleted at once
    check_gone(warehouse, landing_folder, canary(2))
    check_whole(warehouse, destination, landing_folder, source())
