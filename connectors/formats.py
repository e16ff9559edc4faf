"""How landing formats are framed: what both the readers and the landing must know of them."""

from __future__ import annotations

PGCOPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Signature, flags and header extension length of the binary format (PostgreSQL manual, COPY, Binary Format)."""
PGCOPY_TRAILER = b"\xff\xff"


class CsvSplitter:
    """Cuts a stream of CSV bytes where records end, never inside a quoted value.

    Inside quotes a quote is doubled (RFC 4180), so a line break ends a record exactly when an even number of quotes
    came before it.
    """

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, block: bytes) -> bytes:
        """The whole records that are complete now; the rest is kept."""
        data = self._kept + block
        end = data.rfind(b"\n") + 1
        quotes = data.count(b'"', 0, end)
        while end and quotes % 2:
            earlier = data.rfind(b"\n", 0, end - 1) + 1
            quotes -= data.count(b'"', earlier, end)
            end = earlier
        self._kept = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is left at the end: a last record without a line break."""
        kept, self._kept = self._kept, b""
        return kept
