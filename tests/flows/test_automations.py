"""Automations as code, on a real Prefect server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.automations import Automation, DoNothing, EventTrigger
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import Automation as Found
from prefect.events.schemas.automations import AutomationCore

from connectors.alerts.routing import NOBODY, Routing, parse_routing
from connectors.connections import EnvironmentConnections
from deployments.automations import TAG, apply
from tasks.alerts import register_channels

MENDING = ["headwater: a run whose process is gone has crashed", "headwater: a run that stays pending has crashed"]
TELLING = ["failed", "crashed", "late", "stuck", "takes too long", "absent"]
SWITCHES = ["headwater: the watcher is silent", "headwater: the watcher is back"]


@pytest.fixture(autouse=True)
def _clean(prefect_server: str) -> Iterator[None]:
    yield
    with get_client(sync_client=True) as client:
        for each in client.read_automations():
            client.delete_automation(each.id)


@pytest.fixture
def routing() -> Routing:
    """A Slack channel, whose block is registered."""
    found = parse_routing("channels: {slack: {kind: slack}}\nroutes: [{channels: [slack]}]", "the test")
    secrets = {"HEADWATER_ALERTS_SLACK_URL": "https://hooks.slack.com/services/T0/B0/x"}
    register_channels(EnvironmentConnections(secrets), found)
    return found


def automations() -> dict[str, Found]:
    with get_client(sync_client=True) as client:
        return {each.name: each for each in client.read_automations()}


def test_without_a_channel_only_what_mends_is_there() -> None:
    assert apply(NOBODY) == MENDING
    assert set(automations()) == set(MENDING)


def test_they_are_made_once_and_left_alone_from_then_on(routing: Routing) -> None:
    names = apply(routing)
    first = automations()
    assert names == [*MENDING, *(f"headwater: {name}" for name in TELLING), *SWITCHES]

    assert apply(routing) == names
    assert automations() == first


def test_what_was_changed_by_hand_is_corrected_and_what_is_not_in_the_file_goes(routing: Routing) -> None:
    apply(routing)
    with get_client(sync_client=True) as client:
        changed = automations()[MENDING[0]]
        client.update_automation(changed.id, AutomationCore(**{**changed.model_dump(exclude={"id"}), "enabled": False}))
    trigger = EventTrigger(expect={"anything"})
    Automation(name="headwater: of an older version", tags=[TAG], trigger=trigger, actions=[DoNothing()]).create()
    Automation(name="the team's own", trigger=trigger, actions=[DoNothing()]).create()

    apply(routing)

    found = automations()
    assert found[MENDING[0]].enabled
    assert found[MENDING[0]].id == changed.id
    assert "headwater: of an older version" not in found
    assert "the team's own" in found


def test_the_server_speaks_only_while_the_watcher_is_silent(routing: Routing) -> None:
    apply(routing)
    found = automations()
    spoken = {found[f"headwater: {name}"].id for name in TELLING}

    assert not any(found[f"headwater: {name}"].enabled for name in TELLING)
    silent, back = (found[name] for name in SWITCHES)
    assert {getattr(each, "automation_id", None) for each in silent.actions} >= spoken
    assert {each.automation_id for each in back.actions} == spoken
    assert silent.actions[0].type == "send-notification"


def test_a_deploy_while_the_watcher_is_silent_does_not_silence_the_server(routing: Routing) -> None:
    apply(routing)
    with get_client(sync_client=True) as client:
        client.resume_automation(automations()["headwater: failed"].id)

    apply(routing)

    assert automations()["headwater: failed"].enabled
