"""Whether the warehouse has the shape that this code is made for: every run looks before it does anything.

Code that is older than the warehouse must not work in it either: what it does not know of, it would not keep to. One
from before `headwater forget`, say, would load rows again that were forgotten.
"""

from __future__ import annotations

import psycopg

from connectors.errors import ConfigurationError

REVISION = "0013"
"""The newest migration."""
_SAID = "The ledger of Headwater, as of migration "


def revision_of(connection: psycopg.Connection) -> str | None:
    """The migration that the warehouse has, as any role may see; None before that was written down, or without one."""
    row = connection.execute("select obj_description(to_regnamespace('ops'), 'pg_namespace')").fetchone()
    said = row[0] if row and row[0] else ""
    return said.removeprefix(_SAID) if said.startswith(_SAID) else None


def note_revision(revision: str) -> str:
    """The statement that writes a revision down, for the transaction that reaches it."""
    return f"comment on schema ops is '{_SAID}{revision}'"


def check_shape(connection: psycopg.Connection) -> None:
    """Refuse a warehouse of another shape.

    Raises:
        ConfigurationError: it is older or newer than this code.
    """
    found = revision_of(connection)
    if found == REVISION:
        return
    if found is not None and found > REVISION:
        raise ConfigurationError(
            f"The warehouse is newer than this Headwater: it has migration {found}, and this one is made for "
            f"{REVISION}. Nothing was done.",
            remedy="Install the Headwater that upgraded it on this machine too: docs/operations.md, Upgrading.",
        )
    raise ConfigurationError(
        f"The warehouse is older than this Headwater: it has {f'migration {found}' if found else 'an older shape'}, "
        f"and this one needs {REVISION}. Nothing was done.",
        remedy="Run `headwater migrate`: docs/operations.md, Upgrading.",
    )
