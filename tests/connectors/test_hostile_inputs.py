"""What somebody could write who wishes us ill: names of tables and columns, object keys, files, links, settings.
Nothing of it is executed, leads elsewhere, or gets a credential."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import boto3
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from connectors.alerts.routing import parse_routing
from connectors.connections import StoreLocation, parse_database_url
from connectors.database import address
from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.marts import Mart
from connectors.destinations.warehouse.publish import publish
from connectors.errors import ConfigurationError, HeadwaterError
from connectors.formats.file_streams import CsvStream
from connectors.http.client import FixedCredentials, HttpClient, Request, RetryPolicy, Signature
from connectors.ingest import Destination, ingest
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, erp, load_table, met
from tests.connectors.sql.sql_databases import connections as sql_connections
from tests.connectors.sql.sql_databases import sql_erp

PIECES = [
    "'",
    '"',
    ";",
    "--",
    "/*",
    "%",
    "%s",
    ":name",
    "{{ 1 }}",
    "{% do %}",
    "$1",
    "$$",
    "\\",
    "\n",
    "\r",
    "\t",
    "`",
    "]",
]
PIECES += [
    ".",
    " ",
    "é",
    "'); drop table witness; --",
    '"; drop table witness; --',
    "\u202e",
    "\u0000x"[1:],
    "😀",
    "select",
]
NAMES = (
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=6)
    .map("".join)
    .map(lambda name: name.replace("\0", "").encode("utf-8", "ignore")[:63].decode("utf-8", "ignore"))
    .filter(bool)
)
"""As PostgreSQL takes them: 63 bytes at most, no NUL."""
FEW = settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
BAD_TABLE = 'x"; drop table witness; --\'%s {{ ref("a") }}'
BAD_COLUMN = "a'); drop table witness; --%(x)s:y"


@FEW
@given(NAMES, st.lists(NAMES, min_size=1, max_size=3, unique_by=lambda name: name.casefold()))
@example(BAD_TABLE, [BAD_COLUMN, '"', "id"])
def test_a_table_and_columns_of_any_name_are_read_and_nothing_is_executed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, table: str, columns: list[str]
) -> None:
    connection = source_database(
        "drop schema public cascade; create schema public; create table witness as select 1 as seen"
    )
    if table == "witness":
        return
    warehouse.execute("drop schema if exists raw_erp cascade; create table if not exists witness as select 1 as seen")
    warehouse.execute("truncate ops.watermarks, ops.schema_changes, ops.loads cascade")
    names = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in columns)
    connection.execute(sql.SQL("create table {} (key_of_it int primary key, {})").format(sql.Identifier(table), names))
    values = [f"value of {number}" for number, _ in enumerate(columns)]
    connection.execute(
        sql.SQL("insert into {} values (1, {})").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Literal, values))
        )
    )
    source = erp(name="t", table=table, primary_key=("key_of_it",))
    try:
        load_table(source, connection, warehouse, destination)
    except HeadwaterError as error:  # two columns become one, or one is named as our own
        said = str(error)
    else:
        said = "column"
        [row] = warehouse.query("select * from raw_erp.t")
        assert list(row[: len(columns) + 1]) == [1, *values]
        rebuild(source, source.streams[0], destination)
        assert warehouse.query("select count(*) from raw_erp.t") == [(1,)]
    assert "column" in said
    assert connection.execute("select * from witness").fetchall() == [(1,)]
    assert warehouse.query("select * from witness") == [(1,)]


@FEW
@given(NAMES.filter(lambda name: not name.casefold().startswith("sqlite_")), NAMES)
@example(BAD_TABLE, BAD_COLUMN)
@example("t`t", "c]c")
def test_another_database_s_names_are_quoted_too(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, table: str, column: str
) -> None:
    file = tmp_path / "erp.db"
    file.unlink(missing_ok=True)
    if {table.casefold(), column.casefold()} & {"witness", "id"}:
        return
    warehouse.execute(
        "drop schema if exists raw_erp cascade; truncate ops.watermarks, ops.schema_changes, ops.loads cascade"
    )
    with sqlite3.connect(file) as connection:
        quoted = ['"' + name.replace('"', '""') + '"' for name in (table, column)]
        connection.execute("create table witness (seen integer)")
        connection.execute("create table {} (id integer primary key, {} text)".format(*quoted))
        connection.execute(f"insert into {quoted[0]} values (1, 'kept')")
    source = sql_erp(name="t", table=table, primary_key=("id",))
    ingest(source, source.streams[0], sql_connections(f"sqlite:///{file}"), destination)
    assert [row[:2] for row in warehouse.query("select * from raw_erp.t")] == [(1, "kept")]
    with sqlite3.connect(file) as connection:
        assert connection.execute("select count(*) from witness").fetchall() == [(0,)]


@FEW
@given(NAMES, NAMES)
@example(BAD_COLUMN, '"); drop table witness; --')
def test_a_mart_s_columns_of_any_name_are_published(warehouse: Warehouse, key: str, column: str) -> None:
    if key == column:
        return
    warehouse.execute("create table if not exists public.witness as select 1 as seen")
    with warehouse.connect("transformer") as connection:
        connection.execute("drop schema if exists marts cascade; create schema marts")
        connection.execute(
            sql.SQL("create table marts.fct as select 1 as {}, 'kept'::text as {}").format(
                sql.Identifier(key), sql.Identifier(column)
            )
        )
    mart = Mart("fct", "marts", (key,), group="g", is_incremental=True, description=f"{key} %s {{{{ x }}}}")
    for changed in ("kept", "changed"):
        with warehouse.connect("transformer") as connection:
            connection.execute(
                sql.SQL("update marts.fct set {} = {}").format(sql.Identifier(column), sql.Literal(changed))
            )
        prepare(warehouse.url("transformer"), [mart])
        publish(warehouse.url("publisher"), [mart], invocation_id="test")
        assert warehouse.query("select * from serving.fct") == [(1, changed)]
    assert warehouse.query("select * from public.witness") == [(1,)]


# Files and objects.


def test_a_file_that_is_a_link_out_of_its_folder_is_not_read(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.csv").write_text("id,v\n1,canary-of-the-machine\n")
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    (folder / "real.csv").write_text("id,v\n2,b\n")
    (folder / "below/again.csv").symlink_to("../real.csv")
    (folder / "private.csv").symlink_to(outside / "private.csv")
    (folder / "relative.csv").symlink_to("../outside/private.csv")
    (folder / "elsewhere").symlink_to(outside)
    stream = CsvStream(name="people", pattern="**/*.csv", primary_key=("id",))
    source, where = met(stream, folder.as_uri())
    ingest(source, source.streams[0], where, destination)
    assert warehouse.query("select id, v from raw_met.people") == [("2", "b")]
    for name in ("private.csv", "relative.csv", "elsewhere/private.csv"):
        assert f"{name} is a link that leads out of the folder" in caplog.text
    assert "below/again.csv is a link" not in caplog.text


KEYS = [
    "a b.csv",
    "%2e%2e/%2e%2e/x.csv",
    "a\\..\\..\\b.csv",
    "a'; drop table witness; --.csv",
    "$(touch x).csv",
    "é😀.csv",
]
KEYS += ["-rf.csv", "a?b#c.csv", "a%00b.csv", "{{ x }}.csv", "x" * 200 + ".csv", "con.csv", "~root.csv", "a&b+c.csv"]


def test_objects_of_any_key_are_read_by_it_and_land_where_loads_do(
    s3: StoreLocation, warehouse: Warehouse, destination: Destination, landing_folder: Path, tmp_path: Path
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3.options["endpoint"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="hostile")
    for number, key in enumerate(KEYS):
        client.put_object(Bucket="hostile", Key=f"in/{key}", Body=f"id,v\n{number},{number}\n".encode())
    stream = CsvStream(name="people", pattern="**/*.csv", primary_key=("id",), file_column="came_in")
    source, where = met(stream, "s3://hostile/in", settle_seconds=0)
    where._environment = {  # type: ignore[assignment]
        **where._environment,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.options["endpoint"],
    }
    ingest(source, source.streams[0], where, destination)
    found = dict(warehouse.query("select came_in, id from raw_met.people"))
    assert found == {key: str(number) for number, key in enumerate(KEYS)}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.is_relative_to(landing_folder / "met/people") for path in written)


@pytest.mark.parametrize(
    "key", ["../outside.txt", "/etc/passwd", "met/../../outside.txt", "%2e%2e/outside.txt", "a\0b", ""]
)
def test_a_manifest_that_names_an_object_elsewhere_gets_nothing_from_there(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    tmp_path: Path,
    key: str,
) -> None:
    (tmp_path / "outside.txt").write_text("canary-of-the-machine")
    connection = source_database("create table t (id int primary key); insert into t values (1)")
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    [path] = landing_folder.rglob("manifest.json")
    text = path.read_text()
    [part] = [each for each in path.parent.iterdir() if each != path]
    path.write_text(text.replace(str(part.relative_to(landing_folder)), key.replace("\0", "\\u0000")))
    with pytest.raises(HeadwaterError) as caught:
        rebuild(source, source.streams[0], destination)
    assert "canary-of-the-machine" not in str(caught.value)
    assert warehouse.query("select id from raw_erp.t") == [(1,)]


# Links and redirects.


ORIGIN = "https://api.example.com:8443"
PARTS = [
    "https://",
    "http://",
    "//",
    "/",
    "\\",
    "\\\\",
    "@",
    ":",
    "?",
    "#",
    "api.example.com",
    "api.example.com:8443",
    ".",
    "..",
]
PARTS += [
    "evil.example.com",
    "169.254.169.254",
    "[::1]",
    "localhost",
    "127.0.0.1",
    "file:///etc/passwd",
    "user:pw@",
    "%2f",
]
PARTS += [
    "\t",
    "\n",
    "\r\nHost: evil.example.com\r\n\r\n",
    " ",
    "。",
    "ⓔvil",
    "%00",
    "javascript:",
    "0x7f000001",
    "2130706433",
    ";",
]
LINKS = st.lists(st.sampled_from(PARTS) | st.text(max_size=2), min_size=1, max_size=7).map("".join)
KEY = FixedCredentials(Signature({"X-Key": "canary-71x"}, {"key": "canary-72x"}), ("canary-71x", "canary-72x"))


class Recorder(httpx.BaseTransport):
    """The network: what was sent where; the first answer is a redirect if there is one to give."""

    def __init__(self, location: str | None) -> None:
        self.location = location
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.location is not None and len(self.asked) == 1:
            return httpx.Response(302, headers=[(b"Location", self.location.encode("utf-8", "surrogatepass"))])
        return httpx.Response(200, headers={"Content-Type": "application/json"}, content=b"[]")


@settings(max_examples=150)
@given(LINKS, st.booleans())
@example("https://api.example.com:8443@evil.example.com/", True)
@example("https://api.example.com:8443\\@evil.example.com/", False)
@example("//evil.example.com/", True)
@example("https:evil.example.com", True)
@example("https://api.example.com:8443.evil.example.com/", False)
@example("http://api.example.com:8443/", True)
def test_no_link_and_no_redirect_takes_a_request_to_another_origin(link: str, is_redirect: bool) -> None:
    network = Recorder(link if is_redirect else None)
    policy = RetryPolicy(attempts=1, connect_timeout=1, read_timeout=1)
    with HttpClient(ORIGIN, credentials=KEY, policy=policy, transport=network) as client:
        try:
            client.fetch(Request("/first" if is_redirect else link))
            said = ""
        except HeadwaterError as error:
            said = str(error)
    assert "canary" not in said
    for request in network.asked:
        assert (request.url.scheme, request.url.host, request.url.port) == ("https", "api.example.com", 8443)
        assert request.headers["host"] == "api.example.com:8443"
        assert b"\n" not in request.url.raw_path
        assert b" " not in request.url.raw_path


# Settings.


SECRETS = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=8, max_size=20)
    .filter(lambda text: len(set(text)) > 5)
    .map(lambda text: f"¤{text}")  # Hypothesis knows the words of our code: none of those that errors say
)


@settings(max_examples=100)
@given(SECRETS, st.sampled_from(["@", "/", ":", "#", "?", "@@", "@x:", "@x/", "@x?", "[", "%", ""]), SECRETS)
def test_a_password_that_is_not_encoded_is_whole_or_refused(first: str, odd: str, last: str) -> None:
    text = f"postgresql+psycopg://loader:{first}{odd}{last}@db.example.com:5432/headwater"
    try:
        url = parse_database_url(text, "HEADWATER_X_URL")
    except ConfigurationError as error:
        told = f"{error} {error.__cause__}"
    else:
        told = address(url)
        assert told == "db.example.com:5432/headwater"
        assert (url.username, url.query) == ("loader", {})
    assert not any(part in told for part in (first, last))


def test_passwords_that_are_encoded_are_taken() -> None:
    made = URL.create("postgresql+psycopg", "user@server", "a@b/c:d?e#f[g]%", "db.example.com", 5432, "x")
    assert parse_database_url(made.render_as_string(hide_password=False), "X") == made
    assert parse_database_url("sqlite:////data/a@b@c.db", "X") == make_url("sqlite:////data/a@b@c.db")
    assert parse_database_url("postgresql+psycopg://u@server:pw@h/db", "X").username == "u@server"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB.replace("a: &a", "channels: {c: &a", 1).replace("]\n", "]}\n", 1),
        "[" * 20_000,
        "{a: " * 5_000,
        "- " * 20_000,
        "!!python/object/apply:os.system [touch OWNED]",
        "channels: !!python/object/new:subprocess.Popen [[touch, OWNED]]",
        "channels: !!python/name:os.system",
        "? [a, b]\n: c",
        "channels: {c: 2024-13-45}",
        "channels: &a {b: *a}",
        "channels: {c: 0x" + "f" * 10_000 + "}",
        "- x\n" * 500_000,
        "channels: {c: {kind: slack, quiet: {from: '22:00', to: '07:00', timezone: ../../etc/passwd}}}",
        "channels: {'../x': {kind: slack}}",
        "a: \x00",
        "\ud800",
    ],
    ids=lambda text: text[:30],
)
def test_a_file_of_routes_that_means_harm_is_refused_in_no_time(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        parse_routing(text, "alerts.yaml")
    assert len(str(caught.value)) < 1000
    assert not list(tmp_path.iterdir())
