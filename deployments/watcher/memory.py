"""What the watcher must know after a restart, while the warehouse, where all else is, may be away: a small file.

It keeps since when something did not answer, and who was told. A file that cannot be read counts as empty: at worst
somebody is told twice.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from deployments.local.files import write_atomically


@dataclass(slots=True)
class Trouble:
    """Something that does not answer."""

    since: datetime
    """When it was first found so."""
    why: str
    looks: int = 0
    """How often it was found so, one round after the other."""
    told: list[str] = field(default_factory=list)
    """The channels that took the message, where the warehouse cannot keep it."""


class Memory:
    """The troubles, by what they are of. Every change is on disk before it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.troubles = _read(path)

    def look(self, name: str, why: str, now: datetime) -> Trouble:
        """Note that something does not answer, once more."""
        trouble = self.troubles.setdefault(name, Trouble(now, why))
        trouble.looks += 1
        trouble.why = why
        self.save()
        return trouble

    def forget(self, name: str) -> Trouble | None:
        """Note that it answers; returns the trouble that is over, if there was one."""
        trouble = self.troubles.pop(name, None)
        if trouble is not None:
            self.save()
        return trouble

    def save(self) -> None:
        """Write down what was changed."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = {name: {**asdict(each), "since": each.since.isoformat()} for name, each in self.troubles.items()}
        write_atomically(self._path, json.dumps(found, indent=1) + "\n", mode=0o600)


def _read(path: Path) -> dict[str, Trouble]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Trouble(datetime.fromisoformat(each["since"]), each["why"], int(each["looks"]), list(each["told"]))
            for name, each in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
