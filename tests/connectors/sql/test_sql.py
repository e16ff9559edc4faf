"""A database behind SQLAlchemy as a source: its snapshot, its bounds, its errors, its deletions."""

from __future__ import annotations

import gc
import socket
import sqlite3
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.deletions import find_deleted
from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError, SourceUnavailableError
from connectors.ingest import Destination
from connectors.model import Deletes, ExtractRequest, WriteDisposition
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.examples import counts, raw
from tests.connectors.sql.sql_databases import MySql, Sqlite, connections, load_sql, sql_erp

NUMBERS = (
    "with recursive a (n) as (select 1 union all select n + 1 from a where n < 1000),"
    " b (m) as (select 0 union all select m + 1 from b where m < {thousands} - 1)"
    " select m * 1000 + n as id, rpad(m * 1000 + n, {width}, ' and so on') as v from a, b"
)


NOTHING_IS_LEFT_HALF_READ = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
"""What the driver does with a result when it is collected would fail without a connection."""


def fill(mysql: MySql, *, thousands: int, width: int) -> None:
    """A table `t` of so many thousand rows, numbered from 1."""
    mysql.execute(
        "create table t (id int primary key, v longtext)",
        f"insert into t {NUMBERS.format(thousands=thousands, width=width)}",
    )


def threads(mysql: MySql) -> list[int]:
    """The server's connections to the test's database, the asking one aside."""
    rows = mysql.execute(
        f"select id from information_schema.processlist where db = '{mysql.url.database}' and id <> connection_id()"
    )
    return [number for (number,) in rows]


def wait_until_nobody_reads(mysql: MySql) -> None:
    deadline = time.monotonic() + 20
    while threads(mysql):
        assert time.monotonic() < deadline, "a connection was left open"
        time.sleep(0.05)


def test_a_load_reads_one_snapshot(mysql: MySql, warehouse: Warehouse, destination: Destination) -> None:
    fill(mysql, thousands=20, width=500)
    source = sql_erp(name="t", primary_key=("id",))
    extraction = source.extract(source.streams[0], ExtractRequest(), mysql.connections)
    first = next(extraction.chunks)
    mysql.execute("update t set v = 'changed'", "delete from t where id % 2 = 0")
    rest = list(extraction.chunks)
    assert first.rows + sum(chunk.rows for chunk in rest) == 20_000
    assert not any(b"changed" in chunk.data for chunk in rest)
    wait_until_nobody_reads(mysql)


def test_nothing_can_be_written_while_reading(mysql: MySql, tmp_path: Path, destination: Destination) -> None:
    mysql.execute(
        "create table log (n int)",
        "create function noted(n int) returns int deterministic modifies sql data"
        " begin insert into log values (n); return n; end",
        "create view v as select noted(1) as id",
    )
    with pytest.raises(HeadwaterError, match=r"READ ONLY transaction"):
        load_sql(sql_erp(name="v", primary_key=("id",)), mysql, destination)
    assert mysql.execute("select * from log") == []


@pytest.mark.parametrize("kind", ["mysql", "sqlite"])
def test_memory_is_flat_in_the_number_of_rows(kind: str, mysql: MySql, tmp_path: Path) -> None:
    database: MySql | Sqlite = mysql
    if kind == "mysql":
        fill(mysql, thousands=50, width=1_000)
    else:
        database = Sqlite(tmp_path / "erp.db")
        database.execute(
            "create table t (id integer primary key, v text)",
            "insert into t values (?, ?)",
            rows=((number, f"{number}".ljust(1_000)) for number in range(50_000)),
        )
    source = sql_erp(name="t", primary_key=("id",))
    tracemalloc.start()
    try:
        extraction = source.extract(source.streams[0], ExtractRequest(), database.connections)
        size = sum(len(chunk.data) for chunk in extraction.chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 50_000_000
    assert peak < 12_000_000


@NOTHING_IS_LEFT_HALF_READ
def test_a_reader_that_stops_early_leaves_the_rest_unread(mysql: MySql) -> None:
    fill(mysql, thousands=50, width=2_000)
    source = sql_erp(name="t", primary_key=("id",))
    extraction = source.extract(source.streams[0], ExtractRequest(), mysql.connections)
    next(extraction.chunks)
    # The driver by itself would read all of the 100 MB to their end.
    received = sum(map(len, _answers_while(extraction.chunks.close)))  # type: ignore[attr-defined]
    assert received < 1_000_000
    wait_until_nobody_reads(mysql)
    gc.collect()


def _answers_while(action: Any) -> list[bytes]:
    """What this process's sockets receive during an action."""
    answers: list[bytes] = []
    original = socket.SocketIO.readinto

    def readinto(self: socket.SocketIO, buffer: Any) -> int | None:
        size = original(self, buffer)
        answers.append(bytes(size or 0))
        return size

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket.SocketIO, "readinto", readinto)
        action()
    return answers


