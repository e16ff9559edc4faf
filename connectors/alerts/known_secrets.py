"""All secrets that Headwater connects with: whatever an error has repeated, no alert may say them."""

from __future__ import annotations

from connectors.connections import Connections, Database, ObjectStore, Requirement, Secret
from connectors.errors import ConfigurationError
from connectors.ingest import LANDING
from connectors.registry import SOURCES

_ROLES = ("owner", "loader", "transformer", "publisher", "watcher", "reader")


def known_secrets(connections: Connections) -> list[str]:
    """The secrets and passwords of the warehouse, the landing and the registered sources, as far as they are set."""
    needed: list[Requirement] = [LANDING, *(Database(f"warehouse_{role}") for role in _ROLES)]
    needed += [requirement for source in SOURCES.values() for requirement in source.requirements]
    found: list[str | None] = []
    for requirement in needed:
        try:
            if isinstance(requirement, Secret):
                found.append(connections.secret(requirement))
            elif isinstance(requirement, Database):
                password = connections.database(requirement).password
                found.append(str(password) if password is not None else None)
            elif isinstance(requirement, ObjectStore):
                options = connections.object_store(requirement).options
                found += [options.get("secret_access_key"), options.get("session_token")]
        except ConfigurationError:  # it is not set, so it cannot be told
            continue
    return [secret for secret in found if secret]
