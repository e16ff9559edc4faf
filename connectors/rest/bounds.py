"""From which row on an API is asked: watermarks and windows in the form that its parameters take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from math import floor

from connectors.errors import ConfigurationError, WindowError
from connectors.model import Cursor, Window

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Instants(Enum):
    """How a parameter writes an instant. Each is UTC."""

    ISO = timedelta(microseconds=1)
    """2024-01-31T10:00:00Z, with a fraction where there is one."""
    DATE = timedelta(days=1)
    """2024-01-31."""
    UNIX_SECONDS = timedelta(seconds=1)
    """Whole seconds since 1970."""
    UNIX_MILLISECONDS = timedelta(milliseconds=1)
    """Whole milliseconds since 1970."""

    @property
    def step(self) -> timedelta:
        """From one value to the next."""
        return self.value

    def written(self, instant: datetime) -> str | int:
        """An instant, cut to what can be written of it."""
        if self is Instants.ISO:
            return instant.isoformat().replace("+00:00", "Z")
        utc = instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
        if self is Instants.DATE:
            return utc.date().isoformat()
        return (utc - datetime(1970, 1, 1, tzinfo=UTC)) // self.step

    def is_exact(self, instant: datetime) -> bool:
        """Whether the whole instant can be written."""
        return not (instant - datetime(1970, 1, 1, tzinfo=UTC)) % self.step


@dataclass(frozen=True, slots=True)
class Strftime:
    """An instant, in UTC, by a pattern of `strftime`, e.g. `Strftime("%Y%m%d", step=timedelta(days=1))`."""

    pattern: str
    step: timedelta = timedelta(seconds=1)
    """From one value to the next, a divisor of a day, or days."""

    def __post_init__(self) -> None:
        sample = datetime(2001, 2, 3, tzinfo=UTC)
        try:
            is_whole = datetime.strptime(sample.strftime(self.pattern), self.pattern).replace(tzinfo=UTC) == sample
        except ValueError:
            is_whole = False
        if not is_whole or self.step <= timedelta(0):
            raise ConfigurationError(
                f"`{self.pattern}` does not write a whole date.", remedy="Name year, month and day at least: %Y-%m-%d."
            )

    def written(self, instant: datetime) -> str:
        """An instant, cut to what the pattern has."""
        return (instant.astimezone(UTC) if instant.tzinfo else instant).strftime(self.pattern)

    def is_exact(self, instant: datetime) -> bool:
        """Whether the pattern writes the whole instant."""
        return datetime.strptime(self.written(instant), self.pattern).replace(tzinfo=UTC) == instant


InstantFormat = Instants | Strftime


def window_bounds(
    window: Window, names: tuple[str, str], form: InstantFormat, *, end_included: bool
) -> Mapping[str, str | int]:
    """The parameters of a window.

    Args:
        end_included: whether the source takes the end as the last value that is meant, not the first that is not.

    Raises:
        WindowError: the form cannot say the window's bounds exactly.
    """
    for bound in (window.start, window.end):
        if not form.is_exact(bound):
            raise WindowError(
                f"The source cannot be asked for {bound.isoformat()}: its parameters are coarser.",
                remedy="Give bounds that it can write, such as whole days.",
                window=window,
            )
    end = window.end - form.step if end_included else window.end
    return {names[0]: form.written(window.start), names[1]: form.written(end)}


def since_bound(watermark: str | None, cursor: Cursor, form: InstantFormat) -> str | int | None:
    """The value that is asked from: the watermark less the cursor's lag; None for everything.

    What is no instant (a number, a name) stays as it is. With a form that counts, a number is an instant in it.

    Raises:
        ConfigurationError: the cursor has a lag and its position is no instant.
    """
    if watermark is None:
        return cursor.initial
    if form in (Instants.UNIX_SECONDS, Instants.UNIX_MILLISECONDS) and _NUMBER.fullmatch(watermark):
        steps_of_lag = -(-cursor.lag // form.step)  # rounded up: to look further back is always right
        return floor(Decimal(watermark)) - steps_of_lag
    instant = _instant(watermark)
    if instant is not None:
        if form is Instants.ISO and "T" not in watermark and " " not in watermark and not cursor.lag:
            return watermark  # a date is ISO as it is
        return form.written(instant - cursor.lag)
    if cursor.lag:
        raise ConfigurationError(
            f"The cursor `{cursor.field}` has a lag but its position `{watermark}` is no instant.",
            remedy="Drop the lag, or declare the column as timestamptz.",
        )
    return watermark


def _instant(text: str) -> datetime | None:
    """A date or time as PostgreSQL or ISO 8601 prints it. Digits alone are a number, though some could be a date."""
    if _INSTANT.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
