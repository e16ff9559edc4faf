"""The doctor: a healthy installation is said to be one, each thing that is wrong has its line and its remedy, and none
hides another."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from connectors.connections import EnvironmentConnections
from connectors.destinations.warehouse.migrations import upgrade
from connectors.errors import ConfigurationError
from connectors.registry import SOURCES
from deployments.cli import app
from deployments.deploy import ensure_work_pool
from deployments.doctor import prefect_server as server_checks
from deployments.doctor import warehouse as warehouse_checks
from deployments.doctor.addresses import own_addresses
from deployments.doctor.examination import Check, Result, State, examine
from deployments.doctor.settings import Anywhere
from deployments.work_pools.pools import PROCESS_POOL
from tasks.credentials import register, requirements
from tests.conftest import Server, Warehouse
from tests.flows.test_roles import as_the_page_has_it

PAGE = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text()


@pytest.fixture(scope="module")
def new_warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    """As docs/roles.md makes it, with the roles of the template; empty."""
    name = f"doctor_{time.monotonic_ns()}"
    as_the_page_has_it(postgres, name)
    warehouse = Warehouse(postgres, name)
    upgrade(warehouse.url("owner"))
    yield warehouse
    postgres.drop_database(name)


@pytest.fixture
def variables(
    new_warehouse: Warehouse, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """All that an installation needs; set in this process."""
    found = {
        f"HEADWATER_WAREHOUSE_{role.upper()}_URL": new_warehouse.url(role).render_as_string(hide_password=False)
        for role in ("owner", "loader", "transformer", "publisher", "watcher", "reader")
    }
    found |= {
        each.environment_variable: "a value that is long enough" for each in requirements() if each.kind == "secret"
    }
    found |= {
        "HEADWATER_LANDING_URL": (tmp_path / "landing").as_uri(),
        "HEADWATER_FLIGHTS_API_URL": "http://127.0.0.1:1",
        "HEADWATER_OPERATIONS_DB_URL": "postgresql+psycopg://operations_app:long-enough-password@127.0.0.1:1/operations",
        "HEADWATER_WEATHER_FILES_URL": tmp_path.as_uri(),
        "PREFECT_API_URL": prefect_server,
        "HEADWATER_HOME": tempfile.mkdtemp(prefix="headwater-doctor-"),  # pytest's own folders are closed to others
    }
    (tmp_path / "landing").mkdir(mode=0o700)
    Path(found["HEADWATER_HOME"]).chmod(0o755)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert set(SOURCES) == {"flights_api", "operations_db", "weather_files"}
    yield found
    shutil.rmtree(found["HEADWATER_HOME"])


def looked(*options: str) -> tuple[int, list[dict[str, str]]]:
    outcome = CliRunner().invoke(app, ["doctor", "--json", *options])
    found = json.loads(outcome.output)
    assert found["ok"] == (outcome.exit_code == 0)
    return outcome.exit_code, found["checks"]


def of(checks: list[dict[str, str]], name: str) -> list[tuple[str, str, str]]:
    return [(each["state"], each["found"], each["remedy"]) for each in checks if each["check"] == name]


def test_a_healthy_installation_is_said_to_be_one_and_only_then(variables: dict[str, str]) -> None:
    code, checks = looked()
    assert code == 1
    [(state, _, remedy)] = of(checks, "work pool") or [("", "", "")]
    assert (state, remedy) in (("wrong", "headwater deploy"), ("ok", ""))
    assert {state for state, *_ in of(checks, "settings")} <= {"warning", "ok"}

    register(EnvironmentConnections(), requirements())
    ensure_work_pool()
    heartbeat = httpx.post(
        f"{variables['PREFECT_API_URL']}/work_pools/{PROCESS_POOL}/workers/heartbeat", json={"name": "of the test"}
    )
    heartbeat.raise_for_status()
    code, checks = looked()
    bad = [each for each in checks if each["state"] == "wrong"]
    assert (code, bad) == (0, [])
    assert [each["check"] for each in checks if each["state"] == "warning"] in (["alerts"], ["passwords", "alerts"])
    names = {re.sub("^warehouse as .*", "warehouse as a role", each["check"]) for each in checks}
    assert names == set(re.findall(r"^\| `([\w ]+)` \|", PAGE, re.MULTILINE)) - {"dbt project"}
    assert not list((Path(variables["HEADWATER_LANDING_URL"].removeprefix("file://"))).iterdir()), "nothing is left"
    secrets = re.findall(r":([^:@/]+)@", " ".join(variables.values()))
    assert not [each for each in secrets if each in json.dumps(checks)]

    lines = CliRunner().invoke(app, ["doctor"]).output.splitlines()
    assert sum(line.startswith(("ok ", "warning ", "skipped ")) for line in lines) == len(checks)


def test_all_that_is_wrong_is_told_at_once_with_what_to_type(
    variables: dict[str, str], new_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser = new_warehouse.server.url.set(database=new_warehouse.database).render_as_string(hide_password=False)
    spoiled = {
        "HEADWATER_WAREHOUSE_LOADER_URL": variables["HEADWATER_WAREHOUSE_LOADER_URL"].replace(
            "test-only", "canary-wrong"
        ),
        "HEADWATER_WAREHOUSE_PUBLISHER_URL": "postgresql+psycopg://headwater_publisher:canary-far@127.0.0.1:1/headwater",
        "HEADWATER_WAREHOUSE_TRANSFORMER_URL": superuser,
        "HEADWATER_WAREHOUSE_READER_URL": "no-url-canary-5",
        "HEADWATER_LANDING_URL": "file:///proc/headwater/landing",
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
    }
    for name, value in spoiled.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HEADWATER_FLIGHTS_API_KEY")
    routing = Path(variables["HEADWATER_HOME"]) / "alerts.yaml"
    routing.write_text("channels: {chat: {kind: slack}}\nroutes: [{channels: [chat]}]")
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(routing))
    env = Path(variables["HEADWATER_HOME"]) / "env"
    env.write_text("export X=y")
    env.chmod(0o644)
    new_warehouse.execute(
        "grant select on ops.loads to headwater_reader; grant usage on schema ops to headwater_reader"
    )
    begun = time.monotonic()
    try:
        code, checks = looked()
    finally:
        new_warehouse.execute(
            "revoke select on ops.loads from headwater_reader; revoke usage on schema ops from headwater_reader"
        )
    assert time.monotonic() - begun < 60
    assert code == 1
    expected = {
        "warehouse as loader": ("refused user headwater_loader", "Correct its URL"),
        "warehouse as publisher": ("cannot be reached", "Check that it runs"),
        "warehouse as transformer": ("logs in as postgres, a superuser", "headwater_transformer"),
        "warehouse as reader": ("is not a database URL", "percent-encoded"),
        "landing": ("cannot be used", "Check that it can be created"),
        "Prefect server": ("does not answer", "headwater up"),
        "alerts": ("HEADWATER_ALERTS_CHAT_URL is set not here, and nobody can ask Prefect", "headwater register"),
        "files": ("Other users of this machine can read", f"chmod 600 {env}"),
    }
    for name, (found, remedy) in expected.items():
        [told] = of(checks, name)
        assert told[0] == "wrong", name
        assert found in told[1], name
        assert remedy in told[2], name
    assert ("wrong", "HEADWATER_FLIGHTS_API_KEY (secret) is not set.") in [each[:2] for each in of(checks, "settings")]
    roles = [(found, remedy) for _, found, remedy in of(checks, "roles")]
    assert any("headwater_reader has select on ops.loads" in found for found, _ in roles)
    assert any("revoke select on table ops.loads from headwater_reader;" in remedy for _, remedy in roles)
    assert of(checks, "warehouse as watcher")[0][0] == of(checks, "clock")[0][0] == "ok", "others are looked at"
    assert of(checks, "worker")[0][0] == "skipped"
    assert "canary" not in json.dumps(checks)


def test_a_check_that_hangs_or_breaks_hides_no_other_and_ends_in_time() -> None:
    never = threading.Event()

    def hangs() -> Iterator[Result]:
        yield Result("slow", State.OK, "Half of it is fine.")
        never.wait()

    def breaks() -> Iterator[Result]:
        raise ZeroDivisionError("by zero")

    begun = time.monotonic()
    results = examine(
        [
            Check("slow", hangs, seconds=0.3),
            Check("broken", breaks),
            Check("fine", lambda: [Result("fine", State.OK, "Yes.")]),
        ]
    )
    never.set()
    assert time.monotonic() - begun < 5
    assert [(each.check, each.state, each.found) for each in results] == [
        ("slow", State.OK, "Half of it is fine."),
        ("slow", State.WRONG, "It did not end within 0.3 s."),
        ("broken", State.WRONG, "ZeroDivisionError: by zero"),
        ("fine", State.OK, "Yes."),
    ]


@contextmanager
def careless_server(address: str) -> Iterator[tuple[str, list[str]]]:
    """A server that lets everybody in, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"0")

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"http://{address}:{server.server_address[1]}/api", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(not own_addresses(), reason="this machine has no address but loopback")
@pytest.mark.parametrize("command", ["register", "deploy"])
def test_nothing_is_sent_to_a_server_elsewhere_that_lets_everybody_in(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with careless_server(own_addresses()[0]) as (url, asked):
        monkeypatch.setenv("PREFECT_API_URL", url)
        outcome = CliRunner().invoke(app, [command])
        assert isinstance(outcome.exception, ConfigurationError)
        assert "lets anybody in, without a password" in str(outcome.exception)
        assert "PREFECT_SERVER_API_AUTH_STRING" in str(outcome.exception)
        assert asked == ["/api/flows/count"]
        [wrong] = list(server_checks._access(url))
        assert wrong.state is State.WRONG


def test_a_server_with_a_password_is_passed() -> None:
    assert not server_checks.lets_strangers_in("http://127.0.0.1:1/api"), "nobody is there"
    server_checks.refuse_open_server("http://127.0.0.1:4200/api")
    server_checks.refuse_open_server(None)


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("", "wrong"),
        ("?sslmode=disable", "wrong"),
        ("?sslmode=require", "warning"),
        ("?sslmode=verify-full&sslrootcert=/ca.pem", "ok"),
    ],
)
def test_what_goes_over_a_network_in_clear_is_told(query: str, state: str) -> None:
    url = f"postgresql+psycopg://headwater_loader:a-long-password@db.example.com/headwater{query}"
    connections = Anywhere(EnvironmentConnections({"HEADWATER_WAREHOUSE_LOADER_URL": url}), has_server=False)
    [found] = list(warehouse_checks._tls(connections))
    assert found.state == state
    assert "a-long-password" not in found.found + found.remedy


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "ok"), (10.0, "warning"), (-300.0, "wrong")])
def test_clocks_that_are_apart_are_told(new_warehouse: Warehouse, ahead: float, state: str) -> None:
    url = new_warehouse.url("watcher").render_as_string(hide_password=False)
    connections = Anywhere(EnvironmentConnections({"HEADWATER_WAREHOUSE_WATCHER_URL": url}), has_server=False)
    [found] = list(warehouse_checks._clock(connections, lambda: datetime.now(UTC) + timedelta(seconds=ahead)))
    assert found.state == state
