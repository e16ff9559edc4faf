"""Read files from a folder or a bucket: those that are new or changed since they were last loaded.

A file travels untouched, byte for byte. What counts as changed is the store's etag; a file that changes while it is
read is not taken, and the next run finds it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Store

from connectors.connections import Connections, ObjectStore, Requirement
from connectors.errors import ConfigurationError, SourceUnavailableError
from connectors.formats import CsvSplitter
from connectors.model import (
    Chunk,
    Extraction,
    ExtractRequest,
    FileVersion,
    LandingFormat,
    Stream,
    Window,
    WriteDisposition,
    check_source,
    check_window,
)
from connectors.object_store import check_not_refused, open_store

_READ_BYTES = 4 << 20
_DATE = "{date}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvStream(Stream):
    """CSV files with a header line, UTF-8. Columns are text unless `columns` gives them a type."""

    pattern: str
    """File names below the source's root, `*` for anything within a name, `{date}` for a date as 2013-07-01."""
    nulls: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        Stream.__post_init__(self)
        if self.cursor is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and has a cursor.",
                remedy="Drop it: new and changed files are found by their versions in the ledger.",
            )
        if self.write is WriteDisposition.REPLACE:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and is `replace`.",
                remedy="A load holds new and changed files only: use `merge` with a key, or `append`.",
            )
        if self.deletes is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and names deletes.",
                remedy="Drop it: a folder does not say which rows there are, only which files are new or changed.",
            )
        if self.event_time is not None and _DATE not in self.pattern:
            raise ConfigurationError(
                f"Stream `{self.name}` has an event_time but its files cannot be told apart by date.",
                remedy="Put {date} into the pattern, or drop event_time.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """A folder or bucket that files arrive in."""

    name: str
    root: ObjectStore
    streams: tuple[CsvStream, ...]

    def __post_init__(self) -> None:
        check_source(self.name, self.streams)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (self.root,)

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading; see `connectors.model.Source.extract`."""
        if not isinstance(stream, CsvStream):
            raise TypeError(f"{self.name} reads CsvStream, not {type(stream).__name__}")
        check_window(stream, request.window)
        store = open_store(connections.object_store(self.root))
        files = [file for file in _listed(store, stream, request.window) if _wanted(file, request)]
        return Extraction(LandingFormat.CSV, _chunks(store, files))


def _wanted(file: FileVersion, request: ExtractRequest) -> bool:
    return request.window is not None or request.files_loaded.get(file.path) != file.version


def _listed(store: Store, stream: CsvStream, window: Window | None) -> list[FileVersion]:
    """The files of the stream, by path. With a window, those whose date overlaps it (dates taken as UTC days)."""
    pattern = _compile(stream.pattern)
    folder = stream.pattern.split("*")[0].split("{")[0].rpartition("/")[0]
    found = []
    try:
        for batch in obstore.list(store, prefix=folder or None):
            for meta in batch:
                match = pattern.fullmatch(meta["path"])
                if match is None or (window is not None and not _overlaps(match["date"], window)):
                    continue
                version = meta["e_tag"] or f"{meta['size']}@{meta['last_modified'].isoformat()}"
                found.append(FileVersion(meta["path"], version, meta["size"]))
    except BaseError as error:
        check_not_refused(error)
        raise SourceUnavailableError(
            f"The files cannot be listed: {error}",
            remedy="Check the store's address and credentials.",
            stream=stream.name,
        ) from error
    return sorted(found, key=lambda file: file.path)


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*|\{date\})", pattern)
    translated = {"*": r"[^/]*", _DATE: r"(?P<date>\d{4}-\d{2}-\d{2})"}
    return re.compile("".join(translated.get(part, re.escape(part)) for part in parts))


def _overlaps(text: str, window: Window) -> bool:
    try:
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        return False
    # A file holds one local day, which can begin up to 14 hours before and end up to 12 hours after the UTC day.
    return (
        day.timestamp() - 14 * 3600 < window.end.timestamp() and day.timestamp() + 36 * 3600 > window.start.timestamp()
    )


def _chunks(store: Store, files: list[FileVersion]) -> Iterator[Chunk]:
    for file in files:
        yield from _file_chunks(store, file)


def _file_chunks(store: Store, file: FileVersion) -> Iterator[Chunk]:
    try:
        answer = obstore.get(store, file.path)
        version = answer.meta["e_tag"] or f"{answer.meta['size']}@{answer.meta['last_modified'].isoformat()}"
        if version != file.version:
            raise SourceUnavailableError(
                f"{file.path} changed after it was listed.", remedy="The next run reads its new version."
            )
        splitter = CsvSplitter()
        for block in answer.stream(min_chunk_size=_READ_BYTES):
            if data := splitter.feed(bytes(block)):
                yield Chunk(data, 0, file)
        if data := splitter.rest():
            yield Chunk(data, 0, file)
        after = obstore.head(store, file.path)
        if (after["e_tag"] or version) != version:
            raise SourceUnavailableError(
                f"{file.path} changed while it was read.", remedy="The next run reads it again, whole."
            )
    except (BaseError, FileNotFoundError) as error:
        raise SourceUnavailableError(
            f"{file.path} cannot be read: {error}", remedy="If it was moved away on purpose, run again."
        ) from error
