"""CSV files as records of texts, whatever the pieces that their bytes come in."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator

from connectors.errors import MalformedResponseError
from connectors.formats.file_streams import MEND, CsvStream
from connectors.formats.framing import CsvCutter
from connectors.model import Chunk, FileVersion

_LONGEST = 16 << 20
"""Characters that one record may have."""
_CUT_OFF = "; it is the last, without a line break: perhaps the file was cut off"
csv.field_size_limit(_LONGEST)  # Python's own limit, 131,072, is shorter than many a text


class CsvTexts:
    """Takes the bytes of files, one after another, and gives out their records."""

    def __init__(self, stream: CsvStream) -> None:
        self._stream = stream
        self._cutter = CsvCutter(stream.delimiter, stream.quote)
        self._codec = codecs.lookup(stream.encoding)
        self.begin(None)

    def begin(self, file: FileVersion | None) -> None:
        """What comes next is the beginning of a file."""
        self.file = file
        self.record = 0
        """The number, from 1 on, of the record that was given out last; a line of names is one, too."""
        self._decoder = self._codec.incrementaldecoder()
        self._bytes = 0
        self._kept = ""
        """Text that is no whole record yet."""
        self._is_beginning = True
        self._to_skip = self._stream.skip_lines

    def records(self, chunk: Chunk) -> Iterator[tuple[list[str], str]]:
        """The values of each record, none of a blank line, and what makes them doubtful: they are what the file has
        behind its last line break.

        Raises:
            MalformedResponseError: the file is no such CSV.
        """
        if chunk.file != self.file:
            self.begin(chunk.file)
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
                raise self.malformed(
                    "ends without a line break: it was cut off, or is still being written. Where the source leaves it "
                    "out, the stream needs final_newline=False"
                )
            yield from self._parsed(self._kept, _CUT_OFF)
            self.begin(None)
        elif len(self._kept) > _LONGEST:
            raise self.malformed(
                f"has a record of more than {_LONGEST >> 20} million characters: perhaps a quote that is never closed"
            )

    def malformed(self, what: str) -> MalformedResponseError:
        """The error for a file that is not what the stream says."""
        return MalformedResponseError(f"{self.file.path if self.file else 'file'} {what}.", remedy=MEND)

    def _decoded(self, chunk: Chunk) -> str:
        try:
            text = self._decoder.decode(chunk.data, final=chunk.ends_file)
        except UnicodeDecodeError as error:
            place = self._bytes + error.start
            raise self.malformed(f"is not {self._codec.name.upper()} at or before byte {place:,}") from None
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

    def _parsed(self, text: str, doubt: str = "") -> Iterator[tuple[list[str], str]]:
        reader = csv.reader(
            io.StringIO(text, newline=""),
            strict=True,
            delimiter=self._stream.delimiter,
            quotechar=self._stream.quote,
            quoting=csv.QUOTE_MINIMAL if self._stream.quote is not None else csv.QUOTE_NONE,
        )
        try:
            for values in reader:
                self.record += 1
                yield values, doubt
        except csv.Error as error:
            raise self.malformed(f"is no CSV in record {self.record + 1:,}: {error}{doubt}") from error
