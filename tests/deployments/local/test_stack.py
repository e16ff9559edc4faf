from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from deployments.local import processes
from deployments.local.errors import LocalStackError
from deployments.local.layout import PROJECT_ROOT
from deployments.local.processes import Service
from deployments.local.stack import LocalStack
from deployments.local.state import StateFile


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path / "home")
    try:
        yield stack
    finally:
        stack.destroy()


@pytest.fixture
def web(stack: LocalStack, tmp_path: Path) -> Service:
    """A service with an address that is ready in a moment; not started."""
    with stack.exclusive("promising a port"):
        port = stack.port("web", 8999)
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
    return Service("web", command, {}, health_url=f"http://127.0.0.1:{port}/", stop_seconds=3.0)


def conditions(stack: LocalStack) -> dict[str, str]:
    return {service.name: service.condition for service in stack.status()}


def connect(url: str, *, database: str = "headwater") -> psycopg.Connection:
    parts = make_url(url).set(drivername="postgresql", database=database)
    return psycopg.connect(parts.render_as_string(hide_password=False))


def test_up_brings_everything_up_in_order_and_down_takes_it_down_without_losing_data(stack: LocalStack) -> None:
    seen: list[str] = []

    def migrate(stack: LocalStack) -> None:
        with connect(stack.environment()["HEADWATER_WAREHOUSE_LOADER_URL"]) as connection:
            connection.execute("create schema raw")
            connection.execute("create table raw.kept as select 42 as answer")
        seen.append("migrate")

    def systems(_stack: LocalStack) -> dict[str, str]:
        seen.append("systems")
        return {"HEADWATER_EXTRA": "it's here"}

    def deploy(stack: LocalStack) -> None:
        assert processes.answers(f"{stack.environment()['PREFECT_API_URL']}/health")
        assert stack.environment()["HEADWATER_EXTRA"] == "it's here"
        assert "prefect-worker" not in conditions(stack)
        seen.append("deploy")

    environment_file = stack.up(migrate=migrate, systems=systems, deploy=deploy)
    assert sorted(seen[:2]) == ["migrate", "systems"]
    assert seen[2:] == ["deploy"]
    assert conditions(stack) == dict.fromkeys(["postgres", "prefect-server", "prefect-worker", "watcher"], "running")
    assert "export HEADWATER_EXTRA='it'\"'\"'s here'" in environment_file.read_text()

    environment = stack.environment()
    with (
        connect(environment["HEADWATER_WAREHOUSE_READER_URL"]) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute("create schema mine")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(environment["HEADWATER_WAREHOUSE_READER_URL"], database="prefect")
    # The Prefect server alone knows how to reach its database.
    assert not any("asyncpg" in value for value in environment.values())
    records = StateFile(stack.home).read().processes.values()

    before = {service.name: service.pid for service in stack.status()}
    stack.up(systems=systems)
    assert {service.name: service.pid for service in stack.status()} == before

    assert stack.down() == ("watcher", "prefect-worker", "prefect-server", "postgres")
    assert not any(processes.is_running(record) for record in records)
    assert set(conditions(stack).values()) == {"stopped"}
    assert stack.down() == ()
    stack.start_postgres()
    with connect(environment["HEADWATER_WAREHOUSE_LOADER_URL"]) as connection:
        assert connection.execute("select answer from raw.kept").fetchone() == (42,)


def test_nothing_runs_before_the_first_up_and_saying_so_leaves_no_trace(stack: LocalStack) -> None:
    assert stack.down() == ()
    assert stack.status() == ()
    with pytest.raises(LocalStackError, match="no database yet"):
        stack.environment()
    assert not stack.home.exists()


def test_a_running_service_is_left_alone_and_one_with_new_settings_restarted(stack: LocalStack, web: Service) -> None:
    first = stack.start_service(web)
    assert stack.start_service(web).pid == first.pid
    second = stack.start_service(replace(web, environment={"SETTING": "new"}))
    assert second.pid != first.pid
    assert not processes.is_running(first)
    assert stack.down() == ("web",)


def test_a_service_that_was_killed_is_seen_as_dead_and_starts_again_on_its_port(
    stack: LocalStack, web: Service
) -> None:
    record = stack.start_service(web)
    assert conditions(stack)["web"] == "running"
    os.kill(record.pid, signal.SIGSTOP)
    assert conditions(stack)["web"] == "not answering"
    os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while conditions(stack)["web"] != "died" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert conditions(stack)["web"] == "died"
    again = stack.start_service(web)
    assert again.health_url == record.health_url
    assert conditions(stack)["web"] == "running"


def test_a_service_that_fails_to_start_is_remembered_as_failed(stack: LocalStack, web: Service) -> None:
    with pytest.raises(LocalStackError, match="No module named nonsense"):
        stack.start_service(replace(web, command=(sys.executable, "-m", "nonsense")))
    assert conditions(stack)["web"] == "failed"
    stack.start_service(web)
    assert conditions(stack)["web"] == "running"


def test_an_optional_service_that_was_stopped_is_not_missed(stack: LocalStack, web: Service) -> None:
    optional = replace(web, is_optional=True)
    stack.start_service(optional)
    assert conditions(stack)["web"] == "running"
    assert stack.stop_service("web")
    assert "web" not in conditions(stack)
    assert not stack.stop_service("web")
    stack.start_service(optional)
    assert stack.down() == ("web",)
    assert "web" not in conditions(stack)


def test_a_port_stays_the_services_own_while_it_runs(stack: LocalStack, web: Service) -> None:
    stack.start_service(web)
    assert web.health_url == f"http://127.0.0.1:{stack.port('web', 1)}/"


LATE = """
import sys, time
from http.server import HTTPServer, SimpleHTTPRequestHandler
time.sleep(1)  # the imports of something bigger
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.mark.parametrize("times", [1, 3])
def test_a_port_that_another_stack_takes_while_a_service_starts_is_left_to_it(
    stack: LocalStack, tmp_path: Path, times: int
) -> None:
    """The other answers there as ours would, and is not taken for it."""
    others: list[ThreadingHTTPServer] = []
    tried: list[int] = []

    def late(port: int) -> Service:
        tried.append(port)
        if len(others) < times:
            others.append(ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler))
            threading.Thread(target=others[-1].serve_forever, daemon=True).start()
        return Service("web", (sys.executable, "-c", LATE, str(port)), {}, health_url=f"http://127.0.0.1:{port}/")

    try:
        if times == 1:
            record = stack.start_on_port("web", 8999, late)
            assert record.health_url == f"http://127.0.0.1:{tried[1]}/"
            assert stack.port("web", 8999) == tried[1] != tried[0]
            assert conditions(stack)["web"] == "running"
        else:
            with pytest.raises(LocalStackError, match="each one tried was taken while it started"):
                stack.start_on_port("web", 8999, late)
            assert len(set(tried)) == times
    finally:
        for other in others:
            other.shutdown()
            other.server_close()


def test_two_ups_at_once_start_each_thing_once(stack: LocalStack, web: Service) -> None:
    script = """
import sys
from pathlib import Path
from deployments.local.processes import Service
from deployments.local.stack import LocalStack
stack = LocalStack(Path(sys.argv[1]))
with stack.exclusive("being one of two"):
    server = stack.start_postgres()
    record = stack.start_service(Service("web", tuple(sys.argv[3:]), {}, health_url=sys.argv[2]))
print(server.pid, record.pid)
"""
    command = [sys.executable, "-c", script, str(stack.home), str(web.health_url), *web.command]
    ups = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) for _ in range(2)]
    outputs = {up.communicate(timeout=60)[0] for up in ups}
    assert len(outputs) == 1
    postgres, served = (int(pid) for pid in outputs.pop().split())
    assert {service.name: service.pid for service in stack.status()} == {"postgres": postgres, "web": served}


def test_the_first_error_of_steps_side_by_side_is_raised_when_the_others_have_ended(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def slow_server(_stack: LocalStack) -> None:
        time.sleep(0.2)
        ended.append("server")

    def migrate(_stack: LocalStack) -> None:
        raise LocalStackError("The migration failed.", "here", "mend it")

    # The real server takes seconds and has its own test above.
    monkeypatch.setattr(LocalStack, "start_prefect_server", slow_server)
    with pytest.raises(LocalStackError, match="The migration failed"):
        stack.up(migrate=migrate)
    assert ended == ["server"]
    assert conditions(stack) == {"postgres": "running"}
