"""One interface to a folder and to S3, by URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore.store
from obstore.exceptions import BaseError

from connectors.connections import StoreLocation
from connectors.errors import ConfigurationError

_REFUSED = re.compile(r"status code: (40[134] [A-Za-z ]+)")


def open_store(location: StoreLocation, *, create: bool = False) -> obstore.store.ObjectStore:
    """The store at a location; every key is then relative to it.

    `create` makes a local folder that is not there yet.

    Raises:
        ConfigurationError: the URL is of another kind, or names a folder that does not exist.
    """
    parts = urlsplit(location.url)
    if parts.scheme == "file":
        folder = local_folder(location.url)
        if not create and not folder.is_dir():
            raise ConfigurationError(
                f"The folder {folder} does not exist.",
                remedy="Create it, or correct the address of the object store.",
            )
        try:
            return obstore.store.LocalStore(folder, mkdir=create)
        except (BaseError, OSError) as error:
            raise ConfigurationError(
                f"The folder {folder} cannot be used as an object store: {error}",
                remedy="Check that it can be created and written.",
            ) from error
    if parts.scheme == "s3" and parts.netloc:
        options = dict(location.options)
        endpoint = options.get("endpoint", "")
        return obstore.store.S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "60s"},
            retry_config={"max_retries": 5},
            **options,  # type: ignore[arg-type]  # obstore types its options as a TypedDict of the same names
        )
    raise ConfigurationError(
        f"`{parts.scheme or location.url}` is no kind of object store.",
        remedy="Write file:///absolute/folder or s3://bucket/prefix.",
    )


def local_folder(url: str) -> Path:
    """The folder of a file:// URL.

    Raises:
        ConfigurationError: the path is not absolute.
    """
    parts = urlsplit(url)
    folder = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not folder.is_absolute():
        raise ConfigurationError(
            f"{url} does not name an absolute folder.", remedy="Write file:/// and the whole path."
        )
    return folder


def check_not_refused(error: BaseError) -> None:
    """Tell a store that refuses a request from one that does not answer. What is not there is a FileNotFoundError of
    its own, unless it is the bucket.

    Raises:
        ConfigurationError: it refused.
    """
    if refused := _REFUSED.search(str(error)):
        raise ConfigurationError(
            f"The object store refused: {refused[1]}.",
            remedy="Check the bucket's name, the credentials (AWS_*), and what they allow.",
        ) from error


def flush(path: Path) -> None:
    """Have the disk hold what a file is, or which names a folder has, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
