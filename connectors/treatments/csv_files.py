"""Private columns out of CSV: every record is written anew, in the same dialect and encoding.

A record that has more or fewer values than there are columns is withheld, as nobody knows which of them are private;
what is above the header is left out, but for its line breaks.
"""

from __future__ import annotations

import codecs
import csv
import io

from connectors.destinations.warehouse.csv_texts import CsvTexts
from connectors.formats.file_streams import CsvStream
from connectors.model import Chunk
from connectors.treatments.plan import Leaf, Plan, withheld


class CsvTreatment:
    """Treats the bytes of CSV files."""

    def __init__(self, stream: CsvStream, plan: Plan) -> None:
        self._stream = stream
        self._plan = plan
        self._texts = CsvTexts(stream)
        self._leaves: list[Leaf | None] = []
        """By column."""
        self._encoder = codecs.getincrementalencoder(stream.encoding)()

    def chunk(self, chunk: Chunk) -> bytes:
        """What can be written of a file by now.

        Raises:
            MalformedResponseError: it is no such CSV, or lacks a private column: it may have it by another name.
        """
        written = io.StringIO(newline="")
        writer = csv.writer(
            written,
            delimiter=self._stream.delimiter,
            quotechar=self._stream.quote,
            quoting=csv.QUOTE_MINIMAL if self._stream.quote is not None else csv.QUOTE_NONE,
            lineterminator="\n",
        )
        for values, _ in self._texts.records(chunk):
            if self._texts.record == 1:
                self._begin(written)
            if not self._leaves:
                self._take_header(values)
                writer.writerow(self._kept(values))
            elif values:
                writer.writerow(self._row(values))
            else:
                written.write("\n")  # so that records keep their numbers
        return self._encoder.encode(written.getvalue(), chunk.ends_file)

    def _begin(self, written: io.StringIO) -> None:
        self._encoder.reset()
        self._leaves = []
        written.write("\n" * self._stream.skip_lines)
        if self._stream.header:
            self._take_header(list(self._stream.header))

    def _take_header(self, names: list[str]) -> None:
        self._leaves = [self._plan.column(name) for name in names]
        there = [leaf for leaf in self._leaves if leaf is not None]
        if lacking := [leaf.name for leaf in self._plan.leaves if leaf not in there]:
            raise self._texts.malformed(f"has no column `{lacking[0]}`, which is private: perhaps it has another name")

    def _kept(self, names: list[str]) -> list[str]:
        return [name for name, leaf in zip(names, self._leaves, strict=True) if leaf is None or leaf.key is not None]

    def _row(self, values: list[str]) -> list[str]:
        if len(values) != len(self._leaves):
            note = withheld(sum(map(len, values)), f"{len(values)} values under {len(self._leaves)} columns")
            # As wrong a number of values as before.
            return [note] if len(self._kept([""] * len(self._leaves))) != 1 else [note, ""]
        return [
            value if leaf is None or value in self._stream.nulls else leaf.hashed(value.encode())
            for value, leaf in zip(values, self._leaves, strict=True)
            if leaf is None or leaf.key is not None
        ]
