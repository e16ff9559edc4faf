"""Transforms as a worker runs them, each a process of its own that can be killed; and a reader of what they serve.

What a process imports takes longer than all else it does here, so a nursery has the libraries loaded and forks. Our own
code is imported by each child: all of it is as in a process that was just started, failpoints included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from connectors.connections import EnvironmentConnections
from deployments.local.layout import PROJECT_ROOT
from tasks.credentials import WAREHOUSE_PUBLISHER, WAREHOUSE_TRANSFORMER, WAREHOUSE_WATCHER, register
from tests.conftest import Warehouse

MARTS = ("dim_airlines", "dim_airports", "dim_planes", "fct_daily_airport_operations")
MARTS += ("fct_daily_carrier_performance", "fct_flights", "fct_weather_impact")

_NURSERY = """
import json, os, sys
import prefect.main, prefect_aws, prefect_dbt, prefect_sqlalchemy
import dbt.adapters.postgres, dbt.cli.main, dbt.include.postgres, dbt.task.build, dbt.task.docs.generate

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.environ.update(order["environment"])
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        exec(order["code"])
        sys.exit()
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
_TRANSFORM = "from flows.transform import transform; transform()"
_KEPT_TESTS = {
    # Of the sources and staging: those that find bad data.
    "unique",
    "flights_have_no_day_missing",
    "flights_are_as_many_as_usual",
    "flights_are_recent",
    "weather_is_recent",
    "flights_are_of_registered_carriers",
    "flights_have_what_every_flight_has",
    "flight_measures_are_plausible",
    # Of what is built: those that compare with what it is built from.
    "planes_have_one_version_at_a_time",
    "flights_equal_a_rebuild",
    "airport_departures_add_up_to_the_flights",
    "planes_are_keyed_by_tail_number",
}


def small_project(folder: Path) -> Path:
    """A copy of the dbt project with a few of its tests, which take most of the time of a build, and all its models but
    those of the pipeline's own history: each run moves them."""
    shutil.copytree(PROJECT_ROOT / "dbt", folder, ignore=shutil.ignore_patterns("target", "logs", "ops", "pipeline"))
    for path in [*folder.glob("models/**/*.yml"), *folder.glob("snapshots/**/*.yml")]:
        content = yaml.safe_load(path.read_text())
        if "unit_tests" in content:
            path.unlink()
        else:
            path.write_text(yaml.safe_dump(_with_kept_tests(content), sort_keys=False))
    return folder


def _with_kept_tests(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_kept_tests(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _with_kept_tests(each) for name, each in node.items() if name != "data_tests"}
    if tests := [test for test in node.get("data_tests", ()) if _name(test) in _KEPT_TESTS]:
        kept["data_tests"] = tests
    return kept


def _name(test: Any) -> str:
    if isinstance(test, str):
        return test
    [(kind, arguments)] = test.items()
    return str(arguments.get("name", kind))


class Nursery:
    """Where transforms are begun, one at a time. Use as a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._log = folder / "transform.log"
        self.environment = environment
        self._child = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env={**os.environ, **self.environment},
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child:  # of a test that failed
            self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def begin(self, environment: dict[str, str], code: str = _TRANSFORM) -> int:
        """Begin one, or whatever the code says; its process id."""
        self._log.unlink(missing_ok=True)
        assert self._process.stdin is not None
        order = {"environment": environment, "log": str(self._log), "code": code}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        self._child = int(self._line())
        return self._child

    def is_busy(self) -> bool:
        return psutil.pid_exists(self._child)

    def kill(self) -> int:
        """Kill -9, the process and all that it has begun; how it ended."""
        with suppress(ProcessLookupError):  # by itself
            os.killpg(self._child, signal.SIGKILL)
        return self.end()

    def end(self) -> int:
        """Wait for the end of the process.

        Returns:
            Its exit code, or the negative number of the signal that ended it.
        """
        self._child, status = 0, self._line()
        return os.waitstatus_to_exitcode(int(status))

    def said(self) -> list[str]:
        """The lines of its log."""
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Transforms:
    """Transforms of one warehouse.

    Args:
        target: where dbt leaves its files.
    """

    def __init__(self, nursery: Nursery, warehouse: Warehouse, target: Path) -> None:
        self.nursery = nursery
        self.warehouse = warehouse
        self.target = target
        self.lines = 150
        """How many one says that nobody disturbs; about so many, until there was one."""

    def register(self) -> None:
        """Have the Prefect server point to this warehouse."""
        urls = {
            f"HEADWATER_WAREHOUSE_{role.upper()}_URL": self.warehouse.url(role).render_as_string(hide_password=False)
            for role in ("transformer", "publisher", "watcher")
        }
        register(EnvironmentConnections(urls), [WAREHOUSE_TRANSFORMER, WAREHOUSE_PUBLISHER, WAREHOUSE_WATCHER])

    def begin(self, failpoint: str = "", *, sends: str = "KILL") -> int:
        """Begin one, which sends itself a signal at a named instant; its process id."""
        return self.nursery.begin(
            {
                "HEADWATER_DBT_TARGET": str(self.target),
                "HEADWATER_FAILPOINT": failpoint,
                "HEADWATER_FAILPOINT_SIGNAL": sends,
            }
        )

    def run(self) -> None:
        """One that nobody disturbs, and that must succeed."""
        assert self.try_to_run() == 0, "\n".join(self.nursery.said()[-40:])
        self.lines = len(self.nursery.said())

    def try_to_run(self) -> int:
        """One that nobody disturbs; its exit code."""
        self.begin()
        return self.nursery.end()

    def generation(self) -> int | None:
        """The newest one that was published."""
        [(generation,)] = self.warehouse.query("select max(generation) from ops.publishes")
        return generation if generation is None else int(generation)

    def content(self, schema: str = "serving") -> tuple[str, ...]:
        """A hash of each mart's rows."""
        return tuple(self.warehouse.query(f"select {_hashes(schema)}")[0])

    @staticmethod
    def completed() -> int:
        """How many runs Prefect says succeeded."""
        state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
        with get_client(sync_client=True) as client:
            return len(client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state)))


def _hashes(schema: str) -> str:
    return ", ".join(
        f"(select md5(coalesce(string_agg(md5(t::text), '' order by md5(t::text)), '')) from {schema}.{mart} t)"
        for mart in MARTS
    )


class ServingReader:
    """BI, ten times a second: all marts and their generation, each look one statement of the reader.

    Use as a context manager; leaving it fails if it had an error, or saw something that it must not see.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._trouble: BaseException | None = None
        self.looks = 0
        self.seen: list[tuple[list[int], tuple[str, ...]]] = []
        """Generations and contents that differ from those of the look before."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._judge()

    def _watch(self) -> None:
        look = f"select (select array_agg(distinct generation) from serving.data_status), {_hashes('serving')}"
        try:
            with self._warehouse.connect("reader") as connection:
                connection.execute("set statement_timeout = '5s'")  # nor is it kept waiting
                while not self._stop.is_set():
                    row = connection.execute(look.encode()).fetchone()
                    assert row is not None
                    if not self.seen or self.seen[-1] != (row[0], row[1:]):
                        self.seen.append((row[0], row[1:]))
                    self.looks += 1
                    self._stop.wait(0.1)
        except (psycopg.Error, AssertionError) as error:
            self._trouble = error

    def _judge(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        assert self.looks > 10, "the reader hardly looked"
        assert all(len(generations) == 1 for generations, _ in self.seen), "a mixed generation"
        numbers = [generation for (generation,), _ in self.seen]
        assert numbers == sorted(set(numbers)), "a generation changed while it was served, or went back"
