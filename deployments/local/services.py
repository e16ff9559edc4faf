"""The stack's own services: the Prefect server on PostgreSQL, a process worker, and the watcher."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from deployments.local.environment import PREFECT_DATABASE
from deployments.local.ports import LOOPBACK
from deployments.local.processes import DIRECT, ProcessRecord, Service
from deployments.local.server import database_url

PREFECT_SERVER = "prefect-server"
PREFECT_WORKER = "prefect-worker"
WATCHER = "watcher"
RETENTION = {
    # What the server forgets, so that its database does not grow for ever: runs with their tasks, logs and artifacts
    # (without this none, ever), and events.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(60 * 86_400),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P7D",
    # One for each half minute of each run: most of all events, and of no use once the run is over.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": '{"prefect.flow-run.heartbeat": 86400}',
}
"""Of any server, this one or another: see docs/many-machines.md. The numbers are seconds."""
PATIENCE = {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
"""Of any worker: what a server answers whose database is away. Without it a worker ends, and its runs with it, after a
minute of that; with it after a quarter of an hour."""
PREFECT_PORT = 4200
WORK_POOL = "headwater"
_WORKER_NAME = "local"


def prefect_server(variables: Mapping[str, str], *, port: int, postgres_port: int, password: str) -> Service:
    """The API, the scheduler and the other background services, and the dashboard, in one process."""
    database = database_url(postgres_port, PREFECT_DATABASE, PREFECT_DATABASE, password, driver="asyncpg")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    return Service(
        name=PREFECT_SERVER,
        command=tuple(command),
        # The server alone knows how to reach its database, and nothing of the warehouse.
        environment={**variables, **RETENTION, "PREFECT_API_DATABASE_CONNECTION_URL": database},
        health_url=f"http://{LOOPBACK}:{port}/api/health",
        # The first start also creates some seventy tables.
        deadline_seconds=180.0,
    )


def prefect_worker(variables: Mapping[str, str], *, temporary: Path) -> Service:
    """A worker that runs flows as processes of this machine; asks for work every second, so that runs start soon."""
    command = [sys.executable, "-m", "prefect", "worker", "start"]
    command += ["--pool", WORK_POOL, "--type", "process", "--name", _WORKER_NAME]
    api_url = variables["PREFECT_API_URL"]
    return Service(
        name=PREFECT_WORKER,
        command=tuple(command),
        # Prefect keeps its runs' storage at a fixed path in the temporary folder: in /tmp, two users of one machine
        # would be in each other's way.
        environment={**variables, **PATIENCE, "PREFECT_WORKER_QUERY_SECONDS": "1", "TMPDIR": str(temporary)},
        ready=lambda record: _has_reported(api_url, record),
        deadline_seconds=120.0,
    )


def watcher(variables: Mapping[str, str]) -> Service:
    """What looks at all the others, and tells of trouble: see deployments/watcher."""
    return Service(
        name=WATCHER,
        command=(sys.executable, "-m", "deployments.cli", "watch"),
        environment=dict(variables),
        # Nobody waits for it; `headwater status` shows whether it lives.
        ready=lambda _: True,
    )


def _has_reported(api_url: str, worker: ProcessRecord) -> bool:
    """Whether the server has heard from this very worker: an earlier one of the same name stays listed for a while."""
    request = urllib.request.Request(  # noqa: S310 (our own server's URL)
        f"{api_url}/work_pools/{WORK_POOL}/workers/filter",
        data=b"{}",
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with DIRECT.open(request, timeout=5.0) as response:
            workers = json.load(response)
    except OSError:
        return False
    return any(
        each["name"] == _WORKER_NAME and datetime.fromisoformat(each["last_heartbeat_time"]) >= worker.started_at
        for each in workers
    )
