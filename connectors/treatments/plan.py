"""A stream's treatments by the names of its fields, with their keys: what to do with each value that is read."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from connectors.connections import Connections
from connectors.errors import ConfigurationError
from connectors.privacy import Dropped, Hashed, Masked, Treatment, folded, paths

_SHORTEST_KEY = 16


@dataclass(slots=True)
class Leaf:
    """What becomes of a value: its hash, or nothing."""

    name: str
    """As the definition has it."""
    key: bytes | None = field(repr=False)
    """None where the value is left out."""
    of_elements: bool = False
    """Whether it is about each element of a list, not about the list."""
    was_found: bool = False

    def hashed(self, value: bytes) -> str:
        """The hash of a value's text."""
        assert self.key is not None  # noqa: S101 - asked for by who has looked
        return hmac.digest(self.key, value, "sha256").hex()


@dataclass(frozen=True, slots=True)
class Branch:
    """What becomes of the fields of an object, by their folded names."""

    fields: dict[str, Branch | Leaf] = field(default_factory=dict)

    def of(self, name: str) -> Branch | Leaf | None:
        """What becomes of a field."""
        return self.fields.get(folded(name))


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the fields of a stream; those that are only masked are none of its business."""

    tree: Branch
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, privacy: Mapping[str, Treatment], connections: Connections, only: tuple[str, ...] | None) -> Plan:
        """Look up the keys.

        Args:
            only: the fields that are read, if not all.

        Raises:
            ConfigurationError: a key is not set, or so short that it could be guessed.
        """
        tree, leaves = Branch(), []
        wanted = None if only is None else {*map(folded, only)}
        for text, (path, treatment) in zip(privacy, paths(privacy), strict=True):
            if isinstance(treatment, Masked) or (wanted is not None and path[0] not in wanted):
                continue
            leaf = Leaf(text, _key(treatment, connections), of_elements=path[-1] is None)
            leaves.append(leaf)
            *outer, last = (name for name in path if name is not None)
            branch = tree
            for name in outer:
                inner = branch.fields.setdefault(name, Branch())
                assert isinstance(inner, Branch)  # noqa: S101 - the definition refuses fields within each other
                branch = inner
            branch.fields[last] = leaf
        return cls(tree, tuple(leaves))

    def column(self, name: str) -> Leaf | None:
        """What becomes of a column of a stream whose columns are named whole, which is there."""
        leaf = self.tree.of(name)
        assert not isinstance(leaf, Branch)  # noqa: S101 - the definition refuses it
        if leaf is not None:
            leaf.was_found = True
        return leaf

    @property
    def not_found(self) -> list[Leaf]:
        """What no record has had."""
        return [leaf for leaf in self.leaves if not leaf.was_found]


def withheld(size: int, why: str) -> str:
    """What stands for a record, or for what was in one, that nobody could take the private values out of."""
    return f"withheld, {size:,} bytes: {why}"


def _key(treatment: Hashed | Dropped, connections: Connections) -> bytes | None:
    if isinstance(treatment, Dropped):
        return None
    key = connections.secret(treatment.key)
    if len(key) < _SHORTEST_KEY:
        raise ConfigurationError(
            f"The secret `{treatment.key.name}` hashes private values and has fewer than {_SHORTEST_KEY} characters.",
            remedy=f"Set {treatment.key.environment_variable} to a long random one, once and for all: another gives "
            "other hashes.",
        )
    return key.encode()
