"""Files put aside on this machine's disk for as long as they are read: what has to be whole before it can be."""

from __future__ import annotations

import tempfile
from typing import IO

from connectors.errors import DestinationUnavailableError


def new_aside() -> IO[bytes]:
    """An empty file without a name, gone when it is closed.

    Raises:
        DestinationUnavailableError: there is no folder for it.
    """
    try:
        return tempfile.TemporaryFile(prefix="headwater-")
    except OSError as error:
        raise _no_room(error) from error


def put_aside(file: IO[bytes], data: bytes) -> None:
    """Write to the end of such a file, so that it can be read at once.

    Raises:
        DestinationUnavailableError: the disk is full.
    """
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> DestinationUnavailableError:
    return DestinationUnavailableError(
        f"A file cannot be put aside in {tempfile.gettempdir()}: {error}.",
        remedy="Free space there, or set TMPDIR to a folder that has some, then run again: nothing was lost.",
    )
