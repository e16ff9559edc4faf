"""What can differ between a source and raw, and how much of it is looked at. No I/O here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from connectors.comparison.digests import Key
from connectors.model import Window


class Kind(StrEnum):
    """How raw and the source disagree on a row."""

    MISSING = "missing"
    """The source has it, raw does not, or has it as deleted."""
    DIFFERENT = "different"
    DELETED = "deleted"
    """Raw has it, the source no longer does."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that raw and the source do not agree on."""

    window: Window | None
    """The one that it is of: at the source, or in raw if the source no longer has it. None if there are none."""
    key: Key
    kind: Kind
    columns: tuple[str, ...] = ()
    """Raw's columns that differ. `_deleted_at` where raw has a live row as deleted."""
    is_certain: bool = True
    """Whether it cannot be a change that the next load brings: a stream without a cursor does not tell."""
    is_healed: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a comparison may cost."""

    rows: int = 1_000_000
    """Rows of raw within the windows, or the range of keys, that are compared in one go."""
    changed: int = 50_000
    """Rows changed since the last load. Beyond it a load is due first."""
    fetched: int = 20_000
    """Rows whose hashes are fetched to find those that differ."""
    differences: int = 1_000
    """Rows that are named."""
    seconds: float = 900.0
    """For any one question to a database; and how long an instant of the source is held at most while it is not
    asked."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a comparison found."""

    differences: Sequence[Difference] = ()
    is_at_least: bool = False
    """Whether there is more than was looked at."""
    rows_at_source: int = 0
    rows_in_raw: int = 0
    quarantined: int = 0
    """Rows that raw does not have (as they are) because they are in quarantine."""
    changed_since: int = 0
    """Rows left out because the next load brings them."""
    questions: int = 0
    """Queries to the source; where rows were read again, records."""

    @property
    def counts(self) -> dict[Kind, int]:
        found = Counter(each.kind for each in self.differences)
        return {kind: found[kind] for kind in Kind}

    @property
    def uncertain(self) -> int:
        return sum(not each.is_certain for each in self.differences)

    @property
    def open(self) -> list[Difference]:
        """What was not healed."""
        return [each for each in self.differences if not each.is_healed]

    @property
    def is_alarming(self) -> bool:
        """Whether raw is known not to be what the source is."""
        more = self.is_at_least and all(each.is_certain for each in self.differences)
        return more or any(each.is_certain for each in self.open)

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            [*self.differences, *other.differences],
            self.is_at_least or other.is_at_least,
            self.rows_at_source + other.rows_at_source,
            self.rows_in_raw + other.rows_in_raw,
            self.quarantined + other.quarantined,
            self.changed_since + other.changed_since,
            self.questions + other.questions,
        )

    def at_most(self, differences: int) -> Findings:
        """With no more than so many rows named."""
        if len(self.differences) <= differences:
            return self
        return replace(self, differences=self.differences[:differences], is_at_least=True)
