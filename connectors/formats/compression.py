"""Taking gzip and zstd off a file, block by block: whole or refused, and never more than was to be expected.

The name says how a file is compressed and its first bytes have to agree. Memory is bounded whatever the file does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

import zstandard

_BLOCK_BYTES = 1 << 20
_FREE_BYTES = 64 << 20
"""Bytes that any file may become, however small it was."""
_ZSTD_SLICE = 1024
"""Bytes given to zstd at once: the worst of them become 32 MiB."""
_GZIP_SLICE = 64 << 10

_BY_ENDING = {".gz": "gzip", ".zst": "zstd"}
_BY_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}


class BadCompressionError(ValueError):
    """A file is not compressed as its name says, or broken, or becomes too large."""


def decompressed(blocks: Iterator[bytes], path: str, *, max_expansion: int) -> Iterator[bytes]:
    """A file's content.

    Args:
        blocks: its bytes, as they are read.
        path: its name: what ends in .gz or .zst is decompressed.
        max_expansion: see `connectors.formats.file_streams.FileStream`.

    Raises:
        BadCompressionError: with what is wrong, to be said behind the file's name.
    """
    named = next((kind for ending, kind in _BY_ENDING.items() if path.lower().endswith(ending)), None)
    blocks = _with_a_beginning(blocks)
    first = next(blocks, b"")
    is_ = next((kind for magic, kind in _BY_MAGIC.items() if first.startswith(magic)), None)
    # bzip2's mark is three letters, which a text may begin with.
    if named is None and is_ not in (None, "bzip2"):
        known = is_ in _BY_ENDING.values()
        raise BadCompressionError(f"is {is_}, {'which its name does not say' if known else 'which is not read'}")
    blocks = chain([first], blocks)
    if named is None:
        yield from blocks
        return
    if is_ != named:
        raise BadCompressionError(f"is named as {named} and is {is_ or 'not'}")
    counted = _Counted(blocks)
    came = 0
    for block in _gunzipped(counted) if named == "gzip" else unzstandardized(counted):
        came += len(block)
        if came > max(_FREE_BYTES, max_expansion * counted.bytes):
            raise BadCompressionError(f"becomes more than {max_expansion} times as large as it is")
        yield block


def _with_a_beginning(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes; the first block is long enough to tell what they are."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= max(map(len, _BY_MAGIC)):
            break
    yield first
    yield from blocks


class _Counted:
    """Blocks, and how many bytes of them have been taken."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self.bytes += len(block)
        return block


def _gunzipped(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """One or several gzip members (RFC 1952, 2.2), each whole; zeros behind the last are padding."""
    member = zlib.decompressobj(wbits=31)
    begun = False
    for data in _sliced(blocks, _GZIP_SLICE):
        rest = data
        while rest and (begun or rest.strip(b"\0")):
            begun = True
            try:
                out = member.decompress(rest, _BLOCK_BYTES)
            except zlib.error as error:
                raise BadCompressionError(f"is damaged gzip ({error})") from None
            if out:
                yield out
            rest = member.unconsumed_tail
            if member.eof:
                rest = member.unused_data
                member, begun = zlib.decompressobj(wbits=31), False
    if begun:
        raise BadCompressionError("is cut off: it is not the whole of its gzip")


def unzstandardized(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """One or several zstd frames, each whole.

    Raises:
        BadCompressionError: they are not.
    """
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    ready = bytearray()
    for data in _sliced(blocks, _ZSTD_SLICE):
        rest = data
        while rest:
            begun = True
            try:
                ready += frame.decompress(rest)
            except zstandard.ZstdError as error:
                raise BadCompressionError(f"is damaged zstd ({error})") from None
            rest = b""
            if frame.eof:
                rest = frame.unused_data
                frame, begun = zstandard.ZstdDecompressor().decompressobj(), False
        while len(ready) >= _BLOCK_BYTES:
            yield bytes(ready[:_BLOCK_BYTES])
            del ready[:_BLOCK_BYTES]
    if ready:
        yield bytes(ready)
    if begun:
        raise BadCompressionError("is cut off: it is not the whole of its zstd")


def _sliced(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), size):
            yield block[start : start + size]
