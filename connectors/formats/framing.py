"""How landing formats are framed: what both the readers and the landing must know of them."""

from __future__ import annotations

import re

PGCOPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Signature, flags and header extension length of the binary format (PostgreSQL manual, COPY, Binary Format)."""
PGCOPY_TRAILER = b"\xff\xff"


class CsvCutter:
    """Finds where records of a CSV text end: at line breaks, but not at those inside quotes (RFC 4180).

    A quote opens only at the beginning of a value, so one in the middle (`5" pipe`) hides no line break.

    Args:
        quote: None where nothing is quoted.
    """

    def __init__(self, delimiter: str = ",", quote: str | None = '"') -> None:
        self._quote = quote
        self._records = re.compile("")
        if quote is not None:
            between, mark = re.escape(delimiter), re.escape(quote)
            # Possessive throughout: no record is looked at twice, and a million of them take one step.
            quoted = rf"{mark}(?:[^{mark}]++|{mark}{mark})*+{mark}[^{between}\n]*+"
            plain = rf"(?!{mark})[^{between}\n]*+"
            value = rf"(?:{quoted}|{plain})"
            self._records = re.compile(rf"(?:{value}(?:{between}{value})*+\n)*+")

    def end(self, text: str) -> int:
        """How many characters of a text, which begins with a record, are whole records."""
        if self._quote is None or self._quote not in text:
            return text.rfind("\n") + 1
        whole = self._records.match(text)
        return whole.end() if whole else 0
