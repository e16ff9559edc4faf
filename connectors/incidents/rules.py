"""How patient incidents are: reminders, and how soon a trouble that returns is still the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from connectors.errors import ConfigurationError
from connectors.incidents.signs import Severity

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_PREFIX = "HEADWATER_INCIDENT_"


@dataclass(frozen=True, slots=True)
class Rules:
    """How patient incidents are."""

    remind_after: Mapping[Severity, timedelta | None] = field(
        default_factory=lambda: {
            Severity.CRITICAL: timedelta(hours=4),
            Severity.ERROR: timedelta(hours=24),
            Severity.WARNING: None,
        }
    )
    """How long after the last message of an open incident the next one says that it is still there; None: never."""
    settle: timedelta = timedelta(minutes=20)
    """How long the message of a recovery waits. A sign that returns meanwhile takes it back, and opens the same
    incident again without another message. Longer than the quarter of an hour from one ingest to the next."""
    owner: str | None = None
    """Who hears of what nobody owns."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Rules:
        """The rules, with what HEADWATER_INCIDENT_REMIND_<SEVERITY>, _SETTLE and _OWNER say otherwise.

        Raises:
            ConfigurationError: a time is none; `never` is one for reminders.
        """
        usual = cls()
        remind = {
            severity: _span(environment, f"REMIND_{severity.name}", span)
            for severity, span in usual.remind_after.items()
        }
        settle = _span(environment, "SETTLE", usual.settle)
        return cls(remind, settle or timedelta(0), environment.get(f"{_PREFIX}OWNER") or None)


def span(text: str) -> timedelta:
    """A time span such as 90m, 2h or 1d.

    Raises:
        ConfigurationError: it is none, or not above zero.
    """
    unit = _UNITS.get(text.strip()[-1:])
    try:
        found = timedelta(**{unit: float(text.strip()[:-1])}) if unit else timedelta(0)
    except (ValueError, OverflowError):
        found = timedelta(0)
    if found <= timedelta(0):
        raise ConfigurationError(f"`{text}` is no time span.", remedy="Write minutes, hours or days: 90m, 2h, 1d.")
    return found


def _span(environment: Mapping[str, str], name: str, usual: timedelta | None) -> timedelta | None:
    text = environment.get(f"{_PREFIX}{name}", "")
    if not text:
        return usual
    if text == "never":
        return None
    try:
        return span(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PREFIX}{name}: {error.what}", remedy=f"{error.remedy} Or: never.") from error
