"""What is published: marts, the streams behind them, and what a build says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

UNGROUPED = "ungrouped"
"""The group of the marts that the project gives none."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A stream that a mart is built from, directly or through models, and how old it may be."""

    source: str
    stream: str
    warn_after: timedelta | None = None
    error_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a mart, for the queries of its readers."""

    columns: tuple[str, ...]
    method: str = "btree"

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("An index needs columns. Name them under `columns` in the mart's `indexes`.")


@dataclass(frozen=True, slots=True)
class Mart:
    """A table that dbt has built."""

    name: str
    schema: str
    key: tuple[str, ...]
    description: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Description by column."""
    group: str = UNGROUPED
    """The marts of a group are published together or not at all."""
    indexes: tuple[Index, ...] = ()
    """What the copy that readers see has beside its key."""
    is_incremental: bool = False
    """Whether dbt changes the table from build to build, rather than making it anew."""
    reads: frozenset[str] = frozenset()
    """The marts that it is built from, directly or through models."""
    feeds: tuple[Feed, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a build says of a mart: of itself, and of all that it is built from."""

    passed: int = 0
    """Tests."""
    failed: int = 0
    warned: int = 0
    why: str = ""
    """Why it must not be published; empty if it may."""


@dataclass(frozen=True, slots=True)
class MartReport:
    """What publishing a mart changed, in rows."""

    name: str
    inserted: int
    updated: int
    deleted: int
    total: int

    @property
    def moved(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of a publish."""

    generation: int | None
    """The new generation of the serving schema; None if no group moved."""
    groups: tuple[str, ...]
    """Those that moved."""
    marts: tuple[MartReport, ...]
    """Theirs, in the order in which they were given."""
    held_back: Mapping[str, str] = field(default_factory=dict)
    """Why, by group: readers keep its last good generation."""
    on_hold: Mapping[str, str] = field(default_factory=dict)
    """Why, by group: somebody wants it to stay as it is until it is released."""
