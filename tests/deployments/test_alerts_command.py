"""`headwater alerts`: what is undelivered and why, and a test of each channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from connectors.alerts.routing import read_routing
from connectors.errors import ConfigurationError
from deployments.cli import app
from tests.conftest import Warehouse
from tests.connectors.alerts.catchers import ROUTING, Desk, receiver

Say = Callable[..., Result]


@pytest.fixture
def desk(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    (tmp_path / "alerts.yaml").write_text(ROUTING)
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "alerts.yaml"))
    url = warehouse.url("watcher").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_WATCHER_URL", url)
    with receiver() as slack, receiver() as hook:
        monkeypatch.setenv("HEADWATER_ALERTS_SLACK_URL", slack.url)
        monkeypatch.setenv("HEADWATER_ALERTS_HOOK_URL", hook.url)
        yield Desk(warehouse, slack, hook, read_routing())


@pytest.fixture
def say() -> Say:
    return lambda *arguments: CliRunner().invoke(app, ["alerts", *arguments])


def test_a_test_goes_to_each_channel_and_says_what_each_answered(desk: Desk, say: Say) -> None:
    outcome = say("test")
    assert outcome.exit_code == 0
    assert outcome.stdout == "slack: 200 ok\nhook: 200 ok\n"
    (told,) = desk.slack.subjects
    assert told.startswith("[test] A test of the alert channels, by ")
    assert desk.hook.taken[0]["kind"] == "canary"
    desk.slack.refuse(404, b"no_service")
    outcome = say("test")
    assert outcome.exit_code == 1
    assert "slack: http://127.0.0.1:" in outcome.stderr
    assert "answered 404: no_service. Set a new address or key" in outcome.stderr
    assert desk.slack.url.rpartition("/")[2] not in outcome.output
    assert say("test", "--channel", "hook").exit_code == 0
    assert isinstance(say("test", "--channel", "mail").exception, ConfigurationError)


def test_what_is_undelivered_is_listed_with_its_reason(desk: Desk, say: Say) -> None:
    outcome = say()
    assert "never used" in outcome.stdout
    assert "Nothing is undelivered." in outcome.stdout
    desk.slack.refuse(410, b"channel_is_archived")
    desk.open(title="[red]Broken[/red]")
    assert say("send").exit_code == 1
    said = " ".join(say().stdout.split())
    assert "[error] [red]Broken[/red]" in said
    assert "broken for 0 s" in said
    assert said.count("answered 410: channel_is_archived") == 2  # the message and the channel
    assert desk.pending("slack") == 1
    # A test that passes is what those who wait have waited for.
    desk.slack.accept()
    assert say("test", "--channel", "slack").exit_code == 0
    assert "sent" in say("send").stdout
    assert [subject.split()[0] for subject in desk.slack.subjects] == ["[test]", "[error]"]
    assert "Nothing is undelivered." in say().stdout


def test_without_channels_it_says_that_nobody_hears(
    warehouse: Warehouse, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "HEADWATER_WAREHOUSE_WATCHER_URL", warehouse.url("watcher").render_as_string(hide_password=False)
    )
    assert "No channel is configured, so nobody hears of trouble" in say().stdout
    outcome = say("test")
    assert outcome.exit_code == 1
    assert "No channel is configured." in str(outcome.exception)


def test_a_test_needs_no_warehouse(desk: Desk, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_WAREHOUSE_WATCHER_URL", "postgresql+psycopg://x:y@127.0.0.1:1/none")
    assert say("test").stdout == "slack: 200 ok\nhook: 200 ok\n"


def test_a_channel_without_its_secret_says_which(desk: Desk, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_ALERTS_SLACK_URL")
    outcome = say("test")
    assert outcome.exit_code == 1
    assert "slack: The secret `alerts_slack_url` is not set. Set HEADWATER_ALERTS_SLACK_URL" in outcome.stderr
    assert "hook: 200 ok" in outcome.stdout
