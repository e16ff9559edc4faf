"""The rows of a load in the landing, one by one, in whatever format they lie there: to look at some, and to leave some
out of what is written anew.

Rows are counted as the parsers of `connectors.destinations.warehouse` count them. What stays keeps its values: in
binary COPY and JSON lines every byte, in CSV and JSON files and in Parquet all that rows are made of. Of a CSV file the
lines above its header become empty, and of a JSON file what is beside its records goes.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Collection, Iterator
from struct import Struct
from typing import IO, TYPE_CHECKING
from uuid import uuid4

import msgspec

from connectors.aside import new_aside, put_aside
from connectors.destinations.encodings import ParquetEncoder, Untouched, ZstdEncoder
from connectors.destinations.landing import Landing
from connectors.destinations.manifest import LandedObject, Manifest
from connectors.destinations.warehouse.csv_texts import CsvTexts
from connectors.destinations.warehouse.file_records import Array, Lines, Splitter, csv_of_api
from connectors.errors import DataError, MalformedResponseError
from connectors.formats.file_streams import CsvStream, FileStream, JsonStream
from connectors.model import Chunk, LandingFormat, Stream

if TYPE_CHECKING:
    import pyarrow as pa

BAD_FILE = "it held a row that was forgotten"
"""Why a file that could not be read is empty now."""
_FIELDS, _SIZE = Struct("!h"), Struct("!i")
_MOST_TEXT = 32 << 20
"""Bytes of a bad file that are looked at."""

Keep = Callable[[int, Callable[[], str]], bool]
"""Whether a row stays, by its number in its object, from 1, and what makes a text of it."""
Editor = Callable[[Iterator[Chunk], Keep], Iterator[bytes]]
"""Some rows in, those that stay out, in the object's format before compression."""


