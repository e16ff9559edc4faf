"""Whether the landing takes objects, gives them back, and refuses to write over one."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from connectors.connections import StoreLocation
from connectors.http.addresses import is_loopback
from connectors.ingest import LANDING
from connectors.object_store import local_folder, open_store
from deployments.doctor.examination import Result, State
from deployments.doctor.settings import Anywhere

_WORDS = b"written by headwater doctor"


def landing(connections: Anywhere) -> Iterator[Result]:
    """One object is written, read, written again (which must be refused), and deleted."""
    if not connections.has(LANDING):
        yield Result("landing", State.SKIPPED, f"{LANDING.environment_variable} is not set: see settings.")
        return
    location = connections.object_store(LANDING)
    store = open_store(location, create=True)
    key = f"headwater-doctor-{uuid4()}"  # beside the folders of sources, where no load looks
    step = "written"
    try:
        obstore.put(store, key, _WORDS, mode="create")
        try:
            step = "read"
            body = bytes(obstore.get(store, key).bytes())
            if body != _WORDS:
                yield _wrong(location, "gives back something else than was written", "Look for what stands before it.")
                return
            step = "kept from being written over"
            try:
                obstore.put(store, key, _WORDS, mode="create")
            except AlreadyExistsError:
                pass
            else:
                yield _wrong(
                    location,
                    "writes over an object although it was told not to (conditional put)",
                    "Use a store that knows If-None-Match: two runs of one load could each take itself for the first.",
                )
        finally:
            step = "deleted"
            obstore.delete(store, key)
    except (BaseError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        remedy = "Check the address (HEADWATER_LANDING_URL) and what these credentials may do: list, get, put, delete."
        yield _wrong(location, f"could not be {step}: {said}", remedy)
        return
    yield Result("landing", State.OK, f"{location.url} takes, gives back, keeps and deletes.")
    yield from _privacy(location)


def _privacy(location: StoreLocation) -> Iterator[Result]:
    """Whether others can see what lands."""
    if location.url.startswith("file:"):
        folder = local_folder(location.url)
        if folder.stat().st_mode & stat.S_IROTH and folder.stat().st_mode & stat.S_IXOTH:
            yield Result(
                "landing", State.WARNING, f"Every user of this machine can read {folder}.", f"chmod o-rwx {folder}"
            )
        return
    endpoint = urlsplit(location.options.get("endpoint", ""))
    if endpoint.scheme == "http" and not is_loopback(endpoint.hostname or "localhost"):
        yield Result(
            "landing",
            State.WARNING,
            f"What lands goes to {endpoint.netloc} in clear.",
            "Use https:// in AWS_ENDPOINT_URL.",
        )


def _wrong(location: StoreLocation, what: str, remedy: str) -> Result:
    return Result("landing", State.WRONG, f"{location.url} {what}", remedy)
