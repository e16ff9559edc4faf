"""How the objects of a load are written, by its landing format, and read again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

import zstandard

from connectors.formats.compression import unzstandardized
from connectors.formats.framing import PGCOPY_HEADER, PGCOPY_TRAILER
from connectors.model import Chunk, Column, FileVersion, LandingFormat

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

_COMPRESSION_LEVEL = 1


class Encoder(Protocol):
    """Makes the bytes of one object of what `Encoding.shaped` gives."""

    def takes(self, content: Any, /) -> bool:
        """Whether it can be in the same object as what came before."""
        ...

    def add(self, content: Any) -> bytes:
        """The bytes that can be written by now."""
        ...

    def end(self) -> bytes:
        """The bytes that are left."""
        ...


class Encoding:
    """The way that the objects of one load are written; see `connectors.model.Extraction`.

    Args:
        records: what comes.
        landing_format: what is written.
        columns: as the source types them, where it does.
    """

    def __init__(self, records: LandingFormat, landing_format: LandingFormat, columns: Sequence[Column] = ()) -> None:
        self.records = records
        self.landing_format = landing_format
        self.is_translated = landing_format is not records
        self.ending = landing_format.value if landing_format is LandingFormat.PARQUET else f"{landing_format.value}.zst"
        """Of the objects' names."""
        self._columns = columns
        self._tables: Callable[[Chunk], pa.Table] | None = None

    def shaped(self, chunk: Chunk) -> Any:
        """A chunk as the encoders want it: its bytes, or a table of typed rows."""
        if not self.is_translated:
            return chunk.data
        if self._tables is None:
            self._tables = _tables(self.records, self._columns)
        return self._tables(chunk)

    def begin(self, content: Any) -> Encoder:
        """An encoder for an object that begins with this."""
        if self.is_translated:
            return ParquetEncoder(content.schema)
        if self.landing_format is LandingFormat.PARQUET:
            return Untouched()
        return ZstdEncoder(is_copy=self.landing_format is LandingFormat.PGCOPY)


def _tables(records: LandingFormat, columns: Sequence[Column]) -> Callable[[Chunk], pa.Table]:
    """What makes tables of chunks."""
    if records is LandingFormat.JSONL:
        from connectors.formats.parquet_documents import DocumentTables

        return DocumentTables(columns).table
    from connectors.formats.parquet_rows import ParquetTables, csv_table

    tables = ParquetTables(columns)
    return lambda chunk: tables.table(csv_table(chunk, columns))


class ZstdEncoder:
    def __init__(self, *, is_copy: bool) -> None:
        self._compressor = zstandard.ZstdCompressor(_COMPRESSION_LEVEL).compressobj()
        self._header, self._trailer = (PGCOPY_HEADER, PGCOPY_TRAILER) if is_copy else (b"", b"")

    def takes(self, _content: bytes, /) -> bool:
        return True

    def add(self, content: bytes) -> bytes:
        header, self._header = self._header, b""
        return self._compressor.compress(header + content if header else content)

    def end(self) -> bytes:
        return self._compressor.compress(self._trailer) + self._compressor.flush()


class Untouched:
    """For what is encoded already: Parquet files, which are compressed in themselves."""

    def takes(self, _content: bytes, /) -> bool:
        return True

    def add(self, content: bytes) -> bytes:
        return content

    def end(self) -> bytes:
        return b""


class ParquetEncoder:
    def __init__(self, schema: pa.Schema) -> None:
        from connectors.formats.parquet_rows import ParquetFile

        self._tail = _Tail()
        self._file = ParquetFile(schema, self._tail)

    def takes(self, content: pa.Table, /) -> bool:
        return bool(content.schema.equals(self._file.schema))

    def add(self, content: pa.Table) -> bytes:
        self._file.write(content)
        return self._tail.taken()

    def end(self) -> bytes:
        self._file.close()
        return self._tail.taken()


class _Tail(io.RawIOBase):
    """What was written since it was last asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Buffer, /) -> int:
        self._written += data
        self._position += len(memoryview(data))
        return len(memoryview(data))

    def taken(self) -> bytes:
        """Its bytes."""
        data = bytes(self._written)
        self._written.clear()
        return data


def records(blocks: Iterator[bytes], landing_format: LandingFormat) -> Iterator[Chunk]:
    """An object's bytes as chunks: of whole documents, or of rows that may be cut anywhere.

    Raises:
        BadCompressionError: it is damaged.
    """
    blocks = unzstandardized(blocks)
    if landing_format is LandingFormat.CSV:
        yield from (Chunk(block, 0) for block in blocks)
    else:
        yield from _copy_records(blocks) if landing_format is LandingFormat.PGCOPY else _lines(blocks)


def file_chunks(
    blocks: Iterator[bytes], landing_format: LandingFormat, file: FileVersion, refused: str | None
) -> Iterator[Chunk]:
    """An object's bytes as those of a source's file. One block is held back, so that the last can say that it is.

    Raises:
        BadCompressionError: it is damaged.
    """
    if landing_format is not LandingFormat.PARQUET:
        blocks = unzstandardized(blocks)
    held = next(blocks, b"")
    for block in blocks:
        yield Chunk(held, 0, file)
        held = block
    yield Chunk(held, 0, file, ends_file=True, refused=refused)


def rows_of_parquet(file: IO[bytes], records: LandingFormat) -> Iterator[Chunk]:
    """The rows of a Parquet file of the landing's own, as what they came as."""
    if records is LandingFormat.JSONL:
        from connectors.formats.parquet_documents import documents

        yield from documents(file)
        return
    from connectors.formats.parquet_rows import csv_of, text_batches

    for batch in text_batches(file):
        yield Chunk(csv_of(batch), batch.num_rows)


def _lines(blocks: Iterator[bytes]) -> Iterator[Chunk]:
    kept = b""
    for block in blocks:
        lines, newline, kept = (kept + block).rpartition(b"\n")
        if newline:
            yield Chunk(lines + newline, lines.count(b"\n") + 1)
    if kept:
        yield Chunk(kept, 1)


def _copy_records(blocks: Iterator[bytes]) -> Iterator[Chunk]:
    """The rows of a COPY file without its header and trailer. They are not cut at rows: COPY takes any cut."""
    kept = b""
    begun = False
    for block in blocks:
        kept += block
        if not begun and len(kept) >= len(PGCOPY_HEADER):
            kept = kept[len(PGCOPY_HEADER) :]
            begun = True
        if begun and len(kept) > len(PGCOPY_TRAILER):
            yield Chunk(kept[: -len(PGCOPY_TRAILER)], 0)
            kept = kept[-len(PGCOPY_TRAILER) :]
