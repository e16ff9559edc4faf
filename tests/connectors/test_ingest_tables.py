"""Tables of a PostgreSQL database in raw: every type, every disposition, changes of shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from connectors.connections import EnvironmentConnections
from connectors.errors import (
    ConfigurationError,
    ContractViolationError,
    DataError,
    SourceUnavailableError,
)
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, ExtractRequest, Windows, WriteDisposition
from connectors.rebuild import rebuild
from connectors.windows import WindowState, windows_of
from tests.conftest import Server, Warehouse
from tests.connectors.examples import (
    Prepare,
    counts,
    database,
    erp,
    load_table,
    raw,
)
from tests.waiting import until


def test_a_table_arrives_with_its_types_bit_for_bit(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        """
        create type mood as enum ('fine', 'Not So "Fine"');
        create domain positive as integer check (value > 0);
        create table things (
            id bigint primary key, n numeric, n2 numeric(12, 3), d double precision, t text, v varchar(7), b bytea,
            u uuid, ts timestamptz, dt date, i interval, j json, jb jsonb, a text[], aa integer[][], r int4range,
            m mood, p positive, net inet, bits bit(3), "Strange Name" boolean
        );
        insert into things values
        (1, 'NaN', 1.500, '-Infinity', E'tab\\t "quotes" \\\\ and \\n', '', '\\x00ff', gen_random_uuid(), 'infinity',
         '-infinity', '1 mon -2 days 03:04:05.678', '{"a": 1, "a": 2}', '{"k": [1, 2.50]}', array['x', null, ''],
         '{{1,2},{3,4}}', '[1,5)', 'Not So "Fine"', 7, '10.0.0.1/8', b'101', true),
        (2, repeat('9', 5000)::numeric, null, 'NaN', null, null, null, null, null, null, null, null, null, null,
         null, null, null, null, null, null, null);
        """
    )
    report = load_table(erp(name="things", primary_key=("id",)), connection, warehouse, destination)
    assert report.inserted == 2
    columns = "id, n, n2, d, t, v, b, u, ts, dt, i, j, jb, a, aa, r, m, p, net, bits"
    as_text = ", ".join(f"{name}::text" for name in columns.split(", "))
    there = connection.execute(f'select {as_text}, "Strange Name" from things order by id'.encode()).fetchall()
    assert raw(warehouse, f"{as_text}, strange_name", "raw_erp.things") == there
    types = dict(
        warehouse.query(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'raw_erp.things'::regclass and attnum > 0"
        )
    )
    assert types["n2"] == "numeric(12,3)"
    assert types["aa"] == "integer[]"
    assert types["m"] == types["p"] == "text", "an enum and a domain have no twin here"


@pytest.fixture
def database_of_encoding(postgres: Server) -> Iterator[Callable[[str], psycopg.Connection]]:
    made: list[tuple[str, psycopg.Connection]] = []

    def make(encoding: str) -> psycopg.Connection:
        name = f"source_{time.monotonic_ns()}"
        with postgres.connect() as admin:
            admin.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0".encode())
        made.append((name, postgres.connect(name)))
        return made[-1][1]

    yield make
    for name, connection in made:
        connection.close()
        postgres.drop_database(name)


def test_text_arrives_as_utf_8_whatever_the_source_s_encoding(
    database_of_encoding: Callable[[str], psycopg.Connection], warehouse: Warehouse, destination: Destination
) -> None:
    connection = database_of_encoding("LATIN1")
    connection.execute("set client_encoding = 'UTF8'")
    connection.execute("create table t (id text primary key, v varchar(9)); insert into t values ('é', 'Zürich')")
    load_table(erp(name="t", primary_key=("id",), cursor=Cursor("v")), connection, warehouse, destination)
    assert raw(warehouse, "id, v", "raw_erp.t") == [("é", "Zürich")]


def test_bytes_of_no_encoding_are_one_clear_error(
    database_of_encoding: Callable[[str], psycopg.Connection], warehouse: Warehouse, destination: Destination
) -> None:
    connection = database_of_encoding("SQL_ASCII")
    connection.execute("create table t (id int primary key, v text)")
    connection.execute("insert into t values (1, 'Zürich')".encode())
    source = erp(name="t", primary_key=("id",), cursor=Cursor("v"))
    load_table(source, connection, warehouse, destination)
    assert raw(warehouse, "id, v", "raw_erp.t") == [(1, "Zürich")], "bytes that are UTF-8 pass"
    connection.execute(r"insert into t values (2, E'\xff')")
    with pytest.raises(DataError, match=r"not UTF-8.*SQL_ASCII"):
        load_table(source, connection, warehouse, destination)


def test_a_table_is_read_incrementally_and_its_rows_updated(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table planes (tail text primary key, seats integer, changed timestamptz);"
        "insert into planes values ('a', 1, '2024-01-01Z'), ('b', 2, '2024-01-02Z'), ('c', 3, null)"
    )
    source = erp(name="planes", primary_key=("tail",), cursor=Cursor("changed"))
    assert counts(load_table(source, connection, warehouse, destination)) == (3, 3, 0, 0, 0, 0)
    connection.execute("update planes set seats = 20, changed = '2024-01-03Z' where tail = 'b'")
    connection.execute("update planes set seats = 30 where tail = 'c'")
    connection.execute("insert into planes values ('d', 4, '2024-01-02Z')")
    report = load_table(source, connection, warehouse, destination)
    assert counts(report) == (3, 1, 2, 0, 0, 0), "b changed, c has no cursor and changed, d shares the watermark"
    assert raw(warehouse, "tail, seats", "raw_erp.planes") == [("a", 1), ("b", 20), ("c", 30), ("d", 4)]


def test_a_row_that_changes_again_at_one_instant_is_loaded_as_it_last_was(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table planes (tail text primary key, seats integer, changed timestamptz);"
        "insert into planes values ('a', 1, '2024-01-01Z')"
    )
    source = erp(name="planes", primary_key=("tail",), cursor=Cursor("changed"))
    load_table(source, connection, warehouse, destination)
    connection.execute("update planes set seats = 2")
    assert counts(load_table(source, connection, warehouse, destination)) == (1, 0, 1, 0, 0, 0)
    assert raw(warehouse, "tail, seats", "raw_erp.planes") == [("a", 2)]


def test_a_replaced_table_loses_what_the_source_lost(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table airlines (carrier text primary key, name text);"
        "insert into airlines values ('AA', 'American'), ('UA', 'United')"
    )
    source = erp(name="airlines", primary_key=("carrier",), write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    before = raw(warehouse, "*", "raw_erp.airlines")
    assert load_table(source, connection, warehouse, destination).moved == 0
    assert raw(warehouse, "*", "raw_erp.airlines") == before, "an unchanged table is not written again"
    connection.execute("delete from airlines where carrier = 'AA'; insert into airlines values ('B6', 'JetBlue')")
    report = load_table(source, connection, warehouse, destination)
    assert (report.inserted, report.deleted, report.unchanged) == (1, 1, 1)
    assert raw(warehouse, "carrier", "raw_erp.airlines") == [("B6",), ("UA",)]


def test_a_replaced_table_without_a_key_is_written_where_it_differs(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (a text, j json, p point);"
        """insert into t values ('x', '{"k": 1}', '(1,2)'), ('x', '{"k": 1}', '(1,2)'), ('', null, null),"""
        " (null, null, null), (null, null, null), ('gone', null, null)"
    )
    source = erp(name="t", write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    connection.execute(
        "delete from t where a = 'gone' or ctid = (select min(ctid) from t where a = 'x');"
        "insert into t values ('new', '[]', null), ('', null, null)"
    )
    report = load_table(source, connection, warehouse, destination)
    assert (report.inserted, report.deleted, report.unchanged) == (2, 2, 4)
    there = connection.execute("select a, j::text, p::text from t order by 1, 2, 3").fetchall()
    assert warehouse.query("select a, j::text, p::text from raw_erp.t order by 1, 2, 3") == there
    before = warehouse.query("select ctid, * from raw_erp.t order by 1")
    assert load_table(source, connection, warehouse, destination).moved == 0
    assert warehouse.query("select ctid, * from raw_erp.t order by 1") == before, "nothing was written again"


@pytest.mark.parametrize("key", [(), ("id",)], ids=["no key", "key"])
def test_a_replaced_table_that_is_suddenly_empty_is_not_believed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, key: tuple[str, ...]
) -> None:
    connection = source_database("create table t (id int primary key); insert into t values (1)")
    source = erp(name="t", primary_key=key, write=WriteDisposition.REPLACE)
    load_table(source, connection, warehouse, destination)
    connection.execute("delete from t")
    with pytest.raises(ContractViolationError, match="no rows any more"):
        load_table(source, connection, warehouse, destination)
    assert len(raw(warehouse, "*", "raw_erp.t")) == 1


def test_a_source_column_that_widens_is_followed_and_one_that_changes_kind_is_not(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, n int, s varchar(3)); insert into t values (1, 1)"
    )
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t alter n type bigint, alter s type varchar(9), add extra date")
    connection.execute("insert into t values (2, 3000000000, 'longer', '2024-01-01')")
    assert load_table(source, connection, warehouse, destination).inserted == 1
    changes = warehouse.query("select column_name, change, to_type from ops.schema_changes order by id")
    assert changes == [
        ("n", "widened", "bigint"),
        ("s", "widened", "character varying(9)"),
        ("extra", "added", "date"),
    ]
    connection.execute("alter table t alter n type text")
    with pytest.raises(ContractViolationError, match="changed `n` from bigint to text, and raw cannot follow"):
        load_table(source, connection, warehouse, destination)


WIDER = {
    "varchar": ("text", "longer"),
    "int": ("numeric(12,2)", "1.25"),
    "timestamp(0)": ("timestamp", "2024-01-01 00:00:00.5"),
    "timestamptz(3)": ("timestamptz(6)", "2024-01-01 00:00:00.000001+00"),
    "time(0)": ("time", "12:00:00.5"),
    "interval(0)": ("interval", "00:00:00.5"),
    "int[]": ("bigint[]", "{3000000000}"),
    "varchar(3)[]": ("text[]", "{longer}"),
}


def test_types_that_hold_all_of_the_old_ones_are_followed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    columns = {f"c{number}": (old, *new) for number, (old, new) in enumerate(WIDER.items())}
    names = ", ".join(f"{name} {old}" for name, (old, _, _) in columns.items())
    connection = source_database(f"create table t (id int primary key, {names}); insert into t values (1)")
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    changes = ", ".join(f"alter {name} type {new}" for name, (_, new, _) in columns.items())
    values = ", ".join(f"'{value}'" for _, _, value in columns.values())
    connection.execute(f"alter table t {changes}; insert into t values (2, {values})".encode())
    assert load_table(source, connection, warehouse, destination).inserted == 1
    texts = ", ".join(f"{name}::text" for name in columns)
    assert warehouse.query(f"select {texts} from raw_erp.t where id = 2") == [
        tuple(value for _, _, value in columns.values())
    ]
    assert {change for (change,) in warehouse.query("select change from ops.schema_changes")} == {"widened"}
    connection.execute("alter table t alter c1 type numeric(11,2)")
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t alter c2 type timestamp(3)")
    assert load_table(source, connection, warehouse, destination).unchanged == 2, "the wider column stays"


def test_an_event_time_that_no_calendar_has_is_loaded_and_is_of_no_window(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    odd = ["20240-03-05Z", "9999-12-31 23:59:59Z", "0044-03-15Z BC", "0001-01-01Z", "infinity", "-infinity"]
    connection = source_database("create table t (id int primary key, at timestamptz)")
    connection.cursor().executemany("insert into t values (%s, %s)", list(enumerate(odd)))
    connection.execute("insert into t values (10, '2024-03-05Z'), (11, '2024-03-05 10:00Z')")
    zone = Windows(time_zone="America/New_York")
    for windows in (Windows(), zone):
        source = erp(name="t", primary_key=("id",), event_time="at", windows=windows)
        assert load_table(source, connection, warehouse, destination).extracted == len(odd) + 2
    assert len(raw(warehouse, "id", "raw_erp.t")) == len(odd) + 2
    connection.execute("update t set at = '20240-03-05Z' where id = 11; update t set at = '2024-03-07Z' where id = 0")
    load_table(source, connection, warehouse, destination)
    days = "select sum(rows_inserted + rows_updated) from ops.window_changes where window_start > '2024-03-06'"
    assert warehouse.query(days) == [(1,)]
    states = windows_of(source, source.streams[0], destination, now=datetime(2024, 3, 9, tzinfo=UTC))
    assert {status.state for status in states} == {WindowState.LOADED}
    rebuild(source, source.streams[0], destination)


def test_key_columns_may_have_any_name(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    """Also one that a statement of ours has for something else."""
    names = ("w", "was", "is_new", "t", "a", "written", "content", "place", "number", "excluded", "order", "row")
    columns = ", ".join(f'"{name}" int' for name in names)
    connection = source_database(f"create table t ({columns}, at date)")
    connection.execute(f"insert into t values ({'1, ' * len(names)}'2024-03-05')".encode())
    source = erp(name="t", primary_key=names, event_time="at")
    assert load_table(source, connection, warehouse, destination).inserted == 1
    connection.execute("update t set at = '2024-03-06'")
    assert load_table(source, connection, warehouse, destination).updated == 1
    assert warehouse.query("select rows from ops.windows order by window_start") == [(0,), (1,)]


def test_a_table_s_column_is_not_squeezed_into_a_narrower_declared_type(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id int primary key, n numeric(9, 4)); insert into t values (1, 1.2345)"
    )
    with pytest.raises(ContractViolationError, match=r"declared as numeric\(9,2\), and the source's numeric\(9,4\)"):
        load_table(
            erp(name="t", primary_key=("id",), columns={"n": "numeric(9,2)"}), connection, warehouse, destination
        )
    wider = erp(name="t", primary_key=("id",), columns={"n": "numeric(12,4)", "id": "bigint"})
    load_table(wider, connection, warehouse, destination)
    assert raw(warehouse, "id, n::text, pg_typeof(id)::text", "raw_erp.t") == [(1, "1.2345", "bigint")]


def test_an_appended_event_is_there_once_and_stays_as_it_came(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table events (id int primary key, what text, at timestamptz);"
        "insert into events values (1, 'a', '2024-01-01Z'), (2, 'b', '2024-01-02Z')"
    )
    source = erp(name="events", primary_key=("id",), write=WriteDisposition.APPEND, cursor=Cursor("at"))
    load_table(source, connection, warehouse, destination)
    connection.execute("insert into events values (3, 'c', '2024-01-02Z'); update events set what = 'x' where id = 2")
    assert counts(load_table(source, connection, warehouse, destination)) == (2, 1, 0, 1, 0, 0)
    assert raw(warehouse, "id, what", "raw_erp.events") == [(1, "a"), (2, "b"), (3, "c")]


def test_an_appended_stream_gets_each_load_once(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table events (what text); insert into events values ('a'), ('a')")
    source = erp(name="events", write=WriteDisposition.APPEND)
    assert load_table(source, connection, warehouse, destination).inserted == 2
    assert raw(warehouse, "what", "raw_erp.events") == [("a",), ("a",)]


def test_a_first_load_with_keys_that_are_none_is_judged_row_by_row(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    """Such a table cannot become raw as it is; its rows have the places that they came in."""
    connection = source_database(
        "create table t (id int, v text);"
        "insert into t values (1, 'first'), (null, 'no key'), (2, 'alone'), (1, 'last'), (null, 'none')"
    )
    source = erp(name="t", primary_key=("id",), reject_limit=0.5)
    report = load_table(source, connection, warehouse, destination)
    assert counts(report) == (5, 2, 0, 0, 1, 2)
    assert raw(warehouse, "id, v", "raw_erp.t") == [(1, "last"), (2, "alone")]
    assert warehouse.query("select row_in_load, reason from ops.quarantine order by 1") == [
        (2, "column id: the key is null"),
        (5, "column id: the key is null"),
    ]


@pytest.mark.parametrize("write", WriteDisposition)
def test_a_first_load_becomes_the_table_itself(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, write: WriteDisposition
) -> None:
    """The file that the attempt filled is the one that raw has. Later loads find a table like any other."""
    connection = source_database(
        "create table t (id int primary key, v text, n numeric(8, 2));"
        "insert into t select n, md5(n::text), n / 7.0 from generate_series(1, 1000) n"
    )
    source = erp(name="t", primary_key=("id",), write=write)
    warehouse.execute(
        "create function note() returns event_trigger language plpgsql as $$ begin"
        "  insert into public.files select pg_relation_filenode(objid) from pg_event_trigger_ddl_commands()"
        "  where schema_name = 'loading' and object_type = 'table'; end $$;"
        "create table public.files (node oid); grant all on public.files to public;"
        "grant usage on schema public to public;"
        "create event trigger note on ddl_command_end when tag in ('CREATE TABLE') execute function note()"
    )
    report = load_table(source, connection, warehouse, destination)
    assert counts(report) == (1000, 1000, 0, 0, 0, 0)
    assert warehouse.query("select pg_relation_filenode('raw_erp.t') in (select node from files)") == [(True,)]
    about = "select relpersistence, reloptions, relowner::regrole::text from pg_class where oid = 'raw_erp.t'::regclass"
    fullness = 90 if write is WriteDisposition.MERGE else 100
    assert warehouse.query(about) == [("p", [f"fillfactor={fullness}"], "headwater_loader")]
    columns = "select column_name from information_schema.columns where table_name = 't' order by ordinal_position"
    assert [name for (name,) in warehouse.query(columns)] == ["id", "v", "n", "_load_id", "_loaded_at", "_deleted_at"]
    defaults = "select from pg_attrdef where adrelid = 'raw_erp.t'::regclass"
    assert warehouse.query(defaults) == []
    with warehouse.connect("transformer") as transformer:
        said = transformer.execute("select distinct _load_id from raw_erp.t where _loaded_at <= now()").fetchall()
    assert said == [(report.load_id,)]
    connection.execute("insert into t values (2000, 'new', 1.5)")
    assert load_table(source, connection, warehouse, destination).inserted == 1
    assert raw(warehouse, "id, v, n", "raw_erp.t") == connection.execute("select * from t order by id").fetchall()


def test_a_first_load_whose_key_is_not_unique_is_loaded_the_other_way(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int, v text); insert into t values (1, 'a'), (1, 'b'), (2, 'c')")
    source = erp(name="t", primary_key=("id",))
    assert counts(load_table(source, connection, warehouse, destination)) == (3, 2, 0, 0, 1, 0)
    assert raw(warehouse, "id, v", "raw_erp.t") == [(1, "b"), (2, "c")]


def test_a_missing_table_or_column_is_named(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table t (id int primary key)")
    with pytest.raises(ConfigurationError, match='no table "public"."trains"'):
        load_table(erp(name="trains", primary_key=("id",)), connection, warehouse, destination)
    with pytest.raises(ConfigurationError, match="no column changed"):
        load_table(erp(name="t", primary_key=("id",), cursor=Cursor("changed")), connection, warehouse, destination)


def test_a_refused_password_is_said_without_saying_it(warehouse: Warehouse, destination: Destination) -> None:
    url = warehouse.server.url.set(password="not-the-one").render_as_string(hide_password=False)
    source = erp(name="t", primary_key=("id",))
    with pytest.raises(ConfigurationError, match="refused the connection") as caught:
        ingest(source, source.streams[0], EnvironmentConnections({"HEADWATER_ERP_URL": url}), destination)
    assert "not-the-one" not in str(caught.value)


LARGE = """
create table t (id int primary key, v text);
alter table t alter v set storage plain;
insert into t select n, repeat(md5(n::text), 120) from generate_series(1, 40000) n;
"""
"""Of 160 MB, so that it is worth two readers."""


def test_a_large_table_is_read_in_parts_as_of_one_instant(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(LARGE)
    source = replace(erp(name="t", primary_key=("id",)), readers=2)
    readers = "select count(*) from pg_stat_activity where query like 'copy %t_where%' and datname = current_database()"
    readers = readers.replace("t_where", '"t" where')
    chunks = source.extract(source.streams[0], ExtractRequest(), database(connection, warehouse)).chunks
    assert isinstance(chunks, Generator)
    with closing(chunks):  # whatever happens: a COPY that nobody reads on keeps PostgreSQL from dropping any database
        first = next(chunks)
        until(lambda: connection.execute(readers.encode()).fetchone() == (2,), "both read, and wait to be read on")
        connection.execute("delete from t where id % 2 = 0; update t set v = 'later'")
        rows = first.rows + sum(chunk.rows for chunk in chunks)
    assert rows == 40_000
    load_table(source, connection, warehouse, destination)
    there = connection.execute("select id, v from t order by id").fetchall()
    assert raw(warehouse, "id, v", "raw_erp.t") == there


def test_one_reader_that_is_cut_off_ends_the_load(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(LARGE)
    source = replace(erp(name="t", primary_key=("id",)), readers=2)
    extraction = source.extract(source.streams[0], ExtractRequest(), database(connection, warehouse))
    next(extraction.chunks)
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'headwater extract'"
        " and datname = current_database() order by backend_start limit 1"
    )
    with pytest.raises(SourceUnavailableError, match="broke off"):
        list(extraction.chunks)
    left = b"select from pg_stat_activity where application_name = 'headwater extract' and datname = current_database()"
    until(lambda: connection.execute(left).fetchone() is None, "the server has noticed that nobody reads", seconds=5)