class LandedRows:
    """The rows of one load.

    Args:
        manifest: as it is now; rows are named by their places in the load, which they keep when others are erased.
    """

    def __init__(self, landing: Landing, stream: Stream, manifest: Manifest) -> None:
        self._landing = landing
        self._stream = stream
        self._manifest = manifest
        self._is_parquet = manifest.landing_format is LandingFormat.PARQUET
        # An API's CSV has its names in the first object, and its records are counted from there on.
        self._goes_on = manifest.landing_format is LandingFormat.CSV and not isinstance(stream, FileStream)

    def texts(self, places: Collection[int]) -> dict[int, str]:
        """What some rows are, as text.

        Raises:
            LandingCorruptError, DestinationUnavailableError: as `Landing.read`.
        """
        found: dict[int, str] = {}
        places_by_number: dict[int, int] = {}

        def look(number: int, text: Callable[[], str]) -> bool:
            if number in places_by_number:
                found[places_by_number[number]] = text()
            return False

        edit = self._editor()
        for landed, places_by_number in self._affected(places):
            if self._is_bad(landed):
                found |= dict.fromkeys(places_by_number.values(), self._text_of_bad(landed))
                continue
            for _ in self._edited(landed, look, edit):
                pass
        return found

    def without(self, places: Collection[int]) -> Manifest:
        """Write the objects that have rows of these places anew, without them, beside the old ones.

        Returns:
            The manifest that lists the new ones. The old objects are all there: nothing has changed until it counts.

        Raises:
            LandingCorruptError, DestinationUnavailableError: as `Landing.read`.
            DataError: an object has other rows than its manifest says.
        """
        new: dict[str, LandedObject] = {}
        edit = self._editor()
        token = uuid4().hex[:12]
        for landed, numbers in self._affected(places):
            folder, _, name = landed.key.rpartition("/")
            attempt, _, rest = name.partition("-")
            key = f"{folder}/{attempt.partition('f')[0]}f{token}-{rest}"
            new[landed.key] = self._written(landed, numbers, key, edit)
        objects = [new.get(landed.key, landed) for landed in self._manifest.objects]
        return msgspec.structs.replace(
            self._manifest,
            objects=objects,
            rows=self._manifest.rows - len(places),
            forgotten=sorted({*self._manifest.forgotten, *places}),
        )

    def _written(self, landed: LandedObject, numbers: Collection[int], key: str, edit: Editor) -> LandedObject:
        if self._is_bad(landed):
            encoder = Untouched() if self._is_parquet else ZstdEncoder(is_copy=False)
            sha256, size = self._landing.put_object(key, iter([encoder.end()]))
            # It goes on standing for its file, as a row that is in quarantine.
            return msgspec.structs.replace(landed, key=key, sha256=sha256, bytes=size, refused=BAD_FILE)
        counted = [0, 0]

        def keep(number: int, _: Callable[[], str]) -> bool:
            counted[0] = number
            is_kept = number not in numbers
            counted[1] += is_kept
            return is_kept

        sha256, size = self._landing.put_object(key, self._encoded(self._edited(landed, keep, edit)))
        if counted[0] != landed.rows and not self._goes_on:
            raise DataError(
                f"The landing object {landed.key} has {counted[0]:,} rows; its manifest says {landed.rows:,}.",
                remedy="If the stream's definition was changed so that other rows come of its files, change it back "
                "for this. Nothing of the load was erased.",
            )
        return msgspec.structs.replace(landed, key=key, sha256=sha256, bytes=size, rows=counted[1])

    def _affected(self, places: Collection[int]) -> Iterator[tuple[LandedObject, dict[int, int]]]:
        """The objects that have rows of these places: place by number in the object."""
        erased = sorted(self._manifest.forgotten)
        behind = dict(zip(sorted(places), numbers_of(sorted(places), erased), strict=True))
        first = 0
        for landed in self._manifest.objects:
            if self._goes_on:
                numbers = {number: place for place, number in behind.items()}
            else:
                until = first + landed.rows
                numbers = {number - first: place for place, number in behind.items() if first < number <= until}
            if numbers:
                yield landed, numbers
            first += landed.rows

    def _editor(self) -> Editor:
        return _editor(self._stream, self._manifest.landing_format)

    def _edited(self, landed: LandedObject, keep: Keep, edit: Editor) -> Iterator[bytes]:
        if self._is_parquet:
            with new_aside() as aside:
                for block in self._landing.blocks(landed):
                    put_aside(aside, block)
                yield from _parquet(aside, keep)
            return
        yield from edit(self._landing.read_object(landed, self._manifest), keep)

    def _encoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        if self._is_parquet:
            yield from pieces
            return
        encoder = ZstdEncoder(is_copy=self._manifest.landing_format is LandingFormat.PGCOPY)
        for piece in pieces:
            yield encoder.add(piece)
        yield encoder.end()

    def _is_bad(self, landed: LandedObject) -> bool:
        """Whether one row, in quarantine, stands for the whole file."""
        if landed.file is None or landed.rows != 1:
            return False
        if landed.refused is not None:
            return True
        import pyarrow as pa

        try:
            for _ in self._edited(landed, lambda *_: True, self._editor()):
                pass
        except (MalformedResponseError, ValueError, pa.ArrowException, OSError):
            return True
        return False

    def _text_of_bad(self, landed: LandedObject) -> str:
        data = bytearray()
        for block in self._landing.read_object(landed, self._manifest):
            data += block.data[: _MOST_TEXT - len(data)]
        return data.decode("utf-8", "backslashreplace")


def numbers_of(places: list[int], erased: list[int]) -> Iterator[int]:
    """Where rows are now: their places, less the erased ones before them. Both are in order."""
    passed = 0
    for place in places:
        while passed < len(erased) and erased[passed] < place:
            passed += 1
        yield place - passed


def _editor(stream: Stream, landing_format: LandingFormat) -> Editor:
    if landing_format is LandingFormat.PGCOPY:
        return _copy
    if landing_format is LandingFormat.CSV:
        return _csv_editor(stream if isinstance(stream, CsvStream) else csv_of_api(stream))
    if isinstance(stream, JsonStream):
        return lambda chunks, keep: _json(stream.path, chunks, keep)
    if isinstance(stream, FileStream):
        return lambda chunks, keep: _lines(_split(Lines(), chunks), keep)
    return lambda chunks, keep: _lines((chunk.data for chunk in chunks), keep)


def _lines(blocks: Iterator[bytes], keep: Keep) -> Iterator[bytes]:
    number = 0
    for block in blocks:
        kept = []
        for line in block.splitlines():
            number += 1
            if keep(number, lambda line=line: _text(line)):  # type: ignore[misc]  # a lambda's default is not typed
                kept.append(line + b"\n")
        yield b"".join(kept)


def _split(splitter: Splitter, chunks: Iterator[Chunk]) -> Iterator[bytes]:
    for chunk in chunks:
        yield splitter.feed(chunk.data, is_last=chunk.ends_file)


