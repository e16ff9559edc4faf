"""The environment of everything that works with the local stack: its services, the CLI, and a developer's shell.

Names and values are settled here and nowhere else; product code reads the HEADWATER_* variables and does not know
that they came from a local stack.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.local.files import write_atomically
from deployments.local.layout import BACKUPS
from deployments.local.ports import LOOPBACK
from deployments.local.secrets import Secrets
from deployments.local.server import database_url

WAREHOUSE = "headwater"
WAREHOUSE_ROLES = ("owner", "loader", "transformer", "publisher", "watcher", "reader")
# Roles that make schemas: ops and serving, raw, the dbt layers.
WAREHOUSE_CREATORS = ("owner", "loader", "transformer")
PREFECT_DATABASE = "prefect"
CHECK_DATABASE = "headwater_check"
"""Empty; `headwater backup check` restores into it."""

# Of the user's own Prefect installation: any of these would send our processes to another server or another login.
_FOREIGN_PREFECT = frozenset(
    {
        "PREFECT_API_AUTH_STRING",
        "PREFECT_API_DATABASE_CONNECTION_URL",
        "PREFECT_API_KEY",
        "PREFECT_PROFILE",
        "PREFECT_PROFILES_PATH",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    }
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def role_name(role: str) -> str:
    """The PostgreSQL role of one of WAREHOUSE_ROLES."""
    return f"headwater_{role}"


def stack_variables(home: Path, *, postgres_port: int, prefect_port: int, secrets: Secrets) -> dict[str, str]:
    """The variables that say where the stack's parts are, and those that its user set (`Secrets.variables`)."""
    return {
        **prefect_variables(home, prefect_port),
        "HEADWATER_HOME": str(home),
        "HEADWATER_DBT_TARGET": str(home / "dbt"),
        "HEADWATER_LANDING_URL": (home / "landing").as_uri(),
        "HEADWATER_BACKUPS_URL": (home / BACKUPS).as_uri(),
        "HEADWATER_WAREHOUSE_HOST": LOOPBACK,
        "HEADWATER_WAREHOUSE_PORT": str(postgres_port),
        "HEADWATER_WAREHOUSE_DATABASE": WAREHOUSE,
        # What dbt/profiles.yml reads, for those who run dbt by hand.
        "HEADWATER_TRANSFORMER_USER": role_name("transformer"),
        "DBT_ENV_SECRET_HEADWATER_TRANSFORMER_PASSWORD": secrets.password(role_name("transformer")),
        **{
            f"HEADWATER_WAREHOUSE_{role.upper()}_URL": database_url(
                postgres_port, WAREHOUSE, role_name(role), secrets.password(role_name(role))
            )
            for role in WAREHOUSE_ROLES
        },
        **secrets.variables(),
    }


def prefect_variables(home: Path, port: int) -> dict[str, str]:
    """The variables of Prefect, server and clients alike: where it is, and that it phones nobody."""
    return {
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **_proxy_exceptions(),
    }


def process_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """A whole environment for a child process: the current one, cleared of other Prefect logins, plus `variables`."""
    inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN_PREFECT}
    path = os.pathsep.join([_programs(), inherited.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, **variables}


def write_environment_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file for `. <path>`, after which `prefect`, `dbt` and `headwater` work in that shell."""
    lines = [
        "# Written by Headwater. For a shell that works with the local stack:  . " + _quoted(str(path)),
        f'export PATH={_quoted(_programs())}:"$PATH"',
        *(f"export {name}={_quoted(value)}" for name, value in sorted(variables.items())),
    ]
    write_atomically(path, "\n".join(lines) + "\n", mode=0o600)


def _programs() -> str:
    """The folder of the running interpreter's programs; not resolved, as a venv's python is a link out of it."""
    return str(Path(sys.executable).parent)


def _proxy_exceptions() -> dict[str, str]:
    """Where a proxy is set, keep loopback out of it: Prefect's and other HTTP clients obey these variables."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return {}
    present = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    exceptions = ",".join(dict.fromkeys([*filter(None, present.split(",")), LOOPBACK, "localhost"]))
    return {"no_proxy": exceptions, "NO_PROXY": exceptions}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\"'\"'") + "'"
