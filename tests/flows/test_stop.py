"""SIGTERM, at any instant: a run breaks off within seconds, leaves what an error would, and the next one need not wait.

`make test` stops an ingest and a transform where it is hardest, `make chaos` at every named instant, and by
`prefect flow-run cancel` of runs of a real worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment

from connectors.connections import Database, EnvironmentConnections
from connectors.failpoints import FAILPOINTS, TRANSFORM_FAILPOINTS
from connectors.incidents.checks import take_stock
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from deployments.local.layout import PROJECT_ROOT
from tasks.credentials import WAREHOUSE_WATCHER, register
from tests.conftest import Server, Warehouse
from tests.connectors.examples import Prepare
from tests.flows.transforms import Nursery, Transforms
from tests.waiting import until

INGEST = "from flows.ingest import ingest; ingest('operations_db', streams=['planes'])"
SECONDS = 15
"""How long a run may take to break off, on a machine that is busy; Prefect's worker gives it 30."""
COMMITTED = FAILPOINTS.index("committed")
PUBLISHED = TRANSFORM_FAILPOINTS.index("generation-served")


class Ingests:
    """Runs of an ingest of one table, each a process of its own."""

    def __init__(
        self, nursery: Nursery, warehouse: Warehouse, source: psycopg.Connection, landing: Path, server: Server
    ) -> None:
        self.nursery = nursery
        self.warehouse = warehouse
        self.source = source
        url = server.url.set(database=source.info.dbname).render_as_string(hide_password=False)
        urls = {"HEADWATER_OPERATIONS_DB_URL": url, "HEADWATER_LANDING_URL": landing.as_uri()}
        for role in ("loader", "watcher"):
            urls[f"HEADWATER_WAREHOUSE_{role.upper()}_URL"] = warehouse.url(role).render_as_string(hide_password=False)
        needed = [Database("operations_db"), LANDING, WAREHOUSE_LOADER, WAREHOUSE_WATCHER]
        register(EnvironmentConnections(urls), needed)

    def begin(self, failpoint: str = "") -> int:
        return self.nursery.begin({"HEADWATER_FAILPOINT": failpoint, "HEADWATER_FAILPOINT_SIGNAL": "TERM"}, INGEST)

    def change(self) -> None:
        self.source.execute(
            "insert into planes select 'N' || (select count(*) from planes) + n, repeat(md5(n::text), 100), now()"
            " from generate_series(1, 300) n"
        )

    def raw(self) -> list[tuple[object, ...]]:
        if self.warehouse.query("select to_regclass('raw_operations_db.planes')") == [(None,)]:
            return []
        return self.warehouse.query("select tailnum from raw_operations_db.planes order by 1")

    def there(self) -> list[tuple[object, ...]]:
        return self.source.execute("select tailnum from planes order by 1").fetchall()

    def check_stopped(self, *, committed: bool) -> None:
        """Nothing is half done, nobody holds anything, and nobody is alarmed."""
        [(status, error_kind)] = self.warehouse.query(
            "select status, error_kind from ops.loads order by started_at desc limit 1"
        )
        assert status == ("loaded" if committed else "failed") or (status, error_kind) == ("landed", "StoppedError")
        assert error_kind == (None if committed else "StoppedError")
        assert self.warehouse.query("select holder from ops.streams") == [(None,)], "the lease was given back"
        assert self.warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
        assert sessions(self.warehouse) == []
        take_stock(self.warehouse.url("watcher"), ["loads"])
        assert self.warehouse.query("select title from ops.signs") == [], "a run that was told to stop is no trouble"

    def check_next(self) -> None:
        begun = time.monotonic()
        self.begin()
        assert self.nursery.end() == 0, "\n".join(self.nursery.said()[-40:])
        assert time.monotonic() - begun < 4 * SECONDS
        assert self.raw() == self.there()


def sessions(warehouse: Warehouse) -> list[tuple[object, ...]]:
    """Who is connected for loads and builds."""
    return warehouse.query(
        "select usename, query from pg_stat_activity where datname = current_database()"
        " and usename in ('headwater_loader', 'headwater_transformer', 'headwater_publisher')"
    )


@pytest.fixture
def ingests(
    nursery: Nursery, warehouse: Warehouse, source_database: Prepare, landing_folder: Path, postgres: Server
) -> Ingests:
    source = source_database(
        "create table planes (tailnum text primary key, v text, updated_at timestamptz not null);"
        "create table airports (faa text primary key, updated_at timestamptz);"
        "create table airlines (carrier text primary key, updated_at timestamptz)"
    )
    found = Ingests(nursery, warehouse, source, landing_folder, postgres)
    found.change()
    return found


@contextmanager
def timed() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SECONDS


def test_an_ingest_that_waits_for_its_source_breaks_off(ingests: Ingests) -> None:
    waits = "select from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
    database = [ingests.source.info.dbname]
    with ingests.source.transaction():
        ingests.source.execute("lock table planes")
        pid = ingests.begin()
        until(lambda: ingests.warehouse.query(waits, database), "it waits for the table", seconds=120)
        with timed():
            os.kill(pid, signal.SIGTERM)
            assert ingests.nursery.end() == -signal.SIGTERM, "\n".join(ingests.nursery.said()[-40:])
        assert not ingests.warehouse.query(waits, database), "its statement at the source is gone too"
    ingests.check_stopped(committed=False)
    ingests.check_next()


