"""The `ops`, `loading`, `published` and `serving` schemas, versioned with alembic. `upgrade` is safe to repeat."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, ProgrammingError

from connectors.destinations.warehouse.roles import ROLES
from connectors.destinations.warehouse.shape import note_revision
from connectors.errors import ConfigurationError, DestinationUnavailableError

VERSIONS = [Path(__file__).parent / "versions"]
"""Where the migrations are."""
_OLDEST_SERVER = 160000


def upgrade(owner_url: URL, *, to: str = "head") -> None:
    """Bring a warehouse to the newest shape, as the role `headwater_owner`. Data is kept.

    Args:
        to: the revision to stop at: that of a backup which is to be restored.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 16, a role is missing, this role may not change the
            schemas, or the warehouse's shape is newer than this Headwater.
        DestinationUnavailableError: it does not answer.
    """
    config = Config()
    for option, paths in (("script_location", [Path(__file__).parent]), ("version_locations", VERSIONS)):
        config.set_main_option(option, os.pathsep.join(map(str, paths)).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(owner_url, connect_args={"connect_timeout": 10, "options": "-c timezone=UTC"})
    try:
        with engine.begin() as connection:
            # Two upgrades at once take turns.
            connection.execute(text("select pg_advisory_xact_lock(hashtextextended('headwater.migrations', 0))"))
            version = connection.execute(text("show server_version_num")).scalar_one()
            if int(version) < _OLDEST_SERVER:
                raise ConfigurationError(
                    f"The warehouse is PostgreSQL {int(version) // 10000}; Headwater needs 16 or later.",
                    remedy="Upgrade it: checking values before a load uses pg_input_is_valid, new in 16.",
                )
            found = set(
                connection.execute(
                    text("select rolname from pg_roles where rolname = any(:names)"), {"names": list(ROLES)}
                ).scalars()
            )
            if missing := [role for role in ROLES if role not in found]:
                raise ConfigurationError(
                    f"The warehouse lacks the role {', '.join(missing)}.",
                    remedy="Create the roles as docs/roles.md shows, then run `headwater migrate` again.",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            reached = connection.execute(text("select version_num from alembic_version")).scalar_one()
            connection.execute(text(note_revision(reached)))
    except CommandError as error:
        raise ConfigurationError(
            f"The warehouse's shape is not known to this Headwater: {error}.",
            remedy="A newer one has upgraded it; install that one here too.",
        ) from error
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise ConfigurationError(
            f"The role {owner_url.username} may not upgrade the warehouse: {' '.join(str(error.orig).split())}.",
            remedy="HEADWATER_WAREHOUSE_OWNER_URL must name headwater_owner, which owns the database and its schemas.",
        ) from error
    except OperationalError as error:
        text_ = " ".join(str(error.orig).split())
        raise DestinationUnavailableError(
            f"The warehouse {owner_url.host}:{owner_url.port} cannot be reached: {text_}",
            remedy="Check that it runs and that HEADWATER_WAREHOUSE_OWNER_URL is right.",
        ) from error
    finally:
        engine.dispose()
