"""`headwater incidents`: what is wrong, as a newcomer reads it, and each command that it names."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from connectors.incidents.signs import Severity
from deployments.cli import app
from tests.conftest import Warehouse
from tests.connectors.incidents.watching import STREAM, see, shop, sign


def test_incidents_are_listed_shown_snoozed_woken_and_closed(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = warehouse.url("watcher").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_WATCHER_URL", url)
    monkeypatch.setenv("LOGNAME", "ann")

    def say(*arguments: str, code: int = 0) -> str:
        outcome = CliRunner().invoke(app, ["incidents", *arguments])
        assert outcome.exit_code == code, outcome.output
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "<time>", outcome.output)

    assert say() == "No incident is open.\n"
    shop(warehouse)
    see(warehouse, sign("slow [staff]", "stream.crm.staff", Severity.WARNING))
    failed = sign(
        "load shop.orders", STREAM, title="Stream shop.orders failed to load", cause="The source is down.",
        next_command="prefect deployment run ingest/shop --watch", run_id="flow run a (1)",
    )  # fmt: skip
    see(warehouse, failed, scope="loads")
    listed = say()
    assert listed.startswith(
        "#2 error  Stream shop.orders failed to load  (open for 0 min)\n"
        "  owner         platform\n"
        "  affects       board, fct_orders\n"
        "  next          prefect deployment run ingest/shop --watch\n"
        "#1 warning  slow [staff] is wrong  (open for 0 min)\n"
    )
    assert listed.endswith(
        "2 open. `headwater incidents show 2` tells what happened; docs/incidents.md says what to do about each kind.\n"
    )

    snoozed = say("snooze", "2", "--for", "2h", "--why", "they are moving")
    assert snoozed == "#2 is quiet until <time> UTC. Its recovery is told as ever.\n"
    shown = say("show", "2")
    assert "  likely cause  The source is down.\n  begins at     stream.shop.orders\n" in shown
    assert "  snoozed       until <time> UTC by ann: they are moving\n" in shown
    assert "What shows it now\n  error  test failed: Stream shop.orders failed to load\n" in shown
    assert "  <time> UTC  opened     Stream shop.orders failed to load  (flow run a (1))\n" in shown
    assert "  <time> UTC  snoozed    Until <time> UTC, by ann: they are moving\n" in shown
    assert say("wake", "2") == "#2 is awake.\n"
    assert say("wake", "2") == "#2 was not snoozed.\n"

    assert say("close", "2", "--why", "the source is no more").startswith("#2 is closed.")
    assert "Stream shop.orders" not in say()
    assert "closed        <time> UTC: Closed by ann: the source is no more" in say("show", "2")
    assert say("--closed", "5").count("(closed)") == 1
    # Nothing of it is in ops: a look at all that there is finds it well.
    assert "No incident is open" not in say("--look")
    outcome = CliRunner().invoke(app, ["incidents", "show", "7"])
    assert "There is no incident `7`. Use one of those registered: `1`." in str(outcome.exception)
