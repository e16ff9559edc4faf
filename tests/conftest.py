"""What tests stand on: a real PostgreSQL, a migrated warehouse of their own, a landing, a real HTTP server.

HEADWATER_TEST_POSTGRES points the suite at another server, as postgresql://superuser:password@host:port/postgres.
It must be one to throw away: Headwater's roles are given a test's password there.

The suite may run in several processes (`-n 3`): each has fixtures of its own, and names on a shared
server differ.

Some hundred tests start a process that imports their module, and this one with it, only to be killed: what takes long
to import is imported where it is needed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.http.pace import PACES
from connectors.ingest import Destination
from connectors.unsaid import UNSAID
from deployments.local.postgres import LocalPostgres
from deployments.local.server import PostgresServer

ROLE_PASSWORD = "test-only"
_PROCESS = uuid4().hex[:8]
"""In the names of what this process makes on a server that others may use at the same time."""
_ROLES_LOCK = 7_201_305  # any number that nobody else locks on a server made for tests


def pytest_configure() -> None:
    from hypothesis import HealthCheck, settings

    # As the Makefile has it: nothing that a test starts phones home.
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    # Machines are noisy: an example that took long once is no failure.
    settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("headwater")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from tests.scheduling import rank

    items.sort(key=lambda item: rank(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.scheduling import Together

    return Together(config, log)


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server, as its superuser."""

    url: URL
    copies_by: str = "wal_log"
    """How a template is copied; the default suits a server that others use."""

    @classmethod
    def of(cls, local: PostgresServer) -> Server:
        return cls(
            URL.create("postgresql+psycopg", local.superuser, local.password, local.host, local.port, "postgres")
        )

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=self.url.host,
            port=self.url.port,
            user=self.url.username,
            password=str(self.url.password),
            dbname=database,
            autocommit=True,
            options="-c timezone=UTC",
        )

    def create_database(
        self, name: str, *, template: str = "template1", owner: str = "postgres", tablespace: str = "pg_default"
    ) -> None:
        with self.connect() as connection:
            connection.execute(
                sql.SQL("create database {} template {} owner {} tablespace {} strategy {}").format(
                    *map(sql.Identifier, (name, template, owner, tablespace, self.copies_by))
                )
            )

    def drop_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(autouse=True)
