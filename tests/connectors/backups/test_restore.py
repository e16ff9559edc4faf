"""A warehouse that was lost is made anew from its backup and the landing."""

from __future__ import annotations

from tests.connectors.backups.drill import Drill
from tests.connectors.examples import Shop
from tests.connectors.forgetting import build_models, change_models


def test_all_that_a_backup_has_comes_back_as_it_was(drill: Drill, shop: Shop) -> None:
    drill.load()
    build_models(drill.warehouse)
    change_models(drill.warehouse)
    before = drill.state()
    drill.back_up()
    drill.lose()
    report = drill.restore()
    after = drill.state()
    assert after.keys() == before.keys()
    for name, rows in before.items():
        assert after[name] == rows, name
    assert (report.loads, report.requests) == (0, 0)
