"""CSV files as rows. Values are text; which of them mean none, the stream says."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from typing import Any

from connectors.destinations.warehouse.columns import Kind, column_names
from connectors.destinations.warehouse.records import Rejected, Row, escaped, readable
from connectors.destinations.warehouse.whole_chunks import NULL, WholeChunk
from connectors.errors import MalformedResponseError
from connectors.file_formats import MEND, CsvStream
from connectors.formats import CsvCutter
from connectors.model import Chunk, FileVersion

_LONGEST = 16 << 20
"""Characters that one record may have."""
_CUT_OFF = "; it is the last, without a line break: perhaps the file was cut off"
csv.field_size_limit(_LONGEST)  # Python's own limit, 131,072, is shorter than many a text


class CsvRecords:
    """Turns the bytes of CSV files into rows, whatever the pieces they come in."""

    kinds: dict[str, Kind] | None = None

    def __init__(self, stream: CsvStream) -> None:
        self.columns: list[str] = []
        self._stream = stream
        self._nulls = frozenset(stream.nulls)
        self._cutter = CsvCutter(stream.delimiter, stream.quote)
        self._codec = codecs.lookup(stream.encoding)
        self._kept = ""
        """Text that is no whole record yet."""
        self._is_beginning = True
        self._begin(None)

    @property
    def types(self) -> dict[str, str | None]:
        return dict.fromkeys(self.columns, "text")

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        if chunk.file != self._file:
            self._begin(chunk.file)
        text = self._kept + self._decoded(chunk)
        if self._is_beginning and text:
            self._is_beginning = False
            text = text.removeprefix("\ufeff")
        text = self._without_skipped(text, is_last=chunk.ends_file)
        end = self._cutter.end(text)
        yield from self._parsed(text[:end])
        self._kept = text[end:]
        if chunk.ends_file:
            if self._stream.final_newline and self._kept and self._kept[-1] not in "\r\n":
                raise self._malformed(
                    "ends without a line break: it was cut off, or is still being written. Where the source leaves it "
                    "out, the stream needs final_newline=False"
                )
            yield from self._parsed(self._kept, _CUT_OFF)
            self._begin(None)
        elif len(self._kept) > _LONGEST:
            raise self._malformed(
                f"has a record of more than {_LONGEST >> 20} million characters: perhaps a quote that is never closed"
            )

    def whole(self, _: Chunk) -> WholeChunk | None:
        return None

    def learned(self) -> list[str]:
        return list(self.columns)

    def unlearn(self, learned: Any) -> None:
        self.columns = learned
        self._begin(None)

    def _begin(self, file: FileVersion | None) -> None:
        self._file = file
        self._decoder = self._codec.incrementaldecoder()
        self._bytes = 0
        self._kept = ""
        self._is_beginning = True
        self._to_skip = self._stream.skip_lines
        self._header: list[str] = []
        self._record = 0
        if self._stream.header:
            self._take_header(list(self._stream.header))

    def _decoded(self, chunk: Chunk) -> str:
        try:
            text = self._decoder.decode(chunk.data, final=chunk.ends_file)
        except UnicodeDecodeError as error:
            place = self._bytes + error.start
            raise self._malformed(f"is not {self._codec.name.upper()} at or before byte {place:,}") from None
        self._bytes += len(chunk.data)
        return text

    def _without_skipped(self, text: str, *, is_last: bool) -> str:
        while self._to_skip:
            skipped, newline, rest = text.partition("\n")
            if not newline and not is_last:
                return skipped
            text = rest
            self._to_skip -= 1
        return text

    def _parsed(self, text: str, doubt: str = "") -> Iterator[Row]:
        """The rows of a text; with `doubt`, it is what the file has behind its last line break."""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            strict=True,
            delimiter=self._stream.delimiter,
            quotechar=self._stream.quote,
            quoting=csv.QUOTE_MINIMAL if self._stream.quote is not None else csv.QUOTE_NONE,
        )
        try:
            for values in reader:
                self._record += 1
                if not self._header:
                    self._take_header(values)
                elif values:
                    yield self._row(values, doubt)
        except csv.Error as error:
            raise self._malformed(f"is no CSV in record {self._record + 1:,}: {error}{doubt}") from error

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
        place = self._file.path if self._file else "file"
        return Rejected(
            f"{place}, record {self._record}: {reason}", readable(",".join(values).encode("utf-8", "replace"))
        )

    def _malformed(self, what: str) -> MalformedResponseError:
        return MalformedResponseError(f"{self._file.path if self._file else 'file'} {what}.", remedy=MEND)