@NOTHING_IS_LEFT_HALF_READ
def test_a_connection_that_is_cut_is_retried_and_nothing_is_lost(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    fill(mysql, thousands=50, width=1_000)
    source = sql_erp(name="t", primary_key=("id",))

    def cut() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            sending = mysql.execute(
                "select id from information_schema.processlist where state in ('Writing to net', 'Sending data',"
                f" 'Sending to client', 'executing') and db = '{mysql.url.database}' and id <> connection_id()"
            )
            for (number,) in sending:
                mysql.execute(f"kill {number}")
                return

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(SourceUnavailableError, match="cannot be reached, or broke off"):
        load_sql(source, mysql, destination)
    cutting.join()
    assert warehouse.query("select status from ops.loads") == [("failed",)]
    assert warehouse.query("select to_regclass('raw_erp.t')") == [(None,)]
    assert load_sql(source, mysql, destination).inserted == 50_000
    gc.collect()


def test_a_database_that_falls_silent_is_given_up(mysql: MySql, destination: Destination) -> None:
    mysql.execute(
        "create table t (id int)", "insert into t values (1)", "create view v as select sleep(20) as id from t"
    )
    source = replace(sql_erp(name="v", write=WriteDisposition.REPLACE), silence_seconds=0.5)
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="timed out"):
        load_sql(source, mysql, destination)
    assert time.monotonic() - begun < 10


def test_who_alters_the_table_is_waited_for_with_a_bound(
    mysql: MySql, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.sql.connection._MYSQL_SESSION", "set session lock_wait_timeout = 1")
    mysql.execute("create table t (id int primary key)")
    altering = mysql.session()
    altering.cursor().execute("lock tables t write")
    with pytest.raises(SourceUnavailableError, match="Lock wait timeout"):
        load_sql(sql_erp(name="t", primary_key=("id",)), mysql, destination)
    altering.close()


def test_a_file_of_sqlite_is_read_and_never_made_nor_changed(tmp_path: Path, destination: Destination) -> None:
    path = tmp_path / "folder with spaces, %20 and #" / "erp.db"
    database = Sqlite(path)
    source = sql_erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="unable to open database file"):
        load_sql(source, database, destination)
    assert not path.parent.exists()
    path.parent.mkdir()
    database.execute("create table t (id integer primary key)", "insert into t values (1)")
    before = path.read_bytes()
    assert load_sql(source, database, destination).inserted == 1
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["erp.db"]


def test_a_writer_of_sqlite_is_waited_for_with_a_bound(
    tmp_path: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.sql.connection._LOCK_SECONDS", 0.2)
    database = Sqlite(tmp_path / "erp.db")
    database.execute("create table t (id integer primary key)")
    writer = sqlite3.connect(database.path, isolation_level=None)
    writer.execute("begin exclusive")
    with pytest.raises(SourceUnavailableError, match="database is locked"):
        load_sql(sql_erp(name="t", primary_key=("id",)), database, destination)
    writer.close()
    assert load_sql(sql_erp(name="t", primary_key=("id",)), database, destination).extracted == 0


def test_a_file_that_is_no_database_or_a_damaged_one_is_said_to_be(tmp_path: Path, destination: Destination) -> None:
    path = tmp_path / "erp.db"
    path.write_text("Not a database at all, but long enough to be taken for one. " * 100)
    source = sql_erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="file is not a database"):
        load_sql(source, Sqlite(path), destination)
    path.unlink()
    rows = ((number, "x" * 500) for number in range(2000))
    Sqlite(path).execute("create table t (id integer primary key, v text)", "insert into t values (?, ?)", rows=rows)
    data = bytearray(path.read_bytes())
    data[40_000:300_000] = b"\xff" * 260_000
    path.write_bytes(data)
    with pytest.raises(MalformedResponseError, match="is damaged"):
        load_sql(source, Sqlite(path), destination)


