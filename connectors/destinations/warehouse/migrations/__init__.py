"""The `ops`, `loading`, `published` and `serving` schemas, versioned with alembic. `upgrade` is safe to repeat."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, ProgrammingError

from connectors.destinations.warehouse.roles import ROLES
from connectors.errors import ConfigurationError, DestinationUnavailableError

_OLDEST_SERVER = 160000


def revision(connection: psycopg.Connection) -> str | None:
    """The shape that a warehouse has, asked as `headwater_owner`; None if it was never migrated."""
    if connection.execute("select to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = connection.execute("select version_num from public.alembic_version").fetchone()
    return str(row[0]) if row else None


def newest_revision() -> str:
    """The shape that this Headwater works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(owner_url: URL, *, to: str = "head") -> None:
    """Bring a warehouse to the newest shape, as the role `headwater_owner`. Data is kept.

    Args:
        to: the revision to stop at; for tests of what comes after it.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 16, a role is missing, this role may not change the
            schemas, or the warehouse's shape is newer than this Headwater.
        DestinationUnavailableError: it does not answer.
    """
    config = _config()
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
