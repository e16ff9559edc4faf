"""A whole local stack to be hurt: PostgreSQL, Prefect server, worker, watcher, the demo's sources, and channels that
listen. It has a home and ports of its own, and little data: the demo's clock stands early in the year."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from deployments.demo import systems
from deployments.local.layout import PROJECT_ROOT, prepare
from deployments.local.services import PREFECT_SERVER, PREFECT_WORKER
from deployments.local.stack import LocalStack
from deployments.local.state import StateFile
from tests.connectors.alerts.catchers import Receiver, free_port, receiver

ROUTING = """
channels:
  slack: {kind: slack}
  hook: {kind: webhook}
routes:
  - channels: [slack, hook]
    severity: error
"""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(slots=True)
class Site:
    """The stack, and what its channels were told."""

    stack: LocalStack
    slack: Receiver
    hook: Receiver
    variables: Mapping[str, str]
    """What its commands have in their environment, beside the stack's own."""
    heard: int = 0
    """How many messages of the webhook belong to what is over."""

    def run(self, *command: str, timeout: float = 600) -> str:
        """A command of `headwater`; what it says."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DBT_"))}
        outcome = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *command],
            cwd=PROJECT_ROOT,
            env={**inherited, **self.variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
        return outcome.stdout

    def query(self, statement: str, database: str = "headwater") -> list[tuple[Any, ...]]:
        server = self.stack.postgres.server()
        assert server is not None
        with server.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def flights(self) -> list[tuple[Any, ...]]:
        """What raw has of the flights, and what the ledger says of them, whichever loads brought them."""
        rows = "md5(string_agg(md5((to_jsonb(t) - '{_load_id,_loaded_at}'::text[])::text), '' order by id)), count(*)"
        windows = "select count(*), sum(rows) from ops.windows where source = 'flights_api'"
        loads = "select sum(rows_inserted) from ops.loads where source = 'flights_api'"
        return self.query(f"select {rows}, ({loads}) from raw_flights_api.flights t") + self.query(windows)

    def forget_flights(self) -> None:
        """Raw, ledger and landing know nothing of the flights, as at first."""
        self.query("drop schema raw_flights_api cascade")
        for table in ("window_changes", "windows", "quarantine", "schema_changes", "watermarks", "loads"):
            self.query(f"delete from ops.{table} where source = 'flights_api'")
        shutil.rmtree(self.stack.home / "landing" / "flights_api", ignore_errors=True)

    @property
    def api_url(self) -> str:
        return self.stack.environment()["PREFECT_API_URL"]

    def prefect(self, path: str, content: Any = None, *, method: str = "POST") -> Any:
        response = httpx.request(method, f"{self.api_url}/{path}", json=content, timeout=30)
        response.raise_for_status()
        return response.json() if response.content else None

    def start(self, deployment: str, **parameters: Any) -> str:
        found = self.prefect(f"deployments/name/{deployment}", method="GET")
        run = self.prefect(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def pause(self, *deployments: str) -> None:
        """No run of them begins by itself."""
        for name in deployments:
            found = self.prefect(f"deployments/name/{name}", method="GET")
            self.prefect(f"deployments/{found['id']}", {"paused": True}, method="PATCH")

    def state(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect(f"flow_runs/{run_id}", method="GET")
        return found

    def ended(self, run_id: str, *, timeout: float = 300) -> dict[str, Any]:
        """A run, once it is over."""
        wait(lambda: self.state(run_id)["state_type"] in ENDED, f"run {run_id} ends", timeout)
        return self.state(run_id)

    def completed(self, deployment: str, **parameters: Any) -> None:
        """Run a deployment, which must succeed."""
        run = self.ended(self.start(deployment, **parameters))
        assert run["state_type"] == "COMPLETED", run["state"]["message"]

    def pid(self, service: str) -> int:
        found = {each.name: each.pid for each in self.stack.status()}[service]
        assert found is not None, f"{service} does not run"
        return found

    def kill(self, service: str) -> float:
        """Kill -9 a service, and what it has started; when that was."""
        leader = psutil.Process(self.pid(service))
        for process in [leader, *leader.children(recursive=True)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs([leader], timeout=30)
        return time.monotonic()

    def kill_server(self) -> float:
        return self.kill(PREFECT_SERVER)

    def kill_worker(self) -> float:
        """The worker and its runs, as when their machine is gone."""
        return self.kill(PREFECT_WORKER)

    def subjects(self) -> list[str]:
        """What was told since the last trouble was over, in order; Slack and the webhook were told the same."""
        return [str(body["subject"]) for body in self.hook.taken[self.heard :]]

    def told(self, of: str, within: float) -> float:
        """Wait until something is told; how many seconds that took."""
        begun = time.monotonic()
        wait(lambda: any(of in subject for subject in self.subjects()), f"`{of}` is told", within)
        return time.monotonic() - begun

    def quiet(self, within: float = 600) -> list[str]:
        """Wait until nothing is wrong any more (a week of data is worth warnings) and all of it was told; what was told
        since the last time."""
        pending = (
            "select 1 from ops.alerts where delivered_at is null and superseded_by is null and given_up_at is null"
        )
        still = f"select 1 from ops.incidents where closed_at is null and severity <> 'warning' union all {pending}"
        wait(lambda: not self.query(still), "all is well again", within)
        found = self.subjects()
        self.heard = len(self.hook.taken)
        return found


def is_over(subject: str) -> bool:
    """Whether a message tells that something is over."""
    return subject.startswith(("[recovered", "[was "))


def wait(is_so: Callable[[], object], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(1)


@contextmanager
def site(home: Path, *, clock: str, settle: str = "1m") -> Iterator[Site]:
    """A stack that is up, in which nothing was loaded yet.

    Args:
        clock: where the demo's clock stands, which is up to when there are data.
        settle: how long a recovery waits until it is told.
    """
    prepare(home)
    state = StateFile(home)
    for service in (PREFECT_SERVER, systems.FLIGHTS_API):  # two stacks that start at once would want the same
        port = free_port()
        state.update(lambda found, name=service, number=port: found.with_port(name, number))  # type: ignore[misc]
    (home / "alerts.yaml").write_text(ROUTING)
    with receiver() as slack, receiver() as hook:
        variables = {
            "HEADWATER_HOME": str(home),
            "HEADWATER_ALERTS_FILE": str(home / "alerts.yaml"),
            "HEADWATER_ALERTS_SLACK_URL": slack.url,
            "HEADWATER_ALERTS_HOOK_URL": hook.url,
            "HEADWATER_INCIDENT_SETTLE": settle,
        }
        found = Site(LocalStack(home), slack, hook, variables)
        try:
            found.run("up", "--clock", clock)
            variables |= found.stack.environment()
            yield found
        finally:
            found.stack.destroy()
