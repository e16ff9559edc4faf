"""What a source gives, without what is private in it: between the source and everything that keeps or tells anything.

Whatever the way of reading, an extraction has as many rows after its treatment as before, in the same order. What
nobody could take the private values out of is withheld: counted, quarantined, and not to be read anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial

import msgspec

from connectors.aside import new_aside, put_aside
from connectors.connections import Connections
from connectors.destinations.warehouse.file_records import Array, Lines, Splitter, csv_of_api
from connectors.errors import MalformedResponseError
from connectors.formats.file_streams import (
    MEND,
    CsvStream,
    FileStream,
    JsonLinesStream,
    JsonStream,
    OnBadFile,
    ParquetStream,
)
from connectors.model import Chunk, Column, Extraction, LandingFormat, Stream
from connectors.treatments.csv_files import CsvTreatment
from connectors.treatments.documents import DocumentTreatment
from connectors.treatments.plan import Plan
from connectors.treatments.tables import CopyCsvTreatment, CopyTreatment

_LOG = logging.getLogger("headwater")

Pieces = Callable[[Chunk], Iterator[bytes]]
"""Some of a file in, what can be said of it by now out; ValueError or MalformedResponseError where it is a bad one."""


def treated(
    read: Callable[[], Extraction], stream: Stream, connections: Connections, *, only: tuple[str, ...] | None = None
) -> Extraction:
    """A read under way, less what its stream is to keep private.

    Args:
        read: begins it; called once the keys are there.
        only: the fields that are read, if not all.

    Raises:
        ConfigurationError: a key for hashes is not set, or too short.
        HeadwaterError: whatever the read raises.
    """
    plan = Plan.of(stream.privacy, connections, only)
    extraction = read()
    if not plan.leaves:
        return extraction
    columns = extraction.columns
    if isinstance(stream, FileStream):
        chunks = _file_chunks(extraction.chunks, stream, _pieces_of(stream, plan))
    else:
        chunks = _chunks(extraction.chunks, _bytes_of(extraction, stream, plan))
        columns = tuple(_column(column, plan) for column in columns if not _is_dropped(column, plan))
    if not extraction.columns:  # a source that knows its columns has looked for itself
        chunks = _looked_for(chunks, plan)
    return replace(extraction, chunks=chunks, columns=columns)


def _bytes_of(extraction: Extraction, stream: Stream, plan: Plan) -> Callable[[Chunk], bytes]:
    if extraction.format is LandingFormat.PGCOPY:
        return CopyTreatment(plan, extraction.columns).chunk
    if extraction.format is LandingFormat.JSONL:
        documents = DocumentTreatment(plan)
        return lambda chunk: documents.lines(chunk.data)
    if extraction.format is LandingFormat.CSV:
        if extraction.columns:
            return CopyCsvTreatment(plan, extraction.columns).chunk
        return CsvTreatment(csv_of_api(stream), plan).chunk
    raise TypeError(f"nothing private can be taken out of {extraction.format}")


def _pieces_of(stream: FileStream, plan: Plan) -> Callable[[], Pieces]:
    """What treats a file, made for each anew."""
    if isinstance(stream, CsvStream):
        return lambda: partial(_whole, CsvTreatment(stream, plan).chunk)
    documents = DocumentTreatment(plan)
    if isinstance(stream, JsonLinesStream):
        return lambda: partial(_lines, Lines(), documents)
    if isinstance(stream, JsonStream):
        return lambda: _JsonFile(stream.path, documents).pieces
    if isinstance(stream, ParquetStream):
        return lambda: _ParquetAside(stream, plan).pieces
    raise TypeError(f"nothing private can be taken out of {type(stream).__name__}")


def _whole(treat: Callable[[Chunk], bytes], chunk: Chunk) -> Iterator[bytes]:
    yield treat(chunk)


def _lines(splitter: Splitter, documents: DocumentTreatment, chunk: Chunk) -> Iterator[bytes]:
    yield documents.lines(splitter.feed(chunk.data, is_last=chunk.ends_file))


class _JsonFile:
    """A document of the same form with the records in it, and nothing of what was beside them."""

    def __init__(self, path: list[str], documents: DocumentTreatment) -> None:
        self._splitter = Array(path)
        self._documents = documents
        self._before = b"".join(b"{" + msgspec.json.encode(name) + b":" for name in path) + b"["
        self._end = b"]" + b"}" * len(path) + b"\n"

    def pieces(self, chunk: Chunk) -> Iterator[bytes]:
        for line in self._splitter.feed(chunk.data, is_last=chunk.ends_file).splitlines():
            yield self._before + self._documents.line(line)
            self._before = b",\n"
        if chunk.ends_file:
            yield (b"" if self._before == b",\n" else self._before) + self._end


class _ParquetAside:
    """A Parquet file is read from its end, so it is put aside on disk until all of it has come."""

    def __init__(self, stream: ParquetStream, plan: Plan) -> None:
        self._stream = stream
        self._plan = plan
        self._aside = new_aside()

    def pieces(self, chunk: Chunk) -> Iterator[bytes]:
        put_aside(self._aside, chunk.data)
        if chunk.ends_file:
            from connectors.treatments.parquet_files import ParquetTreatment

            with self._aside as aside:
                yield from ParquetTreatment(self._plan, self._stream.max_expansion).file(aside)


def _chunks(chunks: Iterator[Chunk], treat: Callable[[Chunk], bytes]) -> Iterator[Chunk]:
    try:
        for chunk in chunks:
            yield replace(chunk, data=treat(chunk))
    finally:
        _close(chunks)


def _file_chunks(chunks: Iterator[Chunk], stream: FileStream, begin: Callable[[], Pieces]) -> Iterator[Chunk]:
    """What files have become, in pieces; the last says that it is, and may be empty."""
    treat: Pieces | None = None
    is_bad = False
    try:
        for chunk in chunks:
            if treat is None:
                treat, is_bad = begin(), False
            if chunk.refused is not None:
                yield chunk
            elif not is_bad:
                try:
                    for piece in filter(None, treat(chunk)):
                        yield Chunk(piece, 0, chunk.file)
                    if chunk.ends_file:
                        yield Chunk(b"", 0, chunk.file, ends_file=True)
                except (ValueError, MalformedResponseError) as error:
                    is_bad = True
                    yield _refused(chunk, stream, error)
            if chunk.ends_file:
                treat = None
    finally:
        _close(chunks)


def _refused(chunk: Chunk, stream: FileStream, error: ValueError | MalformedResponseError) -> Chunk:
    """The end of a bad file, where such are set aside.

    Raises:
        MalformedResponseError: they are not.
    """
    path = chunk.file.path if chunk.file else "file"
    what = error.what if isinstance(error, MalformedResponseError) else f"{path} {error}."
    if stream.on_bad_file is OnBadFile.FAIL:
        raise MalformedResponseError(what, remedy=MEND) from None
    return Chunk(b"", 0, chunk.file, ends_file=True, refused=what)


def _looked_for(chunks: Iterator[Chunk], plan: Plan) -> Iterator[Chunk]:
    """The same chunks; at their end it is said which private fields no record had."""
    has_any = False
    try:
        for chunk in chunks:
            has_any |= bool(chunk.data)
            yield chunk
    finally:
        _close(chunks)
    if has_any:
        for leaf in plan.not_found:
            _LOG.warning("No record had `%s`, which is private: perhaps it has another name by now.", leaf.name)


def _is_dropped(column: Column, plan: Plan) -> bool:
    leaf = plan.column(column.name)
    return leaf is not None and leaf.key is None


def _column(column: Column, plan: Plan) -> Column:
    return column if plan.column(column.name) is None else Column(column.name, "text")


def _close(chunks: Iterator[Chunk]) -> None:
    if isinstance(chunks, Generator):
        chunks.close()
