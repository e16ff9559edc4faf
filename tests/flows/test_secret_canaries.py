"""A run in which much fails, with passwords, keys and tokens that would be found anywhere; then every byte that came of
it is looked through: logs, output, Prefect's database, the warehouse, the landing, files."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import obstore
import pytest
import zstandard
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from psycopg import sql
from sqlalchemy.engine import make_url

from connectors.alerts.routing import parse_routing
from connectors.connections import (
    Connections,
    Database,
    EnvironmentConnections,
    Requirement,
    Secret,
    Setting,
    StoreLocation,
)
from connectors.errors import HeadwaterError
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from connectors.model import Extraction, ExtractRequest, Stream
from connectors.object_store import open_store
from connectors.postgres import PostgresSource, TableStream
from connectors.registry import SOURCES
from connectors.rest import ApiKeyHeader, ApiKeyQuery, OAuth2ClientCredentials, RestSource, RestStream
from flows.ingest import ingest
from flows.pipeline import pipeline
from tasks.alerts import register_channels
from tasks.credentials import WAREHOUSE_WATCHER, register
from tests.conftest import ROLE_PASSWORD, Answer, Api, Request, Warehouse
from tests.connectors.examples import IMPATIENT, Prepare
from tests.flows.transforms import Transforms
from tests.telling import heard, tables_telling

NAMES = (
    "password",
    "wrong-password",
    "header-key",
    "query-key",
    "client-secret",
    "token",
    "s3-secret",
    "hook",
    "careless",
)
CANARIES = {name: f"canary/{name}+{uuid4().hex}" for name in NAMES}
"""With what has to be escaped in addresses."""
SIGNATURE = f"signature{uuid4().hex}"
"""Nobody's secret but the source's, which redirects with it."""


CARELESS_KEY = Secret("careless_key")


@dataclass(frozen=True, slots=True)
class Careless:
    """A source of a team's own, whose library quotes its key in whatever it raises."""

    name: str = "careless"
    streams: tuple[Stream, ...] = (Stream(name="things", primary_key=("id",)),)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        return (CARELESS_KEY,)

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        key = connections.secret(CARELESS_KEY)
        try:
            raise RuntimeError(f"GET https://things.example.com/?key={quote(key, safe='')}&basic={b64(key)} failed")
        except RuntimeError as error:
            raise ValueError(f"no things for {key}") from error


def b64(text: str) -> str:
    return b64encode(f"user:{text}".encode()).decode()


def rest(name: str, auth: Any) -> RestSource:
    stream = RestStream(name="things", path=f"/{name}", primary_key=("id",))
    return RestSource(name=name, base_url=Setting(f"{name}_url"), auth=auth, retries=IMPATIENT, streams=(stream,))


def table(name: str) -> PostgresSource:
    return PostgresSource(
        name=name, database=Database(name), streams=(TableStream(name="things", primary_key=("id",)),)
    )


SYSTEMS = (
    table("good_db"),
    table("closed_db"),
    rest("echo_api", ApiKeyHeader("X-Key", Secret("echo_api_key"))),
    rest("moved_api", ApiKeyQuery("key", Secret("moved_api_key"))),
    rest(
        "oauth_api",
        OAuth2ClientCredentials(Setting("oauth_api_token_url"), Setting("oauth_api_id"), Secret("oauth_api_secret")),
    ),
    Careless(),
)


def everything_back(request: Request) -> Answer:
    """Says all that it was asked, and fails in the way that the path is named after."""
    echo = {"headers": request.headers, "parameters": request.parameters, "body": request.body.decode()}
    match request.path.split("/")[1]:
        case "token":
            return Answer({"access_token": CANARIES["token"], "token_type": "bearer", "expires_in": 60})
        case "moved_api":
            there = f"http://localhost:1/?signature={SIGNATURE}&key={quote(CANARIES['query-key'], safe='')}"
            return Answer(echo, 302, {"Location": there})
        case "oauth_api":
            return Answer(echo, 503)
        case "hook":
            return Answer({**echo, "path": request.path}, 500)
    return Answer(echo, 403)


@pytest.fixture
def careful_reader(source_database: Prepare) -> Iterator[Any]:
    """A source database, and a role of it whose password is a canary."""
    connection = source_database("create table things (id int primary key); insert into things values (1)")
    role = f"reader_{uuid4().hex[:8]}"
    connection.execute(
        sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(CANARIES["password"]))
    )
    connection.execute(sql.SQL("grant select on things to {}").format(sql.Identifier(role)))
    yield connection, role
    connection.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(role)] * 2))


def forms(secret: str) -> list[bytes]:
    """How it might be found: as it is, in an address, in JSON, within a base64 of a user and password."""
    return [
        form.encode() for form in {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], b64(secret)}
    ]


def found_in(content: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(form in content for form in forms(secret))]


SECRETS = {**CANARIES, "signature": SIGNATURE, "roles' password": ROLE_PASSWORD}


