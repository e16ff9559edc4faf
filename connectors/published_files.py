"""Small files for people to look at, in a folder or a bucket: each is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import obstore
from obstore.exceptions import BaseError

from connectors.connections import ObjectStore, StoreLocation
from connectors.errors import DestinationUnavailableError
from connectors.object_store import check_not_refused, open_store

STATUS_PAGE = ObjectStore("status_page")
"""Where the status page goes, if not beside the landing."""
_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json"}


def put_files(location: StoreLocation, files: Mapping[str, bytes]) -> None:
    """Write files, in their order, over those of the same names.

    Raises:
        ConfigurationError: the store refuses, or there is none of that kind.
        DestinationUnavailableError: it does not answer.
    """
    store = open_store(location, create=True)
    try:
        for name, content in files.items():
            if location.url.startswith("file:"):  # a folder has no place for a type
                obstore.put(store, name, content)
                continue
            attributes = {"Content-Type": _TYPES[name.rpartition(".")[2]], "Cache-Control": "no-cache"}
            obstore.put(store, name, content, attributes=attributes)
    except BaseError as error:
        check_not_refused(error)
        raise _unavailable(location, error) from error


def get_file(location: StoreLocation, name: str) -> bytes | None:
    """A file's content; None if there is none.

    Raises:
        ConfigurationError: the store refuses, or there is none of that kind.
        DestinationUnavailableError: it does not answer.
    """
    try:
        return bytes(obstore.get(open_store(location, create=True), name).bytes())
    except FileNotFoundError:
        return None
    except BaseError as error:
        check_not_refused(error)
        raise _unavailable(location, error) from error


def beside(location: StoreLocation, name: str) -> StoreLocation:
    """The folder of a name next to a store's; in a bucket without a prefix, within it."""
    url = location.url.rstrip("/")
    scheme, _, path = url.partition("://")
    parent = path if scheme != "file" and "/" not in path else path.rpartition("/")[0]
    return StoreLocation(f"{scheme}://{parent}/{name}", location.options)


def _unavailable(location: StoreLocation, error: BaseError) -> DestinationUnavailableError:
    return DestinationUnavailableError(
        f"{location.url} cannot be read or written: {' '.join(str(error).split())[:300]}",
        remedy="Check that the folder or bucket is there and may be written.",
    )
