"""`headwater rollback` and `headwater release`: one word each, that says what it did."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from tests.conftest import Warehouse
from tests.connectors.destinations.warehouse.publishing import BUILD, RAISE_TOTALS, change, read, run


def test_a_group_is_rolled_back_and_released(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    change(warehouse, BUILD)
    run(warehouse)
    change(warehouse, RAISE_TOTALS)
    run(warehouse)
    url = warehouse.url("publisher").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_PUBLISHER_URL", url)

    def say(*arguments: str) -> str:
        outcome = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert outcome.exit_code == 0
        return outcome.stdout

    assert "sales: generation 1 is served, no longer 2. It is on hold." in say(
        "rollback", "--group", "sales", "--to", "1", "--why", "wrong currency"
    )
    assert read(warehouse, "select sum(total) from serving.fct_orders") == [(50500,)]
    [(why,)] = read(warehouse, "select why from serving.data_status where mart = 'fct_orders'")
    assert "wrong currency (generation 2 to 1)" in str(why)
    assert say("release") == "sales moves with the next publish.\n"
    assert say("release") == "Nothing was on hold.\n"
