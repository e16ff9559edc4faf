"""CSV files as rows. Values are text; which of them mean none, the stream says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from connectors.destinations.warehouse.columns import Kind, column_names
from connectors.destinations.warehouse.csv_texts import CsvTexts
from connectors.destinations.warehouse.records import Rejected, Row, escaped, readable
from connectors.destinations.warehouse.whole_chunks import NULL, WholeChunk
from connectors.formats.file_streams import CsvStream
from connectors.model import Chunk


class CsvRecords:
    """Turns the bytes of CSV files into rows, whatever the pieces they come in."""

    kinds: dict[str, Kind] | None = None

    def __init__(self, stream: CsvStream) -> None:
        self.columns: list[str] = []
        self._nulls = frozenset(stream.nulls)
        self._texts = CsvTexts(stream)
        self._header: list[str] = []
        self._known_header = list(stream.header)
        self._take_header(self._known_header)

    @property
    def types(self) -> dict[str, str | None]:
        return dict.fromkeys(self.columns, "text")

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        for values, doubt in self._texts.records(chunk):
            if self._texts.record == 1 and not self._known_header:
                self._header = []
            if not self._header:
                self._take_header(values)
            elif values:
                yield self._row(values, doubt)

    def whole(self, _: Chunk) -> WholeChunk | None:
        return None

    def learned(self) -> list[str]:
        return list(self.columns)

    def unlearn(self, learned: Any) -> None:
        self.columns = learned
        self._texts.begin(None)
        self._take_header(self._known_header)

    def _take_header(self, header: list[str]) -> None:
        names = column_names(header)
        self._header = [names[field] for field in header]
        self.columns += [column for column in self._header if column not in self.columns]

    def _row(self, values: list[str], doubt: str) -> Row:
        if len(values) != len(self._header):
            return self._rejected(f"{len(values)} values under {len(self._header)} columns{doubt}", values)
        by_column = dict(zip(self._header, values, strict=True))
        try:
            return [
                NULL if (value := by_column.get(column)) is None or value in self._nulls else escaped(value, column)
                for column in self.columns
            ]
        except ValueError as error:
            return self._rejected(str(error), values)

    def _rejected(self, reason: str, values: list[str]) -> Rejected:
        place = self._texts.file.path if self._texts.file else "file"
        return Rejected(
            f"{place}, record {self._texts.record}: {reason}", readable(",".join(values).encode("utf-8", "replace"))
        )
