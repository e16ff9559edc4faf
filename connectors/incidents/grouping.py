"""Which signs are one trouble. Pure: of signs and the lineage, no database.

A *root* is a node with a sign, with no sign upstream of it. Each root is of one incident, and each sign is in the
incident of a root that it is at or downstream of; if there are several, where it was before, or else in the oldest. So:

- A sign upstream of an incident's root becomes its root. Where that joins incidents, the oldest of them goes on.
- Once a root's sign is gone, what is left stays together, unless it is downstream of another incident's root.
- A sign that is nowhere in the lineage (a run that failed) is one trouble with what the same run has met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from connectors.incidents.lineage import Lineage
from connectors.incidents.signs import Sign, run_key


@dataclass(slots=True, eq=False)
class Trouble:
    """An incident while it is being put together.

    Args:
        age: the lower, the older.
        incident_id: None of one that is new.
    """

    age: int
    incident_id: int | None = None
    signs: dict[str, Sign] = field(default_factory=dict)
    """By key."""
    has_lost_root: bool = False
    """Whether what it began with is gone now."""
    went_to: Trouble | None = None
    """The one that has taken the last of its signs."""

    def nodes(self) -> set[str]:
        return {sign.node for sign in self.signs.values() if sign.node is not None}

    def runs(self) -> set[str]:
        return {run for sign in self.signs.values() if (run := run_key(sign.run_id)) is not None}


class Grouping:
    """Puts signs into incidents.

    Args:
        troubles: the open ones, the oldest first. Changed in place.
        returning: the closed incident that a sign returns to, if there is one.
    """

    def __init__(
        self, lineage: Lineage, troubles: list[Trouble], returning: Callable[[Sign], Trouble | None] = lambda _: None
    ) -> None:
        self._lineage = lineage
        self._returning = returning
        self.troubles = troubles

    def add(self, signs: Iterable[Sign]) -> None:
        """Find a place for signs that are in no incident, and have each incident be of one trouble again."""
        owners = self._owners()
        for sign in sorted(signs, key=self._upstream_first):
            home = self._by_lineage(sign, owners) or self._by_run(sign) or self._returning(sign)
            if home is None:
                home = Trouble(age=max((each.age for each in self.troubles), default=0) + 1)
            if home not in self.troubles:
                self.troubles.append(home)
                self.troubles.sort(key=lambda each: each.age)
            home.signs[sign.key] = sign
            if sign.node is not None and not any(self._lineage.is_above(root, sign.node) for root in owners):
                for root in [root for root in owners if self._lineage.is_above(sign.node, root)]:
                    del owners[root]
                owners[sign.node] = home
        self._gather_by_lineage()
        self._gather_by_run()

    def lead(self, trouble: Trouble) -> Sign:
        """The sign that says what an incident is: the most upstream one, of several the worst."""
        roots = roots_of(self._lineage, trouble.nodes())
        return min(
            trouble.signs.values(),
            key=lambda sign: (sign.node not in roots, -sign.severity.rank, *self._upstream_first(sign)),
        )

    def _upstream_first(self, sign: Sign) -> tuple[bool, int, str]:
        return sign.node is None, len(self._lineage.above(sign.node)) if sign.node else 0, sign.key

    def _by_lineage(self, sign: Sign, owners: Mapping[str, Trouble]) -> Trouble | None:
        if sign.node is None:
            return None
        above = [owner for root, owner in owners.items() if self._lineage.is_above(root, sign.node)]
        below = [owner for root, owner in owners.items() if self._lineage.is_above(sign.node, root)]
        found = [each for each in above if sign.node in each.nodes()] or above or below
        return min(found, key=lambda each: each.age, default=None)

    def _by_run(self, sign: Sign) -> Trouble | None:
        """What the same run has met. One sign in the lineage and another are never one trouble for their run alone: it
        may read several sources."""
        run = run_key(sign.run_id)
        return next(
            (each for each in self.troubles if run in each.runs() and (sign.node is None or not each.nodes())), None
        )

    def _owners(self) -> dict[str, Trouble]:
        """The incident of each root; of several with a sign there the oldest."""
        roots = roots_of(self._lineage, {node for each in self.troubles for node in each.nodes()})
        owners: dict[str, Trouble] = {}
        for trouble in self.troubles:
            for root in roots & trouble.nodes():
                owners.setdefault(root, trouble)
        return owners

    def _gather_by_lineage(self) -> None:
        owners = self._owners()
        for trouble in self.troubles:
            for sign in list(trouble.signs.values()):
                if sign.node is None:
                    continue
                found = [owner for root, owner in owners.items() if self._lineage.is_above(root, sign.node)]
                if trouble not in found:
                    _move(sign, trouble, min(found, key=lambda each: each.age))
        for older in self.troubles:
            younger = older.went_to
            if younger is not None and not older.signs and not older.has_lost_root and older.age < younger.age:
                for sign in list(younger.signs.values()):
                    _move(sign, younger, older)
                older.went_to = None

    def _gather_by_run(self) -> None:
        def same(one: Trouble, other: Trouble) -> bool:
            return not (one.nodes() and other.nodes()) and bool(one.runs() & other.runs())

        # Until there is none: the run of a sign that has moved may join more.
        while pair := next((pair for pair in combinations(self.troubles, 2) if same(*pair)), None):
            for sign in list(pair[1].signs.values()):
                _move(sign, pair[1], pair[0])


def roots_of(lineage: Lineage, nodes: Iterable[str]) -> set[str]:
    """Those of some nodes that none of the others is upstream of."""
    nodes = set(nodes)
    return {node for node in nodes if not lineage.above(node) & nodes}


def _move(sign: Sign, source: Trouble, target: Trouble) -> None:
    target.signs[sign.key] = source.signs.pop(sign.key)
    if not source.signs:
        source.went_to = target