@pytest.mark.chaos
def test_an_ingest_is_told_to_stop_at_each_named_instant(ingests: Ingests) -> None:
    for instant in FAILPOINTS:
        before = ingests.raw()
        ingests.change()
        ingests.begin(instant)
        status = ingests.nursery.end()
        assert status == -signal.SIGTERM, (instant, "\n".join(ingests.nursery.said()[-40:]))
        # What has begun to commit when the signal comes may come to its end.
        committed = ingests.raw() != before
        assert committed or FAILPOINTS.index(instant) < COMMITTED
        if instant != "lease-taken":
            ingests.check_stopped(committed=committed)
        ingests.check_next()


def _told_to_stop(transforms: Transforms, pid: int) -> None:
    with timed():
        os.kill(pid, signal.SIGTERM)
        assert transforms.nursery.end() == -signal.SIGTERM, "\n".join(transforms.nursery.said()[-40:])


def test_a_transform_that_is_told_to_stop_ends_its_statements_and_gives_its_lease_back(transforms: Transforms) -> None:
    generation = transforms.generation()
    waits = "select from pg_stat_activity where usename = 'headwater_transformer' and datname = current_database()"
    waits += " and wait_event_type = 'Lock'"
    with transforms.warehouse.server.connect(transforms.warehouse.database) as other, other.transaction():
        other.execute("lock table raw_operations_db.airlines")
        pid = transforms.begin()
        until(lambda: transforms.warehouse.query(waits), "a statement of dbt waits", seconds=240)
        _told_to_stop(transforms, pid)
        assert transforms.warehouse.query(waits) == [], "no statement is left for the server to find"
        assert transforms.warehouse.query("select holder from ops.streams where source = 'dbt'") == [(None,)]
    assert transforms.generation() == generation


@pytest.mark.chaos
@pytest.mark.parametrize("instant", TRANSFORM_FAILPOINTS)
def test_a_transform_is_told_to_stop_at_a_named_instant(transforms: Transforms, instant: str) -> None:
    generation = transforms.generation() or 0
    transforms.begin(instant, sends="TERM")
    assert transforms.nursery.end() == -signal.SIGTERM, "\n".join(transforms.nursery.said()[-40:])
    is_published = TRANSFORM_FAILPOINTS.index(instant) >= PUBLISHED
    assert transforms.generation() == generation + is_published
    assert transforms.warehouse.query("select holder from ops.streams where source = 'dbt'") == [(None,)]
    assert sessions(transforms.warehouse) == []
    transforms.run()


@pytest.mark.chaos
def test_a_second_signal_while_it_breaks_off_is_as_safe_as_a_kill(ingests: Ingests) -> None:
    with ingests.source.transaction():
        ingests.source.execute("lock table planes")
        pid = ingests.begin()
        waits = "select from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
        until(lambda: ingests.warehouse.query(waits, [ingests.source.info.dbname]), "it waits", seconds=120)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        assert ingests.nursery.end() in (-signal.SIGTERM, -signal.SIGKILL)
    ingests.check_next()


@pytest.fixture
def worker(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A real worker of the work pool, with all deployments; called with dbt's folders, it starts."""
    from deployments.deploy import deploy_all, ensure_work_pool

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    ensure_work_pool()
    deploy_all()
    started: list[subprocess.Popen[bytes]] = []

    def start(target: str, project: str) -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "headwater", "--name", "stop"]
        log = (tmp_path / "worker.log").open("wb")
        started.append(
            subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env={
                    **os.environ,
                    "HEADWATER_DBT_TARGET": target,
                    "HEADWATER_DBT_PROJECT": project,
                    "PREFECT_WORKER_QUERY_SECONDS": "1",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _cancelled(run: FlowRun) -> None:
    """Cancel a run as people do, and wait until it is over."""
    command = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run.id)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with get_client(sync_client=True) as client:
        until(lambda: client.read_flow_run(run.id).state.is_final(), "it is over", seconds=90)  # type: ignore[union-attr]
        assert client.read_flow_run(run.id).state.type == StateType.CANCELLED  # type: ignore[union-attr]


@pytest.mark.chaos
def test_runs_of_a_real_worker_that_are_cancelled_leave_nothing_behind(
    ingests: Ingests, worker: Callable[[str, str], None], transforms: Transforms, tmp_path: Path
) -> None:
    waits = "select from pg_stat_activity where datname = %s and wait_event_type = 'Lock' and state = 'active'"
    worker(str(tmp_path / "target"), transforms.nursery.environment["HEADWATER_DBT_PROJECT"])
    with ingests.source.transaction():
        ingests.source.execute("lock table planes")
        run = run_deployment(
            "ingest/operations-db", parameters={"source": "operations_db", "streams": ["planes"]}, timeout=0
        )
        until(lambda: ingests.warehouse.query(waits, [ingests.source.info.dbname]), "it waits", seconds=120)
        _cancelled(run)
    until(lambda: sessions(ingests.warehouse) == [], "its process is gone", seconds=SECONDS)
    ingests.check_stopped(committed=False)
    ingests.check_next()
    with transforms.warehouse.server.connect(transforms.warehouse.database) as other, other.transaction():
        other.execute("lock table raw_operations_db.airlines")
        run = run_deployment("transform/nyc", timeout=0)
        until(lambda: transforms.warehouse.query(waits, [transforms.warehouse.database]), "it waits", seconds=240)
        _cancelled(run)
        assert transforms.warehouse.query(waits, [transforms.warehouse.database]) == []
    assert transforms.warehouse.query("select holder from ops.streams where source = 'dbt'") == [(None,)]
    transforms.run()
