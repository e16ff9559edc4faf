"""The runbook has every kind of trouble, and every class of error, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.incidents.checks import CHECKS
from connectors.incidents.checks.loads import CAUSES
from connectors.incidents.kinds import Kind
from connectors.incidents.rules import Rules
from connectors.incidents.signs import Severity

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/incidents.md").read_text()


def test_every_kind_has_its_row_with_what_to_do() -> None:
    rows = re.findall(r"(?m)^\| (`[a-z` ,]+`) \| (?:warning|error)[^|]*\|[^|]+\|[^|]+\|[^|]+\|[^|]+\|$", PAGE)
    assert sorted(kind for row in rows for kind in re.findall(r"`([a-z ]+)`", row)) == sorted(Kind)


def test_at_night_every_kind_says_whether_it_can_wait_and_what_to_do() -> None:
    night = PAGE.partition("## At 3 a.m.")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| `([a-z ]+)` \| (?:Yes|No|If|As|By)[^|]*\| \S[^|]+\|$", night) == list(Kind)


def test_every_class_of_error_and_every_scope_is_named() -> None:
    general = {"DataError", "TransientError"}
    assert {kind.__name__ for kind in CAUSES} - general <= set(re.findall(r"`(\w+Error)`", PAGE))
    [scopes] = re.findall(r"(?m)^\| scope \| (.*)$", PAGE)
    assert re.findall(r"`(\w+)`", scopes) == list(CHECKS)


def test_the_usual_times_are_those_of_the_rules() -> None:
    rules = Rules()
    assert [rules.remind_after[each] for each in (Severity.CRITICAL, Severity.ERROR, Severity.WARNING)] == [
        Rules.of({"HEADWATER_INCIDENT_REMIND_ERROR": "4h"}).remind_after[Severity.ERROR],
        Rules.of({"HEADWATER_INCIDENT_REMIND_ERROR": "24h"}).remind_after[Severity.ERROR],
        None,
    ]
    assert "`4h`, `24h`, `never`" in PAGE
    assert f"`{rules.settle.total_seconds() / 60:.0f}m`" in PAGE
