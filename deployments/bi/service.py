"""Superset on the local stack: its database, its assets, its process.

Promises: `start` is idempotent and `make bi` all it takes; Superset keeps its state in a database of its own in the
stack's PostgreSQL and reads the warehouse as the reader; its keys and passwords are made once a home and never leave
`secrets.json` and the environment of its processes.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

from deployments.local.environment import process_environment
from deployments.local.errors import LocalStackError
from deployments.local.files import tail
from deployments.local.layout import PROJECT_ROOT, log_file
from deployments.local.ports import LOOPBACK
from deployments.local.processes import Service
from deployments.local.server import database_url
from deployments.local.stack import LocalStack

SUPERSET = "superset"
SUPERSET_PORT = 8088
ADMINISTRATOR = "admin"
ASSETS = Path(__file__).parent / "assets"
DASHBOARD = "flight-operations"
"""The slug of the demo's dashboard."""

_HEALTH = "/health"
_ADMIN_SECRET, _KEY_SECRET = "superset-admin", "superset-key"
# The first time it makes some ninety tables.
_PROVISION_SECONDS = 600


def start(stack: LocalStack) -> str:
    """Provision Superset, start it, and return its address. Needs PostgreSQL with a migrated warehouse.

    Raises:
        LocalStackError: it is not installed, or does not come up.
    """
    with stack.exclusive("starting Superset"):
        server = stack.start_postgres()
        server.ensure_role(SUPERSET, stack.secrets.password(SUPERSET))
        server.ensure_database(SUPERSET, SUPERSET)
        provision(stack, "import", ASSETS)
        record = stack.start_on_port(SUPERSET, SUPERSET_PORT, partial(_service, _variables(stack)))
    return str(record.health_url).removesuffix(_HEALTH)


def administrator(stack: LocalStack) -> tuple[str, str]:
    """The administrator's name and password."""
    return ADMINISTRATOR, stack.secrets.password(_ADMIN_SECRET)


def provision(stack: LocalStack, action: str, folder: Path) -> None:
    """Bring the assets of a folder into Superset (`import`) or out of it (`export`); see provision.py."""
    log = log_file(stack.home, f"{SUPERSET}-{action}")
    variables = {**_variables(stack), "HEADWATER_BI_ADMIN_PASSWORD": stack.secrets.password(_ADMIN_SECRET)}
    with open(log, "wb", opener=_private) as output:
        outcome = subprocess.run(
            # Isolated: neither the script's folder nor variables of the shell add to what can be imported.
            [str(_program("python")), "-I", str(Path(__file__).with_name("provision.py")), action, str(folder)],
            cwd=PROJECT_ROOT,
            env=process_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_PROVISION_SECONDS,
            check=False,
        )
    if outcome.returncode != 0:
        raise LocalStackError(
            f"Superset's {action} ended with status {outcome.returncode}.",
            where=f"{folder}; log: {log}",
            remedy="Mend what the log names, then run the same command again.",
            log_tail=tail(log),
        )


def environment_folder() -> Path:
    """Superset's virtual environment."""
    return Path(os.environ.get("HEADWATER_BI_VENV") or PROJECT_ROOT / ".venv-bi")


def _variables(stack: LocalStack) -> dict[str, str]:
    stacks = stack.environment()
    password = stack.secrets.password(SUPERSET)
    port = int(stacks["HEADWATER_WAREHOUSE_PORT"])
    return {
        "SUPERSET_CONFIG_PATH": str(Path(__file__).with_name("superset_config.py")),
        "SUPERSET_HOME": str(stack.home / SUPERSET),
        "HEADWATER_BI_SECRET_KEY": stack.secrets.password(_KEY_SECRET),
        "HEADWATER_BI_METADATA_URL": database_url(port, SUPERSET, SUPERSET, password, driver="psycopg2"),
        "HEADWATER_WAREHOUSE_READER_URL": stacks["HEADWATER_WAREHOUSE_READER_URL"],
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
    }


def _service(variables: dict[str, str], port: int) -> Service:
    # One process: it keeps count of attempts to log in. Threads, because it mostly waits for PostgreSQL.
    command = [str(_program("gunicorn")), "--bind", f"{LOOPBACK}:{port}", "--workers", "1"]
    command += ["--worker-class", "gthread", "--threads", "8", "--timeout", "120", "superset.app:create_app()"]
    return Service(
        name=SUPERSET,
        command=tuple(command),
        environment=variables,
        health_url=f"http://{LOOPBACK}:{port}{_HEALTH}",
        deadline_seconds=180.0,
        is_optional=True,
    )


def _program(name: str) -> Path:
    program = environment_folder() / "bin" / name
    if not program.exists():
        raise LocalStackError(
            "Superset is not installed.",
            where=str(environment_folder()),
            remedy="Run `make bi`, which installs it first.",
        )
    return program


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
