"""Rounds of the watcher, against a real warehouse and a receiver of alerts; the Prefect server is there or not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from connectors.alerts.routing import Routing, parse_routing
from connectors.connections import EnvironmentConnections
from deployments.watcher.judgement import Limits
from deployments.watcher.memory import Memory
from deployments.watcher.rounds import Watcher
from tests.conftest import Warehouse
from tests.connectors.alerts.catchers import Receiver, receiver

NOBODY = "127.0.0.1:9"  # the discard port: nothing listens
NOWHERE = f"http://{NOBODY}/api"
ROUTING = "channels: {hook: {kind: webhook}}\nroutes: [{channels: [hook]}]"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(autouse=True)
def one_attempt() -> Iterator[None]:
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


@pytest.fixture
def routing() -> Routing:
    return parse_routing(ROUTING, "the test")


def watcher(
    folder: Path,
    routing: Routing,
    hook: Receiver,
    warehouse: str,
    server: str = NOWHERE,
    *,
    limits: Limits | None = None,
) -> Watcher:
    environment: Mapping[str, str] = {
        "HEADWATER_WAREHOUSE_WATCHER_URL": warehouse,
        "HEADWATER_ALERTS_HOOK_URL": hook.url,
    }
    memory = Memory(folder / "watcher.json")
    return Watcher(EnvironmentConnections(environment), routing, memory, api_url=server, limits=limits)


def told(hook: Receiver, of: str) -> list[str]:
    """The kinds of the messages about something, in order."""
    return [body["kind"] for body in hook.taken if of in body["subject"]]


def url(warehouse: Warehouse) -> str:
    return warehouse.url("watcher").render_as_string(hide_password=False)


def absent(warehouse: Warehouse) -> str:
    host, port = NOBODY.split(":")
    return warehouse.url("watcher").set(host=host, port=int(port)).render_as_string(hide_password=False)


def test_a_server_that_does_not_answer_twice_is_one_message_and_its_return_one_more(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse, prefect_server: str
) -> None:
    watching = watcher(tmp_path, routing, hook, url(warehouse))

    first = watching.round()
    assert (first.server, first.signs, hook.taken) == ("does not answer", [], [])

    for _ in range(3):
        later = watching.round()
    assert [sign.kind for sign in later.signs] == ["server silent"]
    assert told(hook, "Prefect server does not answer") == ["opened"]

    back = watcher(tmp_path, routing, hook, url(warehouse), prefect_server).round()
    assert back.server == "answers"
    assert warehouse.query("select count(*) from ops.incidents where closed_at is null") == [(0,)]
    # A recovery is told once it has lasted.
    warehouse.execute("update ops.alerts set due_at = clock_timestamp() where delivered_at is null")
    watching.round()
    assert told(hook, "Prefect server does not answer") == ["opened", "closed"]


def test_a_warehouse_that_is_gone_is_told_past_the_outbox_and_written_down_when_it_is_back(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse
) -> None:
    gone = absent(warehouse)
    assert watcher(tmp_path, routing, hook, gone).round().warehouse == "does not answer"
    assert hook.taken == []

    # A watcher that was started anew remembers what the one before it has seen, and who was told.
    watcher(tmp_path, routing, hook, gone).round()
    watcher(tmp_path, routing, hook, gone).round()
    assert told(hook, "The warehouse does not answer") == ["opened"]
    assert "[critical]" in hook.taken[0]["subject"]

    watcher(tmp_path, routing, hook, url(warehouse)).round()
    watcher(tmp_path, routing, hook, url(warehouse)).round()
    assert told(hook, "The warehouse does not answer") == ["opened", "closed"]
    [(lasted, closed_why)] = warehouse.query(
        "select closed_at > opened_at, closed_why from ops.incidents where title like 'The warehouse%'"
    )
    assert lasted
    assert closed_why == "It answers again."


def test_a_channel_that_is_down_with_the_warehouse_hears_of_it_when_it_is_back(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse
) -> None:
    gone = watcher(tmp_path, routing, hook, absent(warehouse))
    hook.refuse(500)
    for _ in range(3):
        gone.round()
    assert hook.taken == []

    hook.accept()
    gone.round()
    gone.round()
    assert told(hook, "The warehouse does not answer") == ["opened"]


def test_a_restart_of_the_warehouse_is_no_trouble(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse
) -> None:
    watcher(tmp_path, routing, hook, absent(warehouse)).round()
    found = watcher(tmp_path, routing, hook, url(warehouse)).round()

    assert found.warehouse == "answers"
    assert told(hook, "The warehouse does not answer") == []
    assert warehouse.query("select count(*) from ops.incidents where title like 'The warehouse%'") == [(0,)]


def test_a_warehouse_that_is_not_upgraded_is_not_said_to_be_gone(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse
) -> None:
    warehouse.execute("drop table ops.heartbeats")
    watching = watcher(tmp_path, routing, hook, url(warehouse))
    watching.round()
    found = watching.round()

    assert found.warehouse == "answers"
    assert any("the watcher's own tables" in problem for problem in found.problems)
    assert told(hook, "The warehouse does not answer") == []


def test_each_round_is_a_sign_of_life(tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse) -> None:
    watching = watcher(tmp_path, routing, hook, url(warehouse))
    watching.round()
    watching.round()

    [(age, found)] = warehouse.query(
        "select extract(epoch from clock_timestamp() - beat_at), detail ->> 'found' from ops.heartbeats"
    )
    assert age < 60
    assert "Prefect server does not answer" in found


def test_a_run_that_nobody_begins_is_ended_where_the_server_has_missed_it(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse, prefect_server: str
) -> None:
    """As when the server was stopped before it could note that a worker had taken it: it would keep its slot."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow_from_name("taken"), "taken")
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, State(type=StateType.PENDING))
        watching = watcher(tmp_path, routing, hook, url(warehouse), prefect_server)
        watching.round()
        assert client.read_flow_run(run.id).state_name == "Pending"

        watching = watcher(tmp_path, routing, hook, url(warehouse), prefect_server, limits=Limits(pending=timedelta(0)))
        watching.round()
        watching.round()
        assert client.read_flow_run(run.id).state_name == "Crashed"
        client.delete_deployment(deployment)
    assert told(hook, "taken/taken") == ["opened"], "that it does not begin; that it crashed is the same trouble"


def test_a_server_that_was_away_is_not_believed_that_nobody_was_there_meanwhile(
    tmp_path: Path, routing: Routing, hook: Receiver, warehouse: Warehouse, prefect_server: str
) -> None:
    """Workers could not report to it, and runs that were due could not begin."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="deserted", type="process"))
        flow = client.create_flow_from_name("waiting")
        deployment = client.create_deployment(flow, "waiting", work_pool_name="deserted")
        client.create_flow_run_from_deployment(deployment)
    try:
        watching = watcher(tmp_path, routing, hook, url(warehouse))
        watching.round()

        back = watcher(
            tmp_path, routing, hook, url(warehouse), prefect_server, limits=Limits(back=timedelta(seconds=3))
        )
        assert back.round().signs == []
        assert told(hook, "No worker is there") == []
        time.sleep(3)
        assert "worker silent" in [sign.kind for sign in back.round().signs]
        assert told(hook, "No worker is there") == ["opened"]
    finally:
        with get_client(sync_client=True) as client:
            client.delete_deployment(deployment)
            client.delete_work_pool("deserted")


def test_a_memory_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "watcher.json"
    path.write_text('{"warehouse": {"since": "yesterday"}}')

    assert Memory(path).troubles == {}
