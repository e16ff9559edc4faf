"""Where files are: a folder, a bucket, or a web server. Which there are, in which version, and their bytes.

A version is the store's etag; of a local file that is its inode, time and size; on the web, without an etag, the time
of its last change and its size, and without that either, a hash of its content.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from connectors.connections import StoreLocation
from connectors.errors import SourceUnavailableError
from connectors.formats.file_streams import DATE, FileStream
from connectors.model import FileVersion, Window
from connectors.object_store import check_not_refused, local_folder, open_store

_log = logging.getLogger("headwater")

_READ_BYTES = 1 << 20
_PATIENCE = 10.0
"""Seconds that a read waits for files to have settled; what takes longer is left to the next run."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and how long ago it was changed, where half a file can be seen."""

    file: FileVersion
    age: float | None = None
    """In seconds; None where a file appears at once, as in a bucket."""


class Place(Protocol):
    """Somewhere that files are."""

    def files(self, stream: FileStream, window: Window | None) -> list[Found]:
        """The files of the stream, by path. With a window, those whose date overlaps it.

        Raises:
            ConfigurationError: the stream's files cannot be found in such a place.
            SourceUnavailableError: the place does not answer.
        """
        ...

    def version(self, path: str) -> FileVersion | None:
        """A file as it is now, or None if there is none.

        Raises:
            SourceUnavailableError: the place does not answer.
        """
        ...

    def read(self, file: FileVersion) -> Iterator[bytes] | None:
        """Its bytes, or None if it is not there any more in that version.

        Raises (also while blocks are taken):
            SourceUnavailableError: the place does not answer, or the file changed while it was read.
            MalformedResponseError: what came is not the file.
        """
        ...


def settled(
    place: Place, found: list[Found], seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> tuple[list[FileVersion], list[FileVersion]]:
    """The files that nobody seems to be writing, and the others, which are left to the next run.

    One that was changed within the last `seconds` is looked at again when it has had them, if that is soon.
    """
    fresh = [(each, seconds - each.age) for each in found if each.age is not None and each.age < seconds]
    left = {each.file.path for each, wait in fresh if wait > _PATIENCE}
    waited_for = [(each.file, wait) for each, wait in fresh if wait <= _PATIENCE]
    if waited_for:
        sleep(min(max(wait for _, wait in waited_for), seconds))
        left |= {file.path for file, _ in waited_for if place.version(file.path) != file}
    files = [each.file for each in found]
    return [file for file in files if file.path not in left], [file for file in files if file.path in left]


class StorePlace:
    """A folder or a bucket."""

    def __init__(self, location: StoreLocation) -> None:
        self._store = open_store(location)
        self._folder = local_folder(location.url).resolve() if location.url.startswith("file:") else None

    def files(self, stream: FileStream, window: Window | None) -> list[Found]:
        """See `Place`."""
        pattern = compiled(stream.pattern)
        folder = re.split(r"[*{]", stream.pattern)[0].rpartition("/")[0]
        now = datetime.now(UTC)
        found = []
        try:
            for batch in obstore.list(self._store, prefix=folder or None):
                for meta in batch:
                    match = pattern.fullmatch(meta["path"])
                    if match is None or (window is not None and not overlaps(match["date"], window)):
                        continue
                    if self._leads_out(meta["path"]):
                        _log.warning("%s is a link that leads out of the folder: it is not read.", meta["path"])
                        continue
                    age = max((now - meta["last_modified"]).total_seconds(), 0.0)
                    found.append(Found(_version(meta), age if isinstance(self._store, LocalStore) else None))
        except BaseError as error:
            check_not_refused(error)
            raise SourceUnavailableError(
                f"The files cannot be listed: {error}",
                remedy="Check the store's address and credentials.",
                stream=stream.name,
            ) from error
        return sorted(found, key=lambda each: each.file.path)

    def version(self, path: str) -> FileVersion | None:
        """See `Place`."""
        try:
            return _version(obstore.head(self._store, path))
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unreadable(path, error) from error

    def read(self, file: FileVersion) -> Iterator[bytes] | None:
        """See `Place`."""
        if self._leads_out(file.path):  # by now
            return None
        try:
            answer = obstore.get(self._store, file.path)
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unreadable(file.path, error) from error
        return self._blocks(file, answer) if _version(answer.meta) == file else None

    def _leads_out(self, path: str) -> bool:
        """Whether a path of the folder is really elsewhere: whoever may put files there must not have others read."""
        return self._folder is not None and not (self._folder / path).resolve().is_relative_to(self._folder)

    def _blocks(self, file: FileVersion, answer: obstore.GetResult) -> Iterator[bytes]:
        try:
            for block in answer.stream(min_chunk_size=_READ_BYTES):
                yield bytes(block)
        except BaseError as error:
            raise _unreadable(file.path, error) from error
        if self.version(file.path) != file:
            raise changed(file)


def _version(meta: obstore.ObjectMeta) -> FileVersion:
    version = meta["e_tag"] or f"{meta['size']}@{meta['last_modified'].isoformat()}"
    return FileVersion(meta["path"], version, meta["size"])


def _unreadable(path: str, error: BaseError) -> SourceUnavailableError:
    check_not_refused(error)
    return SourceUnavailableError(
        f"{path} cannot be read: {error}", remedy="If it was moved away on purpose, run again."
    )


def changed(file: FileVersion) -> SourceUnavailableError:
    """That a file is not what it was when its reading began."""
    return SourceUnavailableError(
        f"{file.path} changed while it was read.", remedy="The next run reads it again, whole."
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """A stream's pattern as an expression that whole paths match; the date is its group `date`."""
    parts = re.split(r"(\*\*/|\*|\{date\})", pattern)
    date_only = r"(?P<date>\d{4}-\d{2}-\d{2})"
    translated = {"**/": r"(?:[^/.][^/]*/)*", "*": r"[^/]*", DATE: date_only}
    expression = ""
    for part in parts:
        if part == "*" and (not expression or expression.endswith(("/", "/)*"))):
            expression += r"(?!\.)"
        expression += translated.get(part, re.escape(part))
    return re.compile(expression)


def dates(window: Window | None, days: int, today: date) -> Iterator[date]:
    """The dates whose files are looked for where they cannot be listed: those that a window overlaps, or the last
    days, and tomorrow, which it is already in the east."""
    if window is None:
        first, last = today - timedelta(days=days - 1), today + timedelta(days=1)
    else:
        first, last = window.start.date() - timedelta(days=2), window.end.date() + timedelta(days=2)
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        if window is None or overlaps(day.isoformat(), window):
            yield day


def overlaps(text: str, window: Window) -> bool:
    """Whether a file of that date may hold rows of the window. Its day is that of wherever it was made."""
    try:
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        return False
    # A file holds one local day, which can begin up to 14 hours before and end up to 12 hours after the UTC day.
    return (
        day.timestamp() - 14 * 3600 < window.end.timestamp() and day.timestamp() + 36 * 3600 > window.start.timestamp()
    )
