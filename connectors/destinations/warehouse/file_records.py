"""Which parser makes rows of a landed load; and JSON files, whose records are loaded as an API's documents are."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from connectors.destinations.warehouse.columns import Kind, column_name
from connectors.destinations.warehouse.csv_records import CsvRecords
from connectors.destinations.warehouse.parquet_records import ParquetRecords
from connectors.destinations.warehouse.records import JsonLines, RecordParser, Rejected, Row, escaped
from connectors.destinations.warehouse.whole_chunks import WholeChunk
from connectors.documents.array import CUT_OFF, JsonArray
from connectors.errors import ConfigurationError, ContractViolationError, MalformedResponseError
from connectors.formats.file_streams import MEND, CsvStream, FileStream, JsonLinesStream, JsonStream, ParquetStream
from connectors.model import Chunk, Column, FileVersion, LandingFormat, Stream, WriteDisposition

_LONGEST = 32 << 20
"""Bytes that one line may have."""
_BLANK = re.compile(rb"(?:^|\n)[ \t\r]*(?:\n|$)")


def parser_of(
    stream: Stream, record_format: LandingFormat, typed: Sequence[Column], json_columns: Collection[str]
) -> RecordParser | None:
    """What takes a load apart; None where its rows can be copied as they are.

    Args:
        typed: the columns, or the fields of documents, that the source typed.
        json_columns: see `records.JsonLines`.

    Raises:
        ConfigurationError: the load was landed when the stream's files were of another format.
    """
    if isinstance(stream, FileStream):
        if record_format is not stream.landing_format:
            raise ConfigurationError(
                f"What landed is {record_format.upper()}, and the stream's files are {stream.landing_format.upper()}.",
                remedy="Give a new format to a stream of a new name: what the old one landed stays as it is.",
                stream=stream.name,
            )
        parser = _file_parser(stream, json_columns)
        return parser if stream.file_column is None else WithFile(parser, column_name(stream.file_column))
    if record_format is LandingFormat.JSONL:
        types = {field.name: field.type for field in typed}
        return JsonLines(json_columns, types, open_columns={column_name(field) for field in stream.columns})
    if record_format is LandingFormat.CSV and not typed:
        return CsvRecords(csv_of_api(stream))
    return None


def csv_of_api(stream: Stream) -> CsvStream:
    """An API's CSV, which is like a file's that says nothing of itself."""
    return CsvStream(name=stream.name, write=WriteDisposition.APPEND, pattern="*", nulls=stream.nulls)


def _file_parser(stream: FileStream, json_columns: Collection[str]) -> RecordParser:
    if isinstance(stream, CsvStream):
        return CsvRecords(stream)
    if isinstance(stream, JsonLinesStream):
        return FileDocuments(JsonLines(json_columns), Lines)
    if isinstance(stream, JsonStream):
        return FileDocuments(JsonLines(json_columns), lambda: Array(stream.path))
    if isinstance(stream, ParquetStream):
        return ParquetRecords(stream)
    raise TypeError(f"no parser is known for {type(stream).__name__}")


class Splitter(Protocol):
    """Makes lines, each a record, of a file's bytes."""

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        """The records that are complete with these bytes.

        Raises:
            ValueError: they are not of the format, to be said behind the file's name.
        """
        ...


class FileDocuments:
    """Documents in files, as `JsonLines` takes them."""

    def __init__(self, lines: JsonLines, splitter: Callable[[], Splitter]) -> None:
        self._lines = lines
        self._new_splitter = splitter
        self._splitter = splitter()
        self._file: FileVersion | None = None

    @property
    def columns(self) -> list[str]:
        return self._lines.columns

    @property
    def kinds(self) -> dict[str, Kind]:
        return self._lines.kinds

    @property
    def types(self) -> dict[str, str | None]:
        return self._lines.types

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        if chunk.file != self._file:
            self._file = chunk.file
            self._splitter = self._new_splitter()
        try:
            lines = self._splitter.feed(chunk.data, is_last=chunk.ends_file)
        except ValueError as error:
            raise MalformedResponseError(f"{chunk.file.path if chunk.file else 'file'} {error}.", remedy=MEND) from None
        whole = Chunk(lines, 0)
        columns = self._lines.values_by_column(whole)
        yield from self._lines.rows(whole) if columns is None else map(list, zip(*columns, strict=True))

    def whole(self, _: Chunk) -> WholeChunk | None:
        return None  # its lines end where they end, not where the chunk does

    def learned(self) -> Any:
        return self._lines.learned()

    def unlearn(self, learned: Any) -> None:
        self._lines.unlearn(learned)


class Lines:
    """Lines are records already, but for the last."""

    def __init__(self) -> None:
        self._kept = b""
        self._is_beginning = True

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        data = self._kept + data
        if self._is_beginning and (len(data) >= len(codecs.BOM_UTF8) or is_last):
            self._is_beginning = False
            data = data.removeprefix(codecs.BOM_UTF8)
        end = data.rfind(b"\n") + 1
        self._kept = data[end:]
        if is_last:
            self._check_last(self._kept)
            end = len(data)
        elif len(self._kept) > _LONGEST:
            raise ValueError(f"has a line of more than {_LONGEST >> 20} MB")
        lines = data[:end]
        # Blank lines between documents mean nothing.
        return (
            b"".join(line for line in lines.splitlines(keepends=True) if line.strip())
            if _BLANK.search(lines)
            else lines
        )

    def _check_last(self, line: bytes) -> None:
        try:
            if line.strip():
                json.loads(line)
        except RecursionError:
            return  # it has an end, or does not matter
        except ValueError:
            raise ValueError(CUT_OFF) from None


class Array:
    """The records of a list in a document."""

    def __init__(self, path: list[str]) -> None:
        self._array = JsonArray(path)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        try:
            text = self._decoder.decode(data, final=is_last)
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
        # JSON strings cannot hold a bare line break, so those found are only layout.
        records = self._array.feed(text, is_last=is_last)
        return "".join(record.replace("\n", " ").replace("\r", " ") + "\n" for record in records).encode()


class WithFile:
    """Another parser's rows, with the path of the file that each is of in a column before them."""

    def __init__(self, parser: RecordParser, column: str) -> None:
        self._parser = parser
        self._column = column
        self.columns = [column]

    @property
    def kinds(self) -> dict[str, Kind] | None:
        kinds = self._parser.kinds
        return {self._column: Kind.TEXT, **kinds} if kinds is not None else None

    @property
    def types(self) -> dict[str, str | None]:
        return {self._column: "text", **self._parser.types}

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        path = escaped(chunk.file.path if chunk.file else "", self._column)
        for row in self._parser.rows(chunk):
            if len(self._parser.columns) >= len(self.columns):
                self._follow()
            yield row if isinstance(row, Rejected) else [path, *row]
        self._follow()  # a file may have columns and no row

    def learned(self) -> Any:
        return self._parser.learned()

    def unlearn(self, learned: Any) -> None:
        self._parser.unlearn(learned)
        self._follow()

    def whole(self, _: Chunk) -> WholeChunk | None:
        return None

    def _follow(self) -> None:
        if self._column in self._parser.columns:
            raise ContractViolationError(
                f"The files have a column `{self._column}`, which is to hold their names.",
                remedy="Give the stream's file_column another name.",
            )
        self.columns = [self._column, *self._parser.columns]