@pytest.mark.usefixtures("prefect_server")
def test_no_secret_is_in_any_byte_that_a_run_leaves(
    careful_reader: Any,
    api: Api,
    s3: StoreLocation,
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connection, role = careful_reader
    api.answer = everything_back
    for system in SYSTEMS:
        monkeypatch.setitem(SOURCES, system.name, system)
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    routing = "channels: {hook: {kind: webhook, signed: true}}\nroutes: [{channels: [hook]}]\n"
    (tmp_path / "alerts.yaml").write_text(routing)
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "alerts.yaml"))
    source = warehouse.server.url.set(username=role, password=CANARIES["password"], database=connection.info.dbname)
    environment = {
        "HEADWATER_GOOD_DB_URL": source.render_as_string(hide_password=False),
        "HEADWATER_CLOSED_DB_URL": source.set(password=CANARIES["wrong-password"]).render_as_string(
            hide_password=False
        ),
        **{f"HEADWATER_{name}_URL": api.url for name in ("ECHO_API", "MOVED_API", "OAUTH_API")},
        "HEADWATER_ECHO_API_KEY": CANARIES["header-key"],
        "HEADWATER_MOVED_API_KEY": CANARIES["query-key"],
        "HEADWATER_OAUTH_API_TOKEN_URL": f"{api.url}/token",
        "HEADWATER_OAUTH_API_ID": "headwater",
        "HEADWATER_OAUTH_API_SECRET": CANARIES["client-secret"],
        "HEADWATER_CARELESS_KEY": CANARIES["careless"],
        "HEADWATER_ALERTS_HOOK_URL": f"{api.url}/hook/{quote(CANARIES['hook'], safe='')}",
        "HEADWATER_ALERTS_HOOK_KEY": f"whsec_{b64encode(CANARIES['hook'].encode()).decode()}",
        "HEADWATER_LANDING_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": CANARIES["s3-secret"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.options["endpoint"],
        **{
            f"HEADWATER_WAREHOUSE_{name.upper()}_URL": warehouse.url(name).render_as_string(hide_password=False)
            for name in ("loader", "watcher")
        },
    }
    where = EnvironmentConnections(environment)
    needed = [each for system in SYSTEMS for each in system.requirements]
    with heard() as said:
        register(where, [*needed, WAREHOUSE_LOADER, WAREHOUSE_WATCHER, LANDING])
        register_channels(where, parse_routing(routing, "the test"))
        ingest("good_db")
        with pytest.raises(HeadwaterError):
            pipeline([system.name for system in SYSTEMS])
        with pytest.raises(HeadwaterError, match=r"no things for \*\*\*"):
            ingest("careless")
        APILogWorker.drain_all(timeout=20)

    # All of them were used, and all that could be said of them was.
    asked = str([(request.path, request.headers, request.parameters, request.body) for request in api.requests])
    assert all(CANARIES[name] in asked for name in ("header-key", "query-key", "token"))
    assert "/hook/" in asked, "an alert was sent"
    failed = warehouse.query("select source, error from ops.loads where status = 'failed'")
    assert {source for source, _ in failed} == {system.name for system in SYSTEMS} - {"good_db"}
    assert all("***" in error for source, error in failed if source in ("echo_api", "careless"))

    places = {"logs": "\n".join(said).encode(), "output": "".join(capfd.readouterr()).encode()}
    places |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    database = Path(str(make_url(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value())).database))
    places |= {str(path): path.read_bytes() for path in database.parent.glob(f"{database.name}*")}
    places |= dict(landed(s3))
    assert b"no things for ***" in places["logs"]
    assert b"no things for ***" in b"".join(body for name, body in places.items() if database.name in name)
    assert len(landed(s3)) >= 2
    assert {name: told for name, body in places.items() if (told := found_in(body))} == {}
    for name, secret in SECRETS.items():
        assert tables_telling(warehouse, [form.decode() for form in forms(secret)]) == [], name


def landed(location: StoreLocation) -> list[tuple[str, bytes]]:
    store = open_store(location)
    keys = [each["path"] for batch in obstore.list(store) for each in batch]
    bodies = [bytes(obstore.get(store, key).bytes()) for key in keys]
    return [
        (key, zstandard.ZstdDecompressor().decompressobj().decompress(body) if key.endswith(".zst") else body)
        for key, body in zip(keys, bodies, strict=True)
    ]


def test_a_transform_leaves_no_password_in_what_dbt_writes(transforms: Transforms) -> None:
    project = Path(transforms.nursery.environment["HEADWATER_DBT_PROJECT"])
    written = [path for folder in (transforms.target, project) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in written)
    assert any(path.name == "dbt.log" for path in written)
    assert [path.name for path in written if ROLE_PASSWORD.encode() in path.read_bytes()] == []
    assert not [line for line in transforms.nursery.said() if ROLE_PASSWORD in line]
