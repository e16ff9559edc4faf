"""Makes the status page anew and puts it where people look: a folder or a bucket, beside the landing unless told.

Three files: `index.html`; `status.json`, the same for programs; and `lineage.json`, what was found out of the lineage,
for the next page: it need not be looked for again, and workers without a manifest have it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from connectors.connections import Connections, Database, StoreLocation
from connectors.errors import ConfigurationError
from connectors.ingest import LANDING
from connectors.model import Source
from connectors.published_files import STATUS_PAGE, beside, get_file, put_files
from tasks.dbt_folders import DBT_TARGET
from tasks.status_page.document import make
from tasks.status_page.page import as_json, page

WAREHOUSE_WATCHER = Database("warehouse_watcher")
INDEX = "index.html"
_FOLDER, _KEPT = "page", "lineage.json"


def place(connections: Connections) -> StoreLocation:
    """Where the page goes: HEADWATER_STATUS_PAGE_URL, or the folder `page` beside the landing.

    Raises:
        ConfigurationError: there is neither.
    """
    try:
        return connections.object_store(STATUS_PAGE)
    except ConfigurationError:
        return beside(connections.object_store(LANDING), _FOLDER)


def write_page(
    connections: Connections,
    sources: Iterable[Source],
    *,
    to: StoreLocation | None = None,
    manifest: Path = DBT_TARGET / "manifest.json",
    run: str | None = None,
) -> StoreLocation:
    """Make the page and its JSON of what the warehouse says now.

    Args:
        to: another place than `place` says.
        manifest: what the latest build has left, if it is on this machine.
        run: who makes the page.

    Raises:
        ConfigurationError: the warehouse or the store refuses.
        DestinationUnavailableError: one of them does not answer, or not in time.
    """
    location = to or place(connections)
    made = make(
        connections.database(WAREHOUSE_WATCHER),
        list(sources),
        manifest=_json(manifest.read_bytes() if manifest.exists() else None),
        kept=_json(get_file(location, _KEPT)),
        run=run,
    )
    files = {"status.json": as_json(made.document), INDEX: page(made.document)}
    put_files(location, files if made.kept is None else {_KEPT: as_json(made.kept), **files})
    return location


def _json(content: bytes | None) -> dict[str, Any] | None:
    """An object; None where there is none, or none that can be read: both are as good as not there."""
    try:
        found = json.loads(content or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
