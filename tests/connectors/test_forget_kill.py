"""A run that forgets and is killed, at any instant: nothing comes back meanwhile, and whoever resumes it ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.failpoints import FORGET_FAILPOINTS
from connectors.ingest import Destination, ingest
from connectors.rebuild import rebuild
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import connections, order, raw, shop_source
from tests.connectors.forgetting import (
    MODELS,
    build_again,
    build_models,
    change_models,
    check_gone,
    check_whole,
    forgotten,
    resumed,
)

FORGET = """
import sys
from sqlalchemy.engine import make_url
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.forget import Roles, forget, resume
from connectors.forget_keys import subject_of
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.forget_requests import open_requests
from connectors.ingest import Destination
from tests.connectors.forgetting import MODELS
from tests.connectors.test_forget_kill import source

_, key, loader, owner, transformer, publisher, landing = sys.argv
destination = Destination(make_url(loader), Landing(StoreLocation(landing)))
roles = Roles(make_url(owner), make_url(transformer), make_url(publisher))
if key:
    subject = subject_of(source(), source().streams[0], [key], EnvironmentConnections({}))
    forget(subject, destination, roles, MODELS, by="the victim")
else:
    with connect(roles.owner, "victim") as connection:
        requests = open_requests(connection)
    for request in requests:
        resume(request, source(), source().streams[0], destination, roles, MODELS)
"""
LOAD = """
import sys
from sqlalchemy.engine import make_url
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from tests.connectors.test_forget_kill import source

_, api, loader, landing = sys.argv
where = EnvironmentConnections({"HEADWATER_SHOP_URL": api, "HEADWATER_SHOP_KEY": "sesame"})
ingest(source(), source().streams[0], where, Destination(make_url(loader), Landing(StoreLocation(landing))))
"""


def source() -> RestSource:
    return shop_source(pages=None, cursor=None, since_parameter=None)


def canary(number: int) -> str:
    return f"canary.{number:02}@birds.test"


def kill(script: str, instant: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "HEADWATER_FAILPOINT": instant},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, (instant, done.stderr)


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
    roles = ("loader", "owner", "transformer", "publisher")
    urls = [*(loaded.url(role).render_as_string(hide_password=False) for role in roles), landing_folder.as_uri()]
    gone: list[str] = []
    for number, instant in enumerate(instants, 1):
        if instant == "generations-forgotten":  # reached by who resumes it, once all is built
            forgotten(source(), loaded, destination, str(number), lineage=MODELS)
            build_again(loaded)
            kill(FORGET, instant, "", *urls)
        else:
            kill(FORGET, instant, str(number), *urls)
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
    loader = warehouse.url("loader").render_as_string(hide_password=False)
    kill(LOAD, instant, api.url, loader, landing_folder.as_uri())
    reports = ingest(source(), source().streams[0], connections(api), destination)
    assert [(each.extracted, each.forgotten) for each in reports] == [(3, 1), (3, 1)]
    assert raw(warehouse, "id") == [(1,), (3,)]
    forgotten(source(), warehouse, destination, "2")  # what the killed run has left is deleted at once
    check_gone(warehouse, landing_folder, canary(2))
    check_whole(warehouse, destination, landing_folder, source())
