"""Files of a local folder that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from connectors.object_store import flush


def create_durably(path: Path, body: bytes, root: Path) -> None:
    """Write a file that is either absent or whole, also after a power cut; FileExistsError if there is one.

    From here on it is found after one, too: the folders down from the root may be new, and are flushed as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, body, replaces=False)
    for folder in path.parents:
        flush(folder)
        if folder == root:
            break


def write_durably(path: Path, body: bytes, *, replaces: bool) -> None:
    """Write a file that appears whole; FileExistsError if there is one that it does not replace."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".manifest-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        if replaces:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
