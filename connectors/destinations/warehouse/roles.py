"""Which role may do what in the warehouse: the one list, of which docs/roles.md is a print and `role_check` an
inspector.

What a role owns it may do anything with, so only what is granted beside that is listed. Privileges are PostgreSQL's, in
lower case. `PUBLIC`, which is every role of the server, may do nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

ROLES = (
    "headwater_owner",
    "headwater_loader",
    "headwater_transformer",
    "headwater_publisher",
    "headwater_watcher",
    "headwater_reader",
)
"""The roles that the migrations grant to. They must exist; docs/roles.md shows how to make them."""

OWNER, LOADER, TRANSFORMER, PUBLISHER, WATCHER, READER = ROLES

Grants: TypeAlias = Mapping[str, frozenset[str]]
"""Privileges by role."""


def _grants(**privileges: str) -> Grants:
    """`_grants(reader="select")`."""
    return {f"headwater_{role}": frozenset(names.split()) for role, names in privileges.items()}


@dataclass(frozen=True, slots=True)
class SchemaRule:
    """A schema, or all of a pattern, and the tables and views in it."""

    name: str
    """As `fnmatch` takes it: `raw_*`."""
    owner: str
    grants: Grants
    """On the schema: usage, create."""
    owners_inside: frozenset[str]
    """Who makes tables and views there."""
    inside: Grants = field(default_factory=dict)
    """On every table and view in it, unless `exceptions` names that."""
    exceptions: Mapping[str, Grants] = field(default_factory=dict)
    """On single tables and views; on columns as `table.column`; on functions as `name()`."""
    sequences: Grants = field(default_factory=dict)
    """On its sequences."""
    is_built_anew: bool = False
    """Whether dbt makes tables of it anew: they have their grants when the build has ended, not before."""


DATABASE = _grants(
    owner="connect create temporary",
    loader="connect create",
    transformer="connect create temporary",
    publisher="connect",
    watcher="connect",
    reader="connect",
)
"""On the warehouse's database, which the owner owns."""

_LEDGER_READERS = _grants(loader="select", transformer="select", publisher="select", watcher="select")


def _ledger(**more: str) -> Grants:
    """What may be done with a table of the ledger, which four roles read."""
    wanted = _grants(**more)
    return {role: names | wanted.get(role, frozenset()) for role, names in _LEDGER_READERS.items()}


_WATCHED = _ledger(watcher="insert update")
_WATCHED_AND_GONE = _ledger(watcher="insert update delete")
_PUBLISHED = _ledger(publisher="insert update delete")
_LOADED = _ledger(loader="insert update")
_ADDED = _ledger(loader="insert")

LEDGER: Mapping[str, Grants] = {
    "alert_channels": _WATCHED,
    "alerts": _WATCHED,
    "backfill_windows": _LOADED,
    "backfills": _LOADED,
    "backups": _WATCHED,
    "dbt_invocations": _WATCHED_AND_GONE,
    "dbt_results": _WATCHED_AND_GONE,
    "differences": _ADDED,
    "differences.healed_at": _grants(loader="update"),
    "files": _LOADED,
    "forget_places": _ledger(loader="insert update", transformer="insert update", publisher="insert update"),
    "forget_requests": _LEDGER_READERS,
    "forget_salts": _LEDGER_READERS,
    "forgotten": _LEDGER_READERS,
    "freshness": _WATCHED_AND_GONE,
    "heartbeats": _WATCHED,
    "incident_events": _ledger(watcher="insert"),
    "incidents": _WATCHED,
    "lineage_edges": _WATCHED_AND_GONE,
    "lineage_nodes": _WATCHED_AND_GONE,
    "loads": _LOADED,
    "published_groups": _ledger(publisher="insert update"),
    "published_marts": _ledger(publisher="insert"),
    "published_marts.undo_rows": _grants(publisher="update"),
    "published_marts.undo_table": _grants(publisher="update"),
    "published_sources": _ledger(publisher="insert delete"),
    "publishes": _ledger(publisher="insert"),
    "quarantine": _ledger(loader="insert delete"),
    "quarantine.replayed_by": _grants(loader="update"),
    "reconciled_windows": _LOADED,
    "reconciliations": _LOADED,
    "restores": _LEDGER_READERS,
    "schema_changes": _ADDED,
    "serving_groups": _PUBLISHED,
    "serving_marts": _PUBLISHED,
    "signs": _WATCHED_AND_GONE,
    "streams": _ledger(loader="insert update", transformer="insert update"),
    "watermarks": _LOADED,
    "window_changes": _LOADED,
    "windows": _LOADED,
    "windows.built_by": _grants(publisher="update"),
    "windows.is_stale": _grants(publisher="update"),
    "note_changes()": _grants(transformer="execute"),
}
"""The tables of `ops`, single columns of them, and its function."""


def _of(*roles: str) -> frozenset[str]:
    return frozenset(roles)


SCHEMAS: tuple[SchemaRule, ...] = (
    SchemaRule("public", OWNER, {}, _of(OWNER)),
    SchemaRule(
        "ops",
        OWNER,
        _grants(loader="usage", transformer="usage", publisher="usage", watcher="usage"),
        _of(OWNER),
        exceptions=LEDGER,
        sequences=_grants(watcher="select"),  # it dumps the ledger into backups
    ),
    SchemaRule("loading", OWNER, _grants(loader="usage create"), _of(LOADER)),
    SchemaRule("raw_*", LOADER, _grants(transformer="usage"), _of(LOADER), _grants(transformer="select")),
    SchemaRule("staging", TRANSFORMER, {}, _of(TRANSFORMER)),
    SchemaRule("intermediate", TRANSFORMER, {}, _of(TRANSFORMER)),
    SchemaRule("snapshots", TRANSFORMER, {}, _of(TRANSFORMER)),
    SchemaRule(
        "failures", TRANSFORMER, _grants(owner="usage"), _of(TRANSFORMER), _grants(owner="select"), is_built_anew=True
    ),
    SchemaRule(
        "marts",
        TRANSFORMER,
        _grants(publisher="usage"),
        _of(TRANSFORMER),
        _grants(publisher="select"),
        is_built_anew=True,
    ),
    SchemaRule(
        "changes",
        OWNER,
        _grants(transformer="usage create", publisher="usage"),
        _of(TRANSFORMER),
        _grants(publisher="select delete"),
    ),
    SchemaRule("published", OWNER, _grants(publisher="usage create"), _of(PUBLISHER)),
    SchemaRule("undo", OWNER, _grants(publisher="usage create"), _of(PUBLISHER)),
    SchemaRule(
        "serving",
        OWNER,
        _grants(publisher="usage create", reader="usage", watcher="usage"),
        _of(PUBLISHER, OWNER),
        _grants(reader="select"),
        exceptions={"data_status": _grants(reader="select", watcher="select")},
    ),
)
"""By the first rule whose pattern a schema matches. Schemas that none matches are a team's own: they are not judged."""
