"""What a stream's definition says of personal data: what becomes of a field before anything of it lands. No I/O here.

`connectors.treatments` does what is said here; docs/privacy.md tells what is promised and what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from connectors.connections import Secret
from connectors.documents.path import Path, parse_path
from connectors.errors import ConfigurationError

MASK = "***"
"""What a value looks like where it is not to be seen."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """The value's HMAC-SHA256 takes its place, 64 hexadecimal digits: equal values stay equal, also of other streams
    with the same key, and without the key nobody can find a value by trying. No value stays no value."""

    key: Secret
    """At least 16 characters. It is stored nowhere; whoever has it can find a value by trying."""
    word: ClassVar[str] = "hashed"


@dataclass(frozen=True, slots=True)
class Dropped:
    """The field is left out; of a database it is not even read."""

    word: ClassVar[str] = "dropped"


@dataclass(frozen=True, slots=True)
class Masked:
    """The value lands and is loaded as it is, and is shown nowhere else: in no message and in no quarantined row."""

    word: ClassVar[str] = "masked"


Treatment = Hashed | Dropped | Masked


@lru_cache(maxsize=10_000)
def folded(name: str) -> str:
    """A name as it is compared: `E-Mail`, `eMail` and `e_mail` are one, so that no other spelling slips through."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def paths(privacy: Mapping[str, Treatment]) -> Iterator[tuple[Path, Treatment]]:
    """The places of a definition, each name as it is compared."""
    for text, treatment in privacy.items():
        yield tuple(None if name is None else folded(name) for name in parse_path(text)), treatment


def keys_of(privacy: Iterable[Mapping[str, Treatment]]) -> tuple[Secret, ...]:
    """The keys that the streams of a source hash with, for its requirements."""
    found = [treatment.key for each in privacy for treatment in each.values() if isinstance(treatment, Hashed)]
    return tuple(dict.fromkeys(found))


def of_column(privacy: Mapping[str, Treatment], column: str) -> Treatment | None:
    """What becomes of a column, of a stream whose columns are named whole."""
    return next((treatment for path, treatment in paths(privacy) if path[0] == folded(column)), None)


def masked_fields(privacy: Mapping[str, Treatment]) -> set[str]:
    """The outermost fields that are not to be shown, or have something in them that is not."""
    return {parse_path(text)[0] or "" for text, treatment in privacy.items() if isinstance(treatment, Masked)}


def missing(privacy: Mapping[str, Treatment], columns: Iterable[str]) -> list[str]:
    """The fields of a definition that are none of the columns: perhaps a private one has another name."""
    there = {*map(folded, columns)}
    return [text for text, (path, _) in zip(privacy, paths(privacy), strict=True) if path[0] not in there]


def untreated(privacy: Mapping[str, Treatment], landed: Mapping[str, str]) -> list[str]:
    """The fields that are hashed or dropped and were not when a load landed.

    Args:
        landed: what its manifest says of private fields.
    """
    return [
        field
        for field, treatment in privacy.items()
        if not isinstance(treatment, Masked) and landed.get(field) != treatment.word
    ]


def check_privacy(
    stream: str,
    privacy: Mapping[str, Treatment],
    *,
    key: tuple[str, ...],
    bounds: tuple[str | None, ...],
    columns: Mapping[str, str],
    has_documents: bool,
) -> None:
    """Refuse treatments that cannot be.

    Args:
        bounds: the fields that reads are bounded by, the cursor and the event time: their values are in the ledger.
        columns: the types that the definition gives to columns.
        has_documents: whether records have fields within fields.

    Raises:
        ConfigurationError: one cannot be; the message names it.
    """
    keys, bounding = {*map(folded, key)}, {folded(name) for name in bounds if name is not None}
    types = {folded(name): kind for name, kind in columns.items()}
    known: list[tuple[str, Path]] = []
    for text, (path, treatment) in zip(privacy, paths(privacy), strict=True):
        what, remedy = "", ""
        if not path or path[0] is None:
            what, remedy = "is no name of a field", "Name the field from the outside in, e.g. contact.email."
        elif len(path) > 1 and not has_documents:
            what, remedy = "lies within a column", 'Name a column whole; one with dots in its name as `"a.b"`.'
        elif path[0] in bounding:
            what = "is the cursor or the event time, whose values are in the ledger and in requests"
            remedy = "Bound reads by another field."
        elif path[0] in keys and isinstance(treatment, Dropped):
            what, remedy = "is of the primary key, and rows are told by it", "Use Hashed(…): equal keys stay equal."
        elif isinstance(treatment, Hashed) and len(path) == 1 and types.get(path[0], "text") != "text":
            what, remedy = f"is declared as {types[path[0]]}, and a hash is a text", "Leave its type out of columns."
        elif other := next((name for name, before in known if _within(path, before) or _within(before, path)), None):
            what, remedy = f"is the same as `{other}`, or one lies within the other", "Name one of the two."
        if what:
            raise ConfigurationError(f"Stream `{stream}` is to keep `{text}` private, which {what}.", remedy=remedy)
        known.append((text, path))


def _within(inner: Path, outer: Path) -> bool:
    inner, outer = (tuple(name for name in path if name is not None) for path in (inner, outer))
    return inner[: len(outer)] == outer