@pytest.mark.parametrize(
    ("changes", "definition", "error", "what"),
    [
        ({"password": "not-the-secret"}, {}, ConfigurationError, "refused: Access denied"),
        ({"username": "nobody-here"}, {}, ConfigurationError, "refused: Access denied"),
        ({"database": "not_there"}, {}, ConfigurationError, "refused: Unknown database 'not_there'"),
        ({"port": 1}, {}, SourceUnavailableError, "cannot be reached"),
        ({"host": "no-such-host.invalid"}, {}, SourceUnavailableError, "cannot be reached"),
        ({}, {"table": "not_there"}, ConfigurationError, "has no table"),
        ({}, {"schema": "not_there"}, ConfigurationError, "has no table|Unknown database"),
        ({}, {"primary_key": ("nr",)}, ConfigurationError, r"t has no column nr; it has id, v\."),
        ({}, {"columns": {"w": "text"}}, ConfigurationError, r"t has no column w"),
        ({"drivername": "mysql+mysqldb"}, {}, ConfigurationError, r"Write its URL with mysql\+pymysql://"),
        (
            {"drivername": "oracle+oracledb"},
            {},
            ConfigurationError,
            "driver for oracle.oracledb is not installed: oracledb",
        ),
        ({"drivername": "nonsense"}, {}, ConfigurationError, "has no dialect for nonsense"),
        ({"drivername": "sqlite"}, {}, ConfigurationError, "is none of sqlite"),
    ],
)
def test_each_trouble_is_one_clear_error(
    changes: dict[str, Any], definition: dict[str, Any], error: type[HeadwaterError], what: str, mysql: MySql
) -> None:
    mysql.execute("create table t (id int primary key, v text)")
    url = mysql.url.set(**changes)
    source = sql_erp(**{"name": "t", "primary_key": ("id",), **definition})
    connection = connections(url.render_as_string(hide_password=False))
    with pytest.raises(error, match=what) as raised:
        source.extract(source.streams[0], ExtractRequest(), connection)
    assert type(raised.value) is error
    assert str(url.password) not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "sqlalche.me" not in str(raised.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_no_source(url: str) -> None:
    source = sql_erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="names no file"):
        source.extract(source.streams[0], ExtractRequest(), connections(url))


def test_a_user_without_rights_is_told_what_to_grant(mysql: MySql) -> None:
    user = f"u{str(mysql.url.database)[-12:]}"
    mysql.execute(
        "create table t (id int primary key, v text)",
        f"create user {user}@'localhost' identified by 'modest-secret'",
        f"grant select (id) on {mysql.url.database}.t to {user}@'localhost'",
    )
    url = mysql.url.set(username=user, password="modest-secret").render_as_string(hide_password=False)
    source = sql_erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="refused: .*denied.*Grant its user SELECT") as raised:
        list(source.extract(source.streams[0], ExtractRequest(), connections(url)).chunks)
    assert "modest-secret" not in str(raised.value)


def test_a_missing_driver_is_named_with_its_package(mysql: MySql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    source = sql_erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match=r"not installed: pymysql.*pip install 'headwater\[mysql\]'"):
        source.extract(source.streams[0], ExtractRequest(), mysql.connections)


def test_rows_that_are_gone_are_found_by_their_keys(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "create table t (`Region` varchar(9), nr bigint unsigned, v text, primary key (`Region`, nr))",
        "insert into t values ('é', 1, ''), ('E', 2, ''), ('', 18446744073709551615, '')",
    )
    source = sql_erp(name="t", primary_key=("Region", "nr"), deletes=Deletes(limit=0.5))
    load_sql(source, mysql, destination)
    mysql.execute("delete from t where `Region` = ''")
    report = find_deleted(source, source.streams[0], mysql.connections, destination)
    assert (report.extracted, report.deleted, report.unchanged) == (2, 1, 2)
    marked = "select region from raw_erp.t where _deleted_at is not null"
    assert warehouse.query(marked) == [("",)]
    before = raw(warehouse, "*", "raw_erp.t")
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, "*", "raw_erp.t") == before
    mysql.execute("insert into t values ('', 18446744073709551615, 'back')")
    assert find_deleted(source, source.streams[0], mysql.connections, destination).updated == 1
    assert warehouse.query(marked) == []


def test_a_table_without_a_key_is_replaced(tmp_path: Path, warehouse: Warehouse, destination: Destination) -> None:
    database = Sqlite(tmp_path / "erp.db")
    database.execute(
        "create table t (a text, b real)", "insert into t values ('x', 1), ('x', 1), (null, null), ('', 2)"
    )
    source = sql_erp(name="t", write=WriteDisposition.REPLACE)
    assert load_sql(source, database, destination).inserted == 4
    database.execute("delete from t where a = ''")
    assert counts(load_sql(source, database, destination)) == (3, 0, 0, 3, 0, 0)
    assert raw(warehouse, "a, b", "raw_erp.t") == [("x", 1.0), ("x", 1.0), (None, None)]
