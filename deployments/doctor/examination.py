"""Checks: each says what it found in a line, and what to type where that is not as it should be.

Promises: every check ends within its time, and one that fails, hangs or breaks hides no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from connectors.errors import HeadwaterError
from connectors.unsaid import UNSAID

SECONDS = 15.0
"""How long a check may take, unless it says otherwise."""


class State(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and should not stay so."""
    WRONG = "wrong"
    SKIPPED = "skipped"
    """It could not be looked at, or is not for this machine; the reason is said."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a look."""

    check: str
    state: State
    found: str
    remedy: str = ""
    """What to type or change; of what is wrong, always."""

    def __post_init__(self) -> None:
        if not self.remedy and self.state in (State.WARNING, State.WRONG):
            raise ValueError(f"`{self.check}` is {self.state} and says no remedy")


@dataclass(frozen=True, slots=True)
class Check:
    """One or several looks that belong together."""

    name: str
    look: Callable[[], Iterable[Result]]
    """What it raises is wrong, with the error's own remedy."""
    seconds: float = SECONDS


@dataclass(slots=True)
class _Running:
    check: Check
    results: list[Result] = field(default_factory=list)
    thread: threading.Thread | None = None

    def run(self) -> None:
        try:
            for result in self.check.look():
                self.results.append(result)
        except HeadwaterError as error:
            self.results.append(
                Result(self.check.name, State.WRONG, error.what, error.remedy or "See docs/security.md.")
            )
        except Exception as error:  # noqa: BLE001 - a check that breaks hides no other
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self.results.append(Result(self.check.name, State.WRONG, said, "Mend what it names, and look again."))


def examine(checks: Sequence[Check]) -> list[Result]:
    """The results of all checks, in their order. They run at the same time, each in a thread that ends with the
    process."""
    running = [_Running(check) for check in checks]
    begun = time.monotonic()
    for each in running:
        each.thread = threading.Thread(target=each.run, daemon=True, name=each.check.name)
        each.thread.start()
    found: list[Result] = []
    for each in running:
        assert each.thread is not None  # noqa: S101 - started above
        each.thread.join(max(0.0, begun + each.check.seconds - time.monotonic()))
        has_hung = each.thread.is_alive()
        found += list(each.results)
        if has_hung:
            said = f"It did not end within {each.check.seconds:g} s."
            remedy = "Check the way from this machine to what it looks at (names, firewall, proxy)."
            found.append(Result(each.check.name, State.WRONG, said, remedy))
    return [Result(each.check, each.state, UNSAID(each.found), UNSAID(each.remedy)) for each in found]
