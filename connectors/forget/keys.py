"""Which rows are to be forgotten: keys as a person writes them, and the streams that carry them too.

No I/O here but the secrets that hashed keys are made with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from connectors.connections import Connections
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.forgotten import Key
from connectors.errors import ConfigurationError
from connectors.model import Source, Stream
from connectors.privacy import Hashed, folded, of_column
from connectors.rest.streams import RestStream
from connectors.treatments.plan import Plan


@dataclass(frozen=True, slots=True)
class Subject:
    """Rows of a stream, told by some of its columns."""

    source: Source
    stream: Stream
    columns: tuple[str, ...]
    """Of raw, in the order of the keys' values."""
    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigurationError(
                "No key was given.",
                remedy="Give one or more as `--key id=17`, or a file of them with --keys-from.",
                source=self.source.name,
                stream=self.stream.name,
            )

    def __str__(self) -> str:
        return f"{self.source.name}.{self.stream.name}"


def subject_of(source: Source, stream: Stream, texts: Iterable[str], connections: Connections) -> Subject:
    """The rows that keys name which a person wrote: `id=17`, or `order_id=7,line=2`, or `17` where one field is enough.

    A value that itself looks like `name=…` has to be written with its field, `id=name=…`.

    The value of a field that is hashed before it lands is given in clear: both forms are looked for, as loads from
    before it became private have it as it was.

    Raises:
        ConfigurationError: the stream has no primary key, or a text is no key of it.
    """
    if not stream.primary_key:
        raise ConfigurationError(
            "This stream has no primary_key: nothing tells the rows of one person from others.",
            remedy="Give it one and load it anew under another name, as docs/privacy.md says; or delete by hand.",
            source=source.name,
            stream=stream.name,
        )
    written = [_key(stream, text.strip()) for text in texts if text.strip()]
    keys = [*written, *_hashed(stream, written, connections)]
    columns = tuple(column_name(name) for name in stream.primary_key)
    return Subject(source, stream, columns, tuple(dict.fromkeys(keys)))


def children_of(subject: Subject) -> list[Subject]:
    """What other streams of an API have of the same rows: the records that belong to them."""
    found = []
    for stream in subject.source.streams:
        parent = stream.parent if isinstance(stream, RestStream) else None
        if parent is None or parent.stream.name != subject.stream.name:
            continue
        called = {column_name(theirs): column_name(own) for own, theirs in parent.fields.items()}
        if set(subject.columns) <= called.keys():
            columns = tuple(called[column] for column in subject.columns)
            found.append(Subject(subject.source, stream, columns, subject.keys))
    return found


def _key(stream: Stream, text: str) -> Key:
    fields = {folded(name): name for name in stream.primary_key}
    # A comma may be part of a value: only one before a field's name divides.
    names = "|".join(re.escape(name) for name in stream.primary_key)
    parts = re.split(rf",\s*(?=(?:{names})\s*=)", text, flags=re.IGNORECASE)
    given: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or folded(name) not in fields:
            # A value alone is enough where there is one field; one with the name of another field is a mistake.
            if len(fields) > 1 or (equals and name.strip().isidentifier()):
                raise _no_key(stream)
            name, value = stream.primary_key[0], text
        given[fields[folded(name)]] = value.strip()
    if given.keys() != set(stream.primary_key):
        raise _no_key(stream)
    return tuple(given[name] for name in stream.primary_key)


def _no_key(stream: Stream) -> ConfigurationError:
    """What was written is not repeated: it is of a person."""
    example = ",".join(f"{name}=…" for name in stream.primary_key)
    return ConfigurationError(
        "A key that was given is none of this stream.", remedy=f"Write it as `{example}`.", stream=stream.name
    )


def _hashed(stream: Stream, keys: Sequence[Key], connections: Connections) -> list[Key]:
    """The same keys as raw has them, where fields of them are hashed before they land."""
    if not any(isinstance(of_column(stream.privacy, name), Hashed) for name in stream.primary_key):
        return []
    plan = Plan.of(stream.privacy, connections, stream.primary_key)
    leaves = [plan.column(name) for name in stream.primary_key]
    return [
        tuple(value if leaf is None else leaf.hashed(value.encode()) for leaf, value in zip(leaves, key, strict=True))
        for key in keys
    ]
