"""Read files from a folder, a bucket or a web server: those that are new or changed since they were last loaded.

A file's content leaves here untouched, byte for byte. One that somebody seems to be writing is left to the next run,
and one that changes while it is read is not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from connectors.connections import Connections, ObjectStore, Requirement
from connectors.errors import ContractViolationError, MalformedResponseError
from connectors.files.places import Place, StorePlace, settled
from connectors.files.web import WebPlace
from connectors.formats.compression import BadCompressionError, decompressed
from connectors.formats.file_streams import (
    MEND,
    FileStream,
    OnBadFile,
)
from connectors.http.auth import Auth
from connectors.http.client import RetryPolicy
from connectors.model import (
    Chunk,
    Extraction,
    ExtractRequest,
    FileVersion,
    Stream,
    WriteDisposition,
    check_source,
    check_window,
)
from connectors.privacy import keys_of

_LOG = logging.getLogger("headwater")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """A folder, a bucket or a web server that files arrive in."""

    name: str
    root: ObjectStore
    """file:///folder, s3://bucket/prefix or https://host/path."""
    streams: tuple[FileStream, ...]
    settle_seconds: float = 5.0
    """How long a file must have been left alone before it is read, where half a file can be seen: not in a bucket."""
    auth: Auth | None = None
    """How a web server lets its readers in; see `connectors.http.auth`."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    """How patient to be with a web server."""
    allow_private_addresses: bool = False
    """Whether the name of a web server may lead to an address that is none of the open internet."""

    def __post_init__(self) -> None:
        check_source(self.name, self.streams)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        keys = keys_of(stream.privacy for stream in self.streams)
        return (self.root, *(self.auth.requirements if self.auth else ()), *keys)

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        if not isinstance(stream, FileStream):
            raise TypeError(f"{self.name} reads file streams, not {type(stream).__name__}")
        check_window(stream, request.window)
        with ExitStack() as closing:
            place = self._place(connections, closing)
            found = [each for each in place.files(stream, request.window) if _wanted(stream, each.file, request)]
            files, growing = settled(place, found, self.settle_seconds)
            for file in growing:
                _LOG.warning("%s seems to be written still; it is left to the next run.", file.path)
            return Extraction(stream.landing_format, _chunks(place, stream, files, closing.pop_all()))
        raise AssertionError("an exit stack swallows nothing")

    def _place(self, connections: Connections, closing: ExitStack) -> Place:
        location = connections.object_store(self.root)
        if urlsplit(location.url).scheme not in ("http", "https"):
            return StorePlace(location)
        web = WebPlace(
            location.url,
            credentials=self.auth.credentials(connections) if self.auth else None,
            policy=self.retries,
            allow_private_addresses=self.allow_private_addresses,
        )
        return closing.enter_context(web)


def _wanted(stream: FileStream, file: FileVersion, request: ExtractRequest) -> bool:
    if request.window is not None:
        return True
    before = request.files_loaded.get(file.path)
    if before is not None and before != file.version and _would_repeat(stream):
        raise ContractViolationError(
            f"{file.path} changed after it was loaded, and without a key its rows would come twice.",
            remedy="Give the stream a primary_key, or have each version of a file arrive under a name of its own.",
            stream=stream.name,
        )
    return before != file.version


def _would_repeat(stream: FileStream) -> bool:
    return stream.write is WriteDisposition.APPEND and not stream.primary_key


def _chunks(place: Place, stream: FileStream, files: list[FileVersion], closing: ExitStack) -> Iterator[Chunk]:
    with closing:
        for file in files:
            yield from _file_chunks(place, stream, file)


def _file_chunks(place: Place, stream: FileStream, file: FileVersion) -> Iterator[Chunk]:
    """The content of a file. One block is held back, so that the last can say that it is."""
    blocks = place.read(file)
    if blocks is None:
        _LOG.warning("%s changed after it was listed; it is left to the next run.", file.path)
        return
    held = b""
    try:
        for block in decompressed(blocks, file.path.partition("?")[0], max_expansion=stream.max_expansion):
            if held:
                yield Chunk(held, 0, file)
            held = block
    except (BadCompressionError, MalformedResponseError) as error:
        what = error.what if isinstance(error, MalformedResponseError) else f"{file.path} {error}."
        if stream.on_bad_file is OnBadFile.FAIL:
            raise MalformedResponseError(what, remedy=MEND) from error
        yield Chunk(b"", 0, file, ends_file=True, refused=what)
        return
    yield Chunk(held, 0, file, ends_file=True)