def strangers() -> None:
    """A port that is given out again is another host: it has asked nobody to leave it alone."""
    PACES._by_origin.clear()
    UNSAID.forget_all()  # a password of one test is a word in another


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole run."""
    if configured := os.environ.get("HEADWATER_TEST_POSTGRES"):
        yield Server(make_url(configured))
        return
    local = LocalPostgres(tmp_path_factory.mktemp("postgres"))
    try:
        # Files that the system copies are less than half the work of pages that are logged, a thousand times a run.
        server = replace(Server.of(local.start()), copies_by="file_copy")
        with server.connect() as connection:
            connection.execute("alter system set file_copy_method = clone")
            connection.execute("alter system set fsync = off")  # a killed server loses nothing by it; only a machine
            connection.execute("select pg_reload_conf()")
        yield server
    finally:
        local.destroy()


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A warehouse of one test, migrated, with its roles."""

    server: Server
    database: str

    def url(self, role: str) -> URL:
        return self.server.url.set(username=f"headwater_{role}", password=ROLE_PASSWORD, database=self.database)

    def connect(self, role: str) -> psycopg.Connection:
        url = self.url(role)
        return psycopg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=ROLE_PASSWORD,
            dbname=self.database,
            autocommit=True,
            options="-c timezone=UTC",
        )

    def query(self, statement: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows, as the superuser sees them."""
        with self.server.connect(self.database) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def execute(self, statement: str) -> None:
        with self.server.connect(self.database) as connection:
            connection.execute(statement.encode())


def create_warehouse(server: Server, name: str, *, tablespace: str = "pg_default") -> Warehouse:
    """A migrated warehouse on a server, and the roles if need be."""
    from connectors.destinations.warehouse.migrations import ROLES, upgrade

    with server.connect() as connection:
        connection.execute("select pg_advisory_lock(%s)", [_ROLES_LOCK])  # the roles are the server's; until we leave
        for role in ROLES:
            existing = connection.execute("select from pg_roles where rolname = %s", [role]).fetchone()
            verb = "create" if existing is None else "alter"
            connection.execute(
                sql.SQL("{} role {} login password {}").format(
                    sql.SQL(verb), sql.Identifier(role), sql.Literal(ROLE_PASSWORD)
                )
            )
    server.create_database(name, owner="headwater_owner", tablespace=tablespace)
    warehouse = Warehouse(server, name)
    upgrade(warehouse.url("owner"))
    return warehouse


@pytest.fixture(scope="session")
def _warehouse_template(postgres: Server) -> Iterator[str]:
    name = f"template_{_PROCESS}"
    create_warehouse(postgres, name)
    try:
        yield name
    finally:
        postgres.drop_database(name)


@pytest.fixture
def warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    """An empty warehouse of its own for each test."""
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        yield warehouse


@contextmanager
def empty_warehouse(postgres: Server, template: str) -> Iterator[Warehouse]:
    """A warehouse to be used once."""
    name = f"warehouse_{_PROCESS}_{time.monotonic_ns()}"
    postgres.create_database(name, template=template, owner="headwater_owner")
    with postgres.connect() as connection:  # a template's grants are not copied with it
        for grant in (
            "create on database {} to headwater_loader, headwater_transformer",
            "temporary on database {} to headwater_transformer",
        ):
            connection.execute(sql.SQL("grant " + grant).format(sql.Identifier(name)))
    try:
        yield Warehouse(postgres, name)
    finally:
        postgres.drop_database(name)


@pytest.fixture
def landing_folder(tmp_path: Path) -> Path:
    return tmp_path / "landing"


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A Prefect server for the whole run, which this process's Prefect uses; its address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with given_up_after_yield(prefect_test_harness(server_startup_timeout=120), seconds=30):
        yield str(PREFECT_API_URL.value())


class NotOverError(BaseException):
    """Nobody but who waits for it is to catch it."""


@contextmanager
def given_up_after_yield(context: AbstractContextManager[None], seconds: float) -> Iterator[None]:
    """A context whose end may take just so long.

    Prefect's harness ends by waiting until the last logs and events are sent, and has been seen to wait for ever. What
    it leaves then (its server) ends with this process.
    """

    def give_up(number: int, frame: object) -> None:
        raise NotOverError(f"not over after {seconds:g} s")

    context.__enter__()
    try:
        yield
    finally:
        before = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            with suppress(NotOverError):
                context.__exit__(None, None, None)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def s3() -> Iterator[StoreLocation]:
    """A bucket of an S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "endpoint": f"http://{host}:{port}",
    }
    boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    ).create_bucket(Bucket="landing")
    yield StoreLocation("s3://landing/below/here", options)
    server.stop()


@pytest.fixture
def destination(warehouse: Warehouse, landing_folder: Path) -> Destination:
    return Destination(warehouse.url("loader"), Landing(StoreLocation(landing_folder.as_uri())))


@pytest.fixture
def source_database(postgres: Server) -> Iterator[Callable[[str], psycopg.Connection]]:
    """A database to read from: called with statements, it returns a connection to it."""
    name = f"source_{_PROCESS}_{time.monotonic_ns()}"
    postgres.create_database(name)
    connection = postgres.connect(name)

    def prepare(statements: str = "select") -> psycopg.Connection:
        connection.execute(statements.encode())
        return connection

    try:
        yield prepare
    finally:
        connection.close()
        postgres.drop_database(name)


@dataclass(slots=True)
class Request:
    """What the API was asked."""

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """What the API says: a body (bytes as they are, a function that writes them, anything else as JSON)."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    """Send only so many bytes of the body, then hang up."""


@dataclass(slots=True)
class Api:
    """A real HTTP server on loopback that answers what the test tells it to."""

    url: str
    answer: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)


@pytest.fixture
def api() -> Iterator[Api]:
    with served_api() as served:
        yield served


@contextmanager
def served_api() -> Iterator[Api]:
    """An API that answers 404 until it is told otherwise."""
    served = Api("", lambda _: Answer({}, 404))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait for each other's acknowledgement

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parameters = dict(parse_qsl(parts.query))
            request = Request(parts.path, parameters, dict(self.headers.items()), self.command, sent)
            served.requests.append(request)
            answer = served.answer(request)
            if callable(answer.body):
                self.send_response(answer.status)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                with suppress(OSError):  # a client that has had enough hangs up
                    answer.body(self.wfile)
                self.close_connection = True
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if answer.cut_at is None else body[: answer.cut_at])
            self.close_connection = answer.cut_at is not None

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has had enough hangs up
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