def _json(path: list[str], chunks: Iterator[Chunk], keep: Keep) -> Iterator[bytes]:
    before = b"".join(b"{" + msgspec.json.encode(name) + b":" for name in path) + b"["
    yield before
    separator = b""
    for line in _lines(_split(Array(path), chunks), keep):
        for record in line.splitlines():
            yield separator + record
            separator = b",\n"
    yield b"]" + b"}" * len(path) + b"\n"


def _csv_editor(stream: CsvStream) -> Editor:
    texts = CsvTexts(stream)
    header = list(stream.header)
    number = 0

    def edit(chunks: Iterator[Chunk], keep: Keep) -> Iterator[bytes]:
        nonlocal number
        encoder = codecs.getincrementalencoder(stream.encoding)()
        has_begun = bool(texts.record)  # of an API's CSV, in an object before
        if not has_begun:
            number = 0
        for chunk in chunks:
            written = io.StringIO(newline="")
            writer = csv.writer(
                written,
                delimiter=stream.delimiter,
                quotechar=stream.quote,
                quoting=csv.QUOTE_MINIMAL if stream.quote is not None else csv.QUOTE_NONE,
                lineterminator="\n",
            )
            for values, _ in texts.records(chunk):
                if not has_begun:
                    has_begun = True
                    written.write("\n" * stream.skip_lines)
                    if not header:
                        writer.writerow(values)
                        continue
                if not values:
                    written.write("\n")  # so that records keep their numbers
                    continue
                number += 1
                if keep(number, lambda values=values: ",".join(values)):  # type: ignore[misc]  # as above
                    writer.writerow(values)
            yield encoder.encode(written.getvalue())
        yield encoder.encode("", True)

    return edit


def _copy(chunks: Iterator[Chunk], keep: Keep) -> Iterator[bytes]:
    """Rows of binary COPY (PostgreSQL manual, COPY, Binary Format); they may be cut anywhere."""
    rest = b""
    number = 0
    for chunk in chunks:
        data = rest + chunk.data
        kept = bytearray()
        start = 0
        while (end := _end_of_row(data, start)) is not None:
            number += 1
            row = data[start:end]
            if keep(number, lambda row=row: _text(row)):  # type: ignore[misc]  # as above
                kept += row
            start = end
        rest = data[start:]
        yield bytes(kept)
    if rest:
        raise DataError(
            "A landing object of binary COPY ends in the middle of a row.",
            remedy="Restore it from a backup of the landing, or extract the load again.",
        )


def _end_of_row(data: bytes, at: int) -> int | None:
    """Where a row ends; None if it is not all there."""
    if at + _FIELDS.size > len(data):
        return None
    (fields,) = _FIELDS.unpack_from(data, at)
    at += _FIELDS.size
    for _ in range(fields):
        if at + _SIZE.size > len(data):
            return None
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size + max(size, 0)  # null has the size -1
    return at if at <= len(data) else None


def _parquet(aside: IO[bytes], keep: Keep) -> Iterator[bytes]:
    """A Parquet file, with its types. Old INT96 times become timestamps of microseconds, which is what raw holds."""
    import pyarrow as pa

    from connectors.formats.parquet_rows import batches, opened

    file = opened(aside, coerce_int96_timestamp_unit="us")
    encoder = ParquetEncoder(file.schema_arrow)
    number = 0
    try:
        for batch in batches(file):
            mask = []
            for place in range(batch.num_rows):
                number += 1
                mask.append(keep(number, lambda batch=batch, place=place: _row_text(batch, place)))  # type: ignore[misc]  # as above
            yield encoder.add(pa.Table.from_batches([_filtered(batch, mask)], file.schema_arrow))
    finally:
        end = encoder.end()
    yield end


def _filtered(batch: pa.RecordBatch, mask: list[bool]) -> pa.RecordBatch:
    """Some rows of a batch. Dictionaries are made anew: they have the values of all."""
    import pyarrow as pa

    kept = batch.filter(pa.array(mask))
    columns = [
        pa.array(values.to_pylist(), field.type) if "dictionary" in str(field.type) else values
        for field, values in zip(kept.schema, kept.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _row_text(batch: pa.RecordBatch, place: int) -> str:
    [row] = batch.slice(place, 1).to_pylist()
    return msgspec.json.encode({name: None if value is None else str(value) for name, value in row.items()}).decode()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
