"""The one error of the local stack: what happened, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class LocalStackError(Exception):
    """Part of the local stack could not do its work; the message is meant for the person at the terminal."""

    def __init__(self, what: str, where: str, remedy: str, log_tail: Sequence[str] = ()) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.log_tail = tuple(log_tail)
        lines = [what, f"Where: {where}", f"What to do: {remedy}"]
        if self.log_tail:
            lines += ["Last lines of the log:", *(f"  {line}" for line in self.log_tail)]
        super().__init__("\n".join(lines))
