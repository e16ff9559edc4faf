"""From two sums that differ to the rows that do: only what differs is split further, and only what is left is fetched.

Each step asks both sides one question for all buckets that differ, however many, and splits each of them in
256. So one row that differs among 16 million is found by five questions: three for digests, one for hashes, one for
the row itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.comparison.differences import Limits
from connectors.comparison.digests import Bucket, Digest, Digests, FoundRow, Key, Span

LEAF_ROWS = 256
"""A bucket of no more rows is fetched rather than split."""
_STEP_BITS = 8
_MOST_BITS = 48
_MOST_BUCKETS = 256
"""How many buckets that differ are followed; what many rows have in common shows in these too."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """The rows whose hashes differ, as each side has them, wherever they are in it."""

    at_source: Mapping[Key, FoundRow]
    in_raw: Mapping[Key, FoundRow]
    rows_at_source: int
    rows_in_raw: int
    is_at_least: bool
    """Whether there are more."""
    questions: int
    """To each side."""

    @property
    def keys(self) -> list[Key]:
        return sorted({*self.at_source, *self.in_raw})


def find_suspects(source: Digests, raw: Digests, span: Span, limits: Limits) -> Suspects:
    """The rows of a span that the two sides do not have alike, by no more questions than the logarithm of the rows.

    Raises:
        HeadwaterError: one of them does not answer.
    """
    bits, questions = 0, 1
    there, here = source.by_bucket(span), raw.by_bucket(span)
    rows_there, rows_here = _rows(there), _rows(here)
    differing, is_at_least = _differing(there, here), False
    while differing and bits < _MOST_BITS and max(_size(each, there, here) for each in differing) > LEAF_ROWS:
        within, bits, questions = differing[:_MOST_BUCKETS], bits + _STEP_BITS, questions + 1
        is_at_least |= len(within) < len(differing)
        there = source.by_bucket(span, bits, within, bits - _STEP_BITS)
        here = raw.by_bucket(span, bits, within, bits - _STEP_BITS)
        differing = _differing(there, here)
    leaves: list[Bucket] = []
    rows = 0
    for bucket in differing:
        rows += _size(bucket, there, here)
        if leaves and rows > limits.fetched:
            is_at_least = True
            break
        leaves.append(bucket)
    if not leaves:
        return Suspects({}, {}, rows_there, rows_here, is_at_least, questions)
    hashes_there, hashes_here = source.hashes(span, leaves, bits), raw.hashes(span, leaves, bits)
    keys = sorted(key for key in {*hashes_there, *hashes_here} if hashes_there.get(key) != hashes_here.get(key))
    is_at_least |= len(keys) > limits.differences
    keys = keys[: limits.differences]
    return Suspects(source.rows(keys), raw.rows(keys), rows_there, rows_here, is_at_least, questions + 2)


def _differing(there: Mapping[Bucket, Digest], here: Mapping[Bucket, Digest]) -> list[Bucket]:
    return sorted(
        (bucket for bucket in {*there, *here} if there.get(bucket) != here.get(bucket)),
        key=lambda bucket: (bucket.part, bucket.prefix),
    )


def _size(bucket: Bucket, there: Mapping[Bucket, Digest], here: Mapping[Bucket, Digest]) -> int:
    return max(side[bucket].rows for side in (there, here) if bucket in side)


def _rows(digests: Mapping[Bucket, Digest]) -> int:
    return sum(digest.rows for digest in digests.values())
