"""What a table holds, told by counts and checksums: the words in which two databases are compared without their rows.

A *part* is a window, or all of a range of keys. Its rows fall into 2^bits *buckets* by a hash of their key, so that
two tables whose digests differ are searched like a tree: only buckets that differ are split further. The order of keys
plays no part in it, which no two databases need agree on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from connectors.connections import Connections
from connectors.model import Column, Source, Stream, Window

Key = tuple[str, ...]
"""The values of a row's key, as text."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Some rows, whatever their order."""

    rows: int
    checksum: int
    """The sum of a hash of each."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Rows of one part whose hashed keys begin with the same bits."""

    part: int
    """Its place in the span."""
    prefix: int


@dataclass(frozen=True, slots=True)
class Span:
    """The rows that are compared: some windows, or a range of the key's first column, or everything."""

    windows: tuple[Window, ...] = ()
    """By their start. Each is a part."""
    key_from: str | None = None
    """The range's lowest value, as text; None has no bound. All of it is part 0."""
    key_to: str | None = None
    """Where it ends, exclusive."""


@dataclass(frozen=True, slots=True)
class ComparedAs:
    """Which columns two tables are compared by, under the names and in the forms of one of them."""

    key: Mapping[str, str | None]
    """By column: the type that its values are cast to before they are written as text; None for their own."""
    values: Mapping[str, str | None]
    """Likewise, without the key; in the same order on both sides."""


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row as one of the two has it."""

    is_settled: bool
    """Whether it counts: on the side of the source, whether a load must have brought it; in raw, whether it is live."""
    values: tuple[str | None, ...]
    """As `ComparedAs.values` says."""


class Digests(Protocol):
    """One side of a comparison, at one instant."""

    def by_bucket(
        self, span: Span, bits: int = 0, within: Collection[Bucket] | None = None, within_bits: int = 0
    ) -> Mapping[Bucket, Digest]:
        """The digest of each bucket that has rows.

        Args:
            within: only these buckets, of so many bits.
        """
        ...

    def hashes(self, span: Span, within: Collection[Bucket], bits: int) -> Mapping[Key, int]:
        """The hash of each row in some buckets."""
        ...

    def rows(self, keys: Sequence[Key]) -> Mapping[Key, FoundRow]:
        """The rows that have one of these keys, wherever they are."""
        ...


class SourceTable(Protocol):
    """A stream's table at one instant."""

    @property
    def columns(self) -> Sequence[Column]: ...

    def changed_since(self, compared: ComparedAs, position: str, most: int) -> list[Key]:
        """The keys of the rows that need not be in raw yet, given its watermark; no more than so many. Those without a
        cursor, which never come after a watermark, are not among them."""
        ...

    def digests(self, compared: ComparedAs, position: str | None) -> Digests:
        """The rows that have to be in raw, given its watermark; without one, all."""
        ...


@runtime_checkable
class DigestSource(Source, Protocol):
    """A source that can sum up what it has, so that it need not be read to be compared."""

    def table(
        self, stream: Stream, connections: Connections, most_seconds: float
    ) -> AbstractContextManager[SourceTable]:
        """Hold on to this instant of a stream's table.

        Args:
            most_seconds: how long a question to it may take.

        Raises:
            As `extract`.
        """
        ...
