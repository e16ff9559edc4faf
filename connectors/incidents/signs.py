"""What a check sees: a sign, with all that someone needs who is to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from connectors.alerts.message import Severity as Severity  # a sign has what its messages have

_MOST = {"title": 300, "cause": 2000}
_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def worst(severities: Iterable[Severity]) -> Severity:
    """The highest of some severities."""
    return max(severities, key=lambda each: each.rank)


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that one check sees now."""

    key: str
    """The same trouble has the same key, however often it is seen."""
    kind: str
    """In the words of docs/incidents.md: `load failed`."""
    severity: Severity
    title: str
    """What it is, in a sentence of one line."""
    cause: str
    """The likely cause."""
    next_command: str
    """What to type next: a line for a shell, names quoted where they need it."""
    node: str | None = None
    """Where it is: a node of `ops.lineage_nodes`, or one of those that `connectors.incidents.lineage` adds."""
    run_id: str | None = None
    """The run that met it; its flow run's id, or a text that has it."""
    owner: str | None = None
    """Who hears of it, if the lineage names nobody."""

    def __post_init__(self) -> None:
        for name in ("key", "kind", "title", "next_command"):
            if not getattr(self, name).strip():
                raise ValueError(f"The sign `{self.key}` has no {name}. Say it: people will read it at night.")
        object.__setattr__(self, "severity", Severity(self.severity))
        for name, most in _MOST.items():
            text = getattr(self, name)
            text = " ".join(text.split()) if name == "title" else text.strip()
            object.__setattr__(self, name, text if len(text) <= most else f"{text[: most - 1].rstrip()}…")


def run_key(run_id: str | None) -> str | None:
    """What tells a run from others, however it is written: the id of its flow run, or else the text itself."""
    if run_id is None:
        return None
    found = _RUN.search(run_id)
    return found.group() if found else run_id
