"""What the Prefect server does by itself, on PostgreSQL: what each automation of deployments/automations.py is for is
brought about, and what becomes of it is looked at; and what is old is forgotten. Spans are shorter than those deployed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from connectors.alerts.routing import Routing, parse_routing
from connectors.connections import EnvironmentConnections
from deployments import automations
from deployments.automations import BEAT, RETURNED, WATCHER_RESOURCE, apply
from deployments.local.stack import LocalStack
from tasks.alerts import register_channels
from tests.connectors.alerts.catchers import MailServer, mail_server
from tests.waiting import until

pytestmark = pytest.mark.chaos

ROUTING = """
channels:
  mail: {{kind: email, host: 127.0.0.1, port: {port}, security: none, sender: h@example.com, to: [team@example.com]}}
routes:
  - channels: [mail]
"""
SECONDS = 10
WITHIN = 90.0
"""Within how many seconds all of it is told: the server looks for runs that are late 15 s after their time."""


@pytest.fixture(scope="module")
def mails() -> Iterator[MailServer]:
    with mail_server() as found:
        yield found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> LocalStack:
    return LocalStack(tmp_path_factory.mktemp("automations") / "home")


@pytest.fixture(scope="module")
def client(stack: LocalStack, mails: MailServer) -> Iterator[SyncPrefectClient]:
    """Of a server that has the automations; nobody watches, and no worker is there."""
    try:
        stack.start_postgres()
        with pytest.MonkeyPatch.context() as patch:
            # An hour, usually.
            patch.setenv("PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS", "2")
            stack.start_prefect_server()
        settings = {PREFECT_API_URL: stack.environment()["PREFECT_API_URL"], PREFECT_HOME: stack.home / "client"}
        with temporary_settings(settings), pytest.MonkeyPatch.context() as patch:
            for name in ("PROCESS_SILENCE", "LONGEST_PENDING", "WATCHER_SILENCE"):
                patch.setattr(automations, name, timedelta(seconds=SECONDS))
            routing = parse_routing(ROUTING.format(port=mails.port), "the test")
            register_channels(EnvironmentConnections({}), routing)
            with get_client(sync_client=True) as found:
                apply_and_watch(found, routing)
                yield found
    finally:
        stack.destroy()


def apply_and_watch(client: SyncPrefectClient, routing: Routing) -> None:
    apply(routing)
    for _ in range(SECONDS):  # the watcher, for the last times: the server takes a while to heed new automations
        say(client, BEAT, WATCHER_RESOURCE)
        time.sleep(1)


def say(client: SyncPrefectClient, event: str, resource: str) -> None:
    found = {
        "id": str(uuid4()),
        "event": event,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": resource},
    }
    client.request("POST", "/events", json=[found])


def subject(mails: MailServer, text: str) -> list[str]:
    return [each for each in mails.subjects if text in each]


def flow_run(client: SyncPrefectClient, name: str, state: StateType, at: datetime | None = None) -> UUID:
    """A run of a deployment whose work pool nobody works for."""
    with_time = {"scheduled_time": at} if at else {}
    run = client.create_flow_run_from_deployment(
        _deployment(client), name=name, state=State(type=StateType.SCHEDULED, state_details=with_time)
    )
    if state is not StateType.SCHEDULED:
        for each in (StateType.PENDING, StateType.RUNNING, StateType.FAILED):
            client.set_flow_run_state(run.id, State(type=each, message="by the test"))
            if each is state:
                break
    return run.id


def _deployment(client: SyncPrefectClient) -> UUID:
    pools = {pool.name for pool in client.read_work_pools()}
    if "nobody" not in pools:
        client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
    flow_id = client.create_flow_from_name("idle")
    return client.create_deployment(flow_id, "idle", work_pool_name="nobody")


def crashed(client: SyncPrefectClient, run: UUID) -> str | None:
    state = client.read_flow_run(run).state
    return state.message if state is not None and state.type is StateType.CRASHED else None


def test_the_server_mends_runs_that_cannot_and_tells_of_them_while_nobody_watches(
    client: SyncPrefectClient, mails: MailServer
) -> None:
    until(lambda: subject(mails, "Headwater's watcher is silent"), "the watcher is missed", seconds=WITHIN)
    until(lambda: all(each.enabled for each in client.read_automations()), "the others are on now", seconds=WITHIN)

    gone = flow_run(client, "a run whose machine is gone", StateType.RUNNING)
    say(client, "prefect.flow-run.heartbeat", f"prefect.flow-run.{gone}")
    stuck = flow_run(client, "a run that nobody begins", StateType.PENDING)
    flow_run(client, "a run that is late", StateType.SCHEDULED, datetime.now(UTC) - timedelta(minutes=1))
    flow_run(client, "a run that went wrong", StateType.FAILED)
    alive = flow_run(client, "a run that gives signs of life", StateType.RUNNING)

    begun = time.monotonic()
    while time.monotonic() - begun < 3 * SECONDS:
        say(client, "prefect.flow-run.heartbeat", f"prefect.flow-run.{alive}")
        time.sleep(1)
    until(lambda: crashed(client, gone), "the run without a process has crashed", seconds=WITHIN)
    until(lambda: crashed(client, stuck), "the run that stays pending has crashed", seconds=WITHIN)
    assert "no sign of life" in str(crashed(client, gone))
    assert "its worker never began it" in str(crashed(client, stuck))

    expected = {
        "a run whose machine is gone crashed",
        "a run that nobody begins does not begin",
        "a run that nobody begins crashed",
        "a run that is late should have begun by now",
        "a run that went wrong failed",
    }
    begun = time.monotonic()
    while not expected <= set(mails.subjects) and time.monotonic() - begun < WITHIN:
        time.sleep(1)
    assert set(mails.subjects[1:]) == expected
    assert len(mails.subjects) == 1 + len(expected), f"each once: {mails.subjects}"
    assert crashed(client, alive) is None

    say(client, RETURNED, WATCHER_RESOURCE)
    told_by = [f"headwater: {name}" for name in ("failed", "crashed", "late", "stuck", "takes too long", "absent")]

    def switched_off() -> bool:
        found = {each.name: each.enabled for each in client.read_automations()}
        return not any(found[name] for name in told_by)

    until(switched_off, "they are off again", seconds=WITHIN)


def test_the_server_forgets_what_is_old_and_nothing_else(client: SyncPrefectClient, stack: LocalStack) -> None:
    """Runs with their logs after 60 days, events after a week, signs of life after a day; by its own vacuum."""
    runs = {days: flow_run(client, f"{days} days old", StateType.FAILED) for days in (59, 61)}
    server = stack.postgres.server()
    assert server is not None
    with server.connect("prefect") as connection:

        def left(query: str) -> list[int]:
            return sorted(row[0] for row in connection.execute(query.encode()).fetchall())

        for days, run in runs.items():
            log = {"name": "test", "level": 20, "message": f"{days}", "timestamp": datetime.now(UTC).isoformat()}
            client.request("POST", "/logs/", json=[log | {"flow_run_id": str(run)}])
            connection.execute(
                "update flow_run set end_time = now() - %s * interval '1 day' where id = %s", [days, run]
            )
        of_runs = "select split_part(name, ' ', 1)::int from flow_run where name like '%% days old'"
        of_logs = "select message::int from log where name = 'test'"
        for days, name in (
            (6, "made.up"),
            (8, "made.up"),
            (0, "prefect.flow-run.heartbeat"),
            (2, "prefect.flow-run.heartbeat"),
        ):
            say(client, name, f"aged.{days}")
        aged = "select substr(resource_id, 6)::int from events where resource_id like 'aged.%%'"
        until(lambda: left(aged) == [0, 2, 6, 8], "the events are there", seconds=WITHIN)
        connection.execute(
            "update events set occurred = now() - substr(resource_id, 6)::int * interval '1 day'"
            " where resource_id like 'aged.%'"
        )
        until(lambda: left(of_runs) == [59], "the old run is gone", seconds=WITHIN)
        until(lambda: left(of_logs) == [59], "and what it said", seconds=WITHIN)
        until(lambda: left(aged) == [0, 6], "old events are gone", seconds=WITHIN)
        time.sleep(5)
        assert (left(of_runs), left(of_logs), left(aged)) == ([59], [59], [0, 6]), "and nothing else"
