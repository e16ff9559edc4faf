"""Alerts on a real Prefect server: flows take the channels' secrets from its blocks, and its automations send mail by a
block of Headwater's, which the server itself has to load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.blocks.abstract import NotificationError
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from connectors.alerts.deliver import Delivery
from connectors.alerts.routing import parse_routing, read_routing
from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from deployments.deploy import deploy_all
from deployments.local.stack import LocalStack
from tasks import alerts as tasks_alerts
from tasks.alerts import block_lookup, notification_blocks, register_channels, send_alerts
from tasks.blocks import HeadwaterEmail
from tasks.credentials import WAREHOUSE_WATCHER, register
from tests.conftest import Warehouse
from tests.connectors.alerts.catchers import Desk, MailServer, mail_server, receiver
from tests.prefect_client import prefect_settings
from tests.telling import heard
from tests.waiting import until

ROUTING = """
channels:
  slack: {{kind: slack}}
  mail: {{kind: email, host: 127.0.0.1, port: {port}, security: none, user: headwater,
          sender: h@example.com, to: [team@example.com]}}
  hook: {{kind: webhook, signed: true}}
routes:
  - channels: [slack, mail, hook]
"""
PASSWORD = "mail5canary7password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    stack = LocalStack(tmp_path_factory.mktemp("stack") / "home")
    try:
        stack.start_postgres()
        stack.start_prefect_server()
        with prefect_settings(
            {PREFECT_API_URL: stack.environment()["PREFECT_API_URL"], PREFECT_HOME: stack.home / "prefect-client"}
        ):
            yield
    finally:
        stack.destroy()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server(login=("headwater", PASSWORD)) as found:
        yield found


@pytest.fixture
def desk(
    server: None, mail: MailServer, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    """A desk whose routing and secrets are as a team sets them: a file, and the environment, registered."""
    (tmp_path / "alerts.yaml").write_text(ROUTING.format(port=mail.port))
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "alerts.yaml"))
    with receiver() as slack, receiver() as hook:
        environment = {
            "HEADWATER_WAREHOUSE_WATCHER_URL": warehouse.url("watcher").render_as_string(hide_password=False),
            "HEADWATER_ALERTS_SLACK_URL": slack.url,
            "HEADWATER_ALERTS_MAIL_PASSWORD": PASSWORD,
            "HEADWATER_ALERTS_HOOK_URL": hook.url,
            "HEADWATER_ALERTS_HOOK_KEY": "a key of the tests",
        }
        connections = EnvironmentConnections(environment)
        register(connections, [WAREHOUSE_WATCHER])
        written = register_channels(connections, read_routing())
        assert written == [
            "slack-webhook/headwater-slack",
            "headwater-email/headwater-mail",
            "secret/alerts-hook-url",
            "secret/alerts-hook-key",
        ]
        yield Desk(warehouse, slack, hook, read_routing())


@flow
def what_runs_do() -> Delivery | None:
    return send_alerts()


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # on loopback
def test_runs_send_alerts_by_what_prefect_keeps(desk: Desk, mail: MailServer) -> None:
    incident = desk.open()
    with heard() as said:
        delivery = what_runs_do()
    assert delivery is not None
    assert str(delivery) == "3 sent"
    assert (
        desk.slack.subjects == desk.hook.subjects == mail.subjects == ["[error] flights_api.flights cannot be loaded."]
    )
    assert desk.hook.asked[0].headers["webhook-signature"].startswith("v1,")
    assert not [line for line in said if PASSWORD in line or desk.slack.url in line]
    assert incident


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_no_run_fails_or_waits_long_for_its_alerts(
    desk: Desk, mail: MailServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk.open()
    monkeypatch.setattr(tasks_alerts, "DELIVERY_SECONDS", 2.0)
    desk.slack.says = lambda _, line: time.sleep(30)
    begun = time.monotonic()
    delivery = what_runs_do()
    assert time.monotonic() - begun < 15
    assert delivery is not None
    assert delivery.delivered == 2
    (tmp_path / "alerts.yaml").write_text("channels: 1")
    assert what_runs_do() is None
    desk.warehouse.execute("drop table ops.alerts cascade")
    (tmp_path / "alerts.yaml").write_text(ROUTING.format(port=mail.port))
    assert what_runs_do() is None


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_an_automation_of_the_server_sends_mail_by_a_block_of_ours(desk: Desk, mail: MailServer) -> None:
    blocks = notification_blocks(desk.routing)
    assert blocks == [("slack-webhook", "headwater-slack"), ("headwater-email", "headwater-mail")]
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name("headwater-mail", "headwater-email", include_secrets=False)
        client.create_automation(
            AutomationCore(
                name="tell of a test",
                trigger=EventTrigger(
                    expect={"headwater.test"}, posture=Posture.Reactive, threshold=1, within=timedelta(0)
                ),
                actions=[
                    SendNotification(
                        block_document_id=document.id,
                        subject="From an automation",
                        body="{{ event.payload.what }} <b>",
                    )
                ],
            )
        )
        assert PASSWORD not in str(document.data)
    time.sleep(2)  # until the server's triggers have heard of the new automation
    emit_event("headwater.test", {"prefect.resource.id": "headwater.test"}, payload={"what": "It works."})
    until(lambda: bool(mail.mails), "a mail comes", seconds=30)
    (received,) = mail.mails
    assert received["Subject"] == "From an automation"
    assert received.get_content().strip() == "It works. <b>"


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_block_whose_mail_is_refused_says_so_without_its_password(desk: Desk, mail: MailServer) -> None:
    block = HeadwaterEmail.load("headwater-mail")
    assert PASSWORD not in repr(block)
    mail.answer = f"554 refused, {PASSWORD}"
    with block.raise_on_failure(), pytest.raises(NotificationError) as caught:
        asyncio.run(block.notify("body", "subject"))
    assert "554 refused, ***" in caught.value.log
    asyncio.run(block.notify("body", "subject"))  # a flow's own use of it goes on


def test_a_file_that_cannot_be_meant_is_not_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alerts.yaml").write_text("channels: {slack: {kind: slak}}")
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "alerts.yaml"))
    with pytest.raises(ConfigurationError, match=r"alerts.yaml: the channel `slack`: Invalid value 'slak'"):
        deploy_all()


@pytest.mark.usefixtures("server")
def test_a_channel_without_its_secret_is_not_registered() -> None:
    routing = parse_routing("channels: {odd: {kind: slack}}\nroutes: [{channels: [odd]}]", "f")
    with pytest.raises(ConfigurationError, match="Set HEADWATER_ALERTS_ODD_URL"):
        register_channels(EnvironmentConnections({}), routing)
    (secret,) = routing.secrets
    with pytest.raises(ConfigurationError, match="no block slack-webhook/headwater-odd.*headwater register"):
        block_lookup(routing)(secret)
