"""Small files that several processes share: whole or absent, never half written, one writer at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deployments.local.errors import LocalStackError

_LARGEST_LOG = 10 * 1024 * 1024
_SILENT_WAIT_SECONDS = 1.0

logger = logging.getLogger(__name__)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by a file with this content; a reader sees the old file or the new one.

    With `durable` the content also survives a power cut once this returns. The temporary name starts with a dot
    and ends in `.tmp`, so that a reader listing `*.csv` or `*.json` never picks it up.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def tail(path: Path, *, lines: int = 20, from_byte: int = 0) -> tuple[str, ...]:
    """The last lines of a log, ignoring what stood before `from_byte`; empty when there is no such file."""
    longest_read = 64 * 1024
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(from_byte, size), size - longest_read))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-lines:])


def rotate(log: Path) -> None:
    """Before a service starts: put a log that has grown large aside, in place of the one put aside before."""
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_name(f"{log.name}.1"))


@contextmanager
def locked(path: Path, *, doing: str, timeout_seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on `path` against every other process and thread; raise if it cannot be had in time.

    The kernel drops the lock when its holder ends, however it ends, so there is no stale lock to clear. The file
    names the holder, for the message of whoever waits in vain.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        since = time.monotonic()
        has_told = False
        while not _try_lock(descriptor):
            waited = time.monotonic() - since
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
            if waited > timeout_seconds:
                raise LocalStackError(
                    f"Gave up {doing}: another process has held the lock for {timeout_seconds:.0f} s ({holder}).",
                    where=str(path),
                    remedy="Wait for it to finish, or end it; the lock goes with its process.",
                )
            if waited > _SILENT_WAIT_SECONDS and not has_told:
                logger.info("waiting for another process (%s)", holder)
                has_told = True
            time.sleep(0.02)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}, {doing}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class SharedLock:
    """A lock against other processes that all threads of this one may hold together, and more than once.

    For an operation made of steps that are operations themselves, some of them in threads.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._guard = threading.Lock()
        self._holders = 0
        self._held = ExitStack()

    @contextmanager
    def hold(self, doing: str) -> Iterator[None]:
        """Hold the lock; `doing` tells whoever waits in vain what for."""
        with self._guard:
            if self._holders == 0:
                self._held.enter_context(locked(self._path, doing=doing, timeout_seconds=self._timeout_seconds))
            self._holders += 1
        try:
            yield
        finally:
            with self._guard:
                self._holders -= 1
                if self._holders == 0:
                    self._held.close()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable: the name is the folder's data, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
