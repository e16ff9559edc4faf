"""The image, built step by step, and all of the services, as compose.yaml and compose.demo.yaml have them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.containers import secrets
from tests.deployments.containers.podman import FOLDER, ROOT, Podman

pytestmark = pytest.mark.containers

DEMO_ROWS = 336_776
_HEALTHY_SECONDS = 300.0


class Stack:
    """The running services."""

    def __init__(self, podman: Podman, env: Path) -> None:
        self.podman = podman
        self.env = env
        self.secrets = dict(line.split("=") for line in env.read_text().splitlines() if not line.startswith("#"))

    def compose(self, *arguments: str) -> str:
        files = ("-f", "compose.yaml", "-f", "compose.demo.yaml")
        done = self.podman("podman-compose", "--env-file", str(self.env), *files, *arguments)
        return done.stdout + done.stderr

    def up(self, *services: str) -> None:
        """Start services, and wait until the health checks of those that have one say that they are well.

        Docker does both. podman leaves it to systemd to ask the health checks, which is not taken for granted here.
        """
        self.compose("up", "--detach", "--no-build", "--no-deps", *services)
        deadline = time.monotonic() + _HEALTHY_SECONDS
        for service in services:
            while self.podman("podman", "healthcheck", "run", self.name(service), check=False).returncode:
                assert time.monotonic() < deadline, f"{service}: {self.logs(service)}"
                time.sleep(1)

    def name(self, service: str) -> str:
        return f"headwater_{service}_1"

    def logs(self, service: str) -> str:
        done = self.podman("podman", "logs", "--tail", "60", self.name(service))
        return done.stdout + done.stderr

    def exec(self, service: str, *command: str, check: bool = True) -> str:
        done = self.podman("podman", "exec", self.name(service), *command, check=check)
        return done.stdout + done.stderr

    def run(self, deployment: str) -> None:
        """Have a worker run a deployment, and wait for its end."""
        said = self.exec("worker", "prefect", "deployment", "run", deployment, "--watch")
        assert "Completed" in said, said[-3000:] + self.logs("worker")

    def inspect(self, service: str, what: str) -> str:
        return self.podman("podman", "inspect", "--format", what, self.name(service)).stdout.strip()

    def query(self, statement: str) -> str:
        psql = ("psql", "-h", "127.0.0.1", "-U", "headwater_reader", "-d", "headwater", "-Atc", statement)
        password = f"PGPASSWORD={self.secrets['HEADWATER_READER_PASSWORD']}"
        return self.exec("postgres", "env", password, *psql).strip()

    def get(self, url: str, *arguments: str) -> tuple[int, str]:
        """Ask a port that is published, as a browser on this machine does."""
        said = self.podman("curl", "--silent", "--write-out", "\n%{http_code}", *arguments, url).stdout
        body, _, status = said.rpartition("\n")
        return int(status), body


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """The place, with both images built."""
    Podman.install()
    place = Podman(Path(os.environ.get("HEADWATER_TEST_CONTAINERS") or ROOT / ".venv/containers"))
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    place.stand_ins(base[1])
    place.build("headwater", "headwater:local")
    place.build("demo", "headwater-demo:local")
    place.open()
    try:
        yield place
    finally:
        place.close()


@pytest.fixture(scope="module")
def stack(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """All services, in the order in which they wait for each other."""
    env = tmp_path_factory.mktemp("compose") / ".env"
    made = podman("podman", "run", "--rm", "--network=none", "headwater:local", "python", "-m", secrets.__name__)
    env.write_text(made.stdout)
    stack = Stack(podman, env)
    stack.up("postgres", "s3")
    stack.up("prefect-server", "demo")
    stack.compose("up", "--no-build", "--no-deps", "setup")
    assert stack.inspect("setup", "{{.State.ExitCode}}") == "0", stack.logs("setup")
    stack.up("worker", "status-page")
    stack.compose("up", "--detach", "--no-build", "--no-deps", "watcher")
    return stack


def test_the_image_has_no_compiler_no_package_manager_of_its_own_and_no_tests(podman: Podman) -> None:
    def inside(script: str) -> str:
        run = ("podman", "run", "--rm", "--network=none", "--read-only", "--cap-drop=all", "headwater:local")
        return podman(*run, "sh", "-c", script).stdout

    assert inside("for each in cc gcc g++ c++ ld as make; do command -v $each; done; echo end") == "end\n"
    assert inside("ls /opt/headwater/venv/bin | grep -c '^pip' || true").strip() == "0"
    assert set(inside("ls /opt/headwater").split()) == {
        *("LICENSE", "README.md", "connectors", "dbt", "deployments", "flows", "prefect.yaml", "pyproject.toml"),
        *("prepared", "tasks", "venv"),
    }
    assert "sources" in inside("headwater --help")


def test_a_container_may_write_where_it_must_and_nowhere_else(stack: Stack) -> None:
    for service in ("worker", "prefect-server", "watcher", "demo", "status-page"):
        assert stack.exec(service, "id", "-u").strip() == "10001"
        assert "Read-only" in stack.exec(service, "sh", "-c", "echo > /opt/headwater/x", check=False)
        assert "Read-only" in stack.exec(service, "sh", "-c", "echo > /etc/x", check=False)
        status = stack.exec(service, "cat", "/proc/1/status")
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert stack.exec(service, "cat", "/proc/1/comm").strip() == "tini"


def test_a_worker_knows_no_password_but_that_of_the_server(stack: Stack) -> None:
    told = stack.exec("worker", "env")
    known = {name for name, value in stack.secrets.items() if value in told}
    assert known == {"HEADWATER_PREFECT_PASSWORD"}


def test_the_server_asks_for_its_password(stack: Stack) -> None:
    api = ("-X", "POST", "-H", "Content-Type: application/json", "-d", "{}")
    flows = "http://127.0.0.1:4200/api/flows/filter"
    assert stack.get(flows, *api)[0] == 401
    assert stack.get(flows, "-u", "admin:wrong", *api)[0] == 401
    status, body = stack.get(flows, "-u", f"admin:{stack.secrets['HEADWATER_PREFECT_PASSWORD']}", *api)
    assert status == 200
    assert {each["name"] for each in json.loads(body)} >= {"ingest", "transform", "pipeline"}
    assert stack.get("http://127.0.0.1:4200/")[0] == 200  # the dashboard, which asks for it


def test_the_object_store_asks_for_its_key(stack: Stack) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://s3:8333/headwater?list-type=2').status)"
    assert "403" in stack.exec("worker", "python", "-c", ask, check=False)
    for port in (8888, 9333, 8080):  # what asks for none is not to be reached
        reach = f"import socket; socket.create_connection(('s3', {port}), 3)"
        assert "refused" in stack.exec("worker", "python", "-c", reach, check=False)


def test_a_run_lands_in_the_object_store_and_makes_the_page(stack: Stack) -> None:
    stack.run("ingest/operations-db")
    count = (
        "import obstore; from connectors.object_store import open_store;"
        "from tasks.credentials import PrefectConnections; from connectors.ingest import LANDING;"
        "store = open_store(PrefectConnections().object_store(LANDING));"
        "keys = [each['path'] for page in obstore.list(store) for each in page];"
        "print('manifests:', sum(key.endswith('manifest.json') for key in keys))"
    )
    said = stack.exec("worker", "python", "-c", count)
    found = re.search(r"^manifests: (\d+)$", said, re.MULTILINE)
    assert found, said
    assert int(found[1]) >= 3  # planes, airports, airlines
    status, page = stack.get("http://127.0.0.1:8080/")
    assert status == 200
    assert "operations_db" in page


def test_time_passes_in_the_demo(stack: Stack) -> None:
    said = stack.exec("demo", "python", "-m", "deployments.containers.demo", "advance", "12h")
    assert said == "It is now 2014-01-01T05:00:00Z in the demo.\n"


def test_the_pipeline_runs(stack: Stack) -> None:
    stack.run("pipeline/nyc")
    assert 0.99 * DEMO_ROWS < int(stack.query("select count(*) from serving.fct_flights")) <= DEMO_ROWS


@pytest.mark.parametrize("service", ["worker", "watcher", "status-page", "demo", "prefect-server", "s3", "postgres"])
def test_a_service_ends_when_it_is_told_to(stack: Stack, service: str) -> None:
    """The last tests: what ends is not started again."""
    began = time.monotonic()
    stack.podman("podman", "stop", "--time", "120", stack.name(service))
    assert time.monotonic() - began < 100
    # 137 would be SIGKILL: nobody had listened.
    assert stack.inspect(service, "{{.State.ExitCode}}") in {"0", "143"}, stack.logs(service)
