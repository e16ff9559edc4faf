"""Rows that were forgotten are nowhere, whatever way they came; all others are as they were, and none comes back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.connections import Connections, Database, EnvironmentConnections, StoreLocation
from connectors.deletions import find_deleted
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.commit import commit
from connectors.errors import ConfigurationError, DataError
from connectors.forget.derived import Lineage
from connectors.forget.keys import children_of, subject_of
from connectors.forget.run import forget, let_come_again
from connectors.formats.file_streams import CsvStream, FileStream, JsonLinesStream, JsonStream, OnBadFile, ParquetStream
from connectors.ingest import Destination, ingest
from connectors.model import Deletes, LandingFormat, Source, Window, WriteDisposition
from connectors.reconcile.run import reconcile
from connectors.replay import replay
from connectors.rest import BodyFormat, Parent, RestSource, RestStream
from connectors.sql import SqlSource, SqlStream
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.examples import Prepare, connections, database, erp, met, order, raw, shop_source
from tests.connectors.forget.forgetting import all_rows, check_gone, check_whole, forgotten, looked, resumed, roles
from tests.connectors.test_canaries import HASHED, KEY, hash_of, with_key

CANARY, OTHER = "canary.one@birds.test", "somebody@else.test"


@dataclass(frozen=True, slots=True)
class Case:
    """A source with the rows 1 (the canary's), 2 and 3, and a way to have it send them all again."""

    source: Source
    connections: Connections
    again: Callable[[], object]


Make = Callable[[], Case]


@pytest.fixture(
    params=[
        "documents",
        "an API's CSV",
        "a PostgreSQL table",
        "a PostgreSQL table as Parquet",
        "a database",
        "a database as Parquet",
        "CSV files",
        "UTF-16 files",
        "JSON files",
        "JSON lines",
        "Parquet files",
    ]
)
def case(
    request: pytest.FixtureRequest, api: Api, source_database: Prepare, warehouse: Warehouse, tmp_path: Path
) -> Case:
    makers: dict[str, Make] = {
        "documents": lambda: documents(api),
        "an API's CSV": lambda: csv_of_an_api(api),
        "a PostgreSQL table": lambda: table(source_database, warehouse, None),
        "a PostgreSQL table as Parquet": lambda: table(source_database, warehouse, LandingFormat.PARQUET),
        "a database": lambda: sqlite(tmp_path, None),
        "a database as Parquet": lambda: sqlite(tmp_path, LandingFormat.PARQUET),
        "CSV files": lambda: csv_files(tmp_path, "utf-8"),
        "UTF-16 files": lambda: csv_files(tmp_path, "utf-16"),
        "JSON files": lambda: json_files(tmp_path),
        "JSON lines": lambda: json_lines(tmp_path),
        "Parquet files": lambda: parquet_files(tmp_path),
    }
    return makers[request.param]()


def person(number: int, **changes: Any) -> dict[str, Any]:
    return order(
        number, email=CANARY if number == 1 else f"{number}-{OTHER}", n=12345678901234567890 + number, **changes
    )


def documents(api: Api) -> Case:
    api.answer = lambda _: Answer({"result": {"orders": [person(1), person(2), person(3)]}})
    return Case(shop_source(pages=None, cursor=None, since_parameter=None), connections(api), lambda: None)


def csv_of_an_api(api: Api) -> Case:
    lines = [f'{n},"{person(n)["email"]}, or ""so""",2024-01-01Z,2024-01-01Z' for n in (1, 2, 3)]
    api.answer = lambda _: Answer("\n".join(["id,email,changed,at", *lines, ""]).encode())
    source = shop_source(
        pages=None, format=BodyFormat.CSV, records="", cursor=None, since_parameter=None, columns={"id": "bigint"}
    )
    return Case(source, connections(api), lambda: None)


def table(prepare: Prepare, warehouse: Warehouse, landing: LandingFormat | None) -> Case:
    connection = prepare(
        "create table people (id numeric(9,2) primary key, email text, n numeric, at timestamptz);"
        f"insert into people select n, case n when 1 then '{CANARY}' else n || '-{OTHER}' end, 'NaN', null"
        " from generate_series(1, 3) n"
    )
    source = erp(name="people", primary_key=("id",), landing=landing, write=WriteDisposition.MERGE, deletes=Deletes())
    return Case(source, database(connection, warehouse), lambda: None)


def sqlite(folder: Path, landing: LandingFormat | None) -> Case:
    with sqlite3.connect(folder / "people.db") as connection:
        connection.execute("create table people (id integer primary key, email text, n real)")
        rows = [(n, person(n)["email"], n / 7) for n in (1, 2, 3)]
        connection.executemany("insert into people values (?, ?, ?)", rows)
    source = SqlSource(
        name="erp",
        database=Database("erp"),
        streams=(SqlStream(name="people", primary_key=("id",), landing=landing),),
    )
    return Case(source, EnvironmentConnections({"HEADWATER_ERP_URL": f"sqlite:///{folder}/people.db"}), lambda: None)


def files(folder: Path, stream: FileStream, contents: dict[str, bytes]) -> Case:
    (folder / "in").mkdir()

    def write() -> None:
        for name, content in contents.items():
            path = folder / "in" / name
            before = path.stat().st_mtime_ns if path.exists() else 0
            path.write_bytes(content)
            while path.stat().st_mtime_ns == before:
                path.write_bytes(content)

    write()
    source, where = met(stream, (folder / "in").as_uri())
    return Case(source, where, write)


def csv_files(folder: Path, encoding: str) -> Case:
    stream = CsvStream(
        name="people",
        pattern="*.csv",
        primary_key=("id",),
        delimiter=";",
        encoding=encoding,
        skip_lines=1,
        columns={"id": "bigint"},
    )
    first = f'made by hand\r\nid;email;said\r\n2;2-{OTHER};"a ""b"";\n c"\r\n\r\n1;{CANARY};x\r\n'
    second = f"made by hand\nid;email;said\n3;3-{OTHER};\n"
    return files(folder, stream, {"a.csv": first.encode(encoding), "b.csv": second.encode(encoding)})


def json_files(folder: Path) -> Case:
    content = json.dumps({"by": "hand", "r": {"items": [person(2), person(1), person(3)]}}, indent=1)
    stream = JsonStream(name="people", pattern="*.json", records="r.items", primary_key=("id",))
    return files(folder, stream, {"a.json": content.encode()})


def json_lines(folder: Path) -> Case:
    content = "\n".join(["\ufeff" + json.dumps(person(2)), json.dumps(person(1)), "", json.dumps(person(3))])
    return files(
        folder, JsonLinesStream(name="people", pattern="*", primary_key=("id",)), {"a.ndjson": content.encode()}
    )


def parquet_files(folder: Path) -> Case:
    found = pa.table(
        {
            "id": [1, 2, 3],
            "email": pa.array([person(n)["email"] for n in (1, 2, 3)]).dictionary_encode(),
            "n": pa.array([1.5, None, float("nan")], pa.float32()),
            "said": [[{"to": CANARY}], None, []],
        }
    )
    pq.write_table(found, folder / "a.parquet")
    stream = ParquetStream(name="people", pattern="*", primary_key=("id",))
    return files(folder, stream, {"a.parquet": (folder / "a.parquet").read_bytes()})


def loaded(case: Case, destination: Destination, **options: Any) -> Any:
    return ingest(case.source, case.source.streams[0], case.connections, destination, **options)[-1]


def test_a_forgotten_row_is_nowhere_and_does_not_come_back(
    case: Case, warehouse: Warehouse, destination: Destination, landing_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = f"raw_{case.source.name}.{case.source.streams[0].name}"
    loaded(case, destination)
    others = all_rows(warehouse, table, "id::text::numeric <> 1")
    assert len(others) == 2
    before = looked(case.source, warehouse, destination, "id=1")
    assert (before.places["landing"], before.places[table]) == (1, 1)
    assert len(all_rows(warehouse, table)) == 3, "looking changes nothing"
    report = forgotten(case.source, warehouse, destination, "id=01")
    assert (report.status, report.places["landing"], report.places[table]) == ("done", 1, 1)
    assert all_rows(warehouse, table) == others
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)

    case.again()
    again = loaded(case, destination)
    assert (again.forgotten, again.extracted, again.inserted) == (1, 3, 0)
    assert "1 rows of forgotten keys came again" in caplog.text
    assert len(all_rows(warehouse, table)) == 2
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)
    for (load_id,) in warehouse.query("select load_id from ops.loads where kind = 'rows' order by started_at"):
        [replayed] = replay(case.source, case.source.streams[0], destination, load_id=load_id)
        assert (replayed.forgotten, replayed.extracted) == (1, 3)
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)


def test_streams_that_have_forgotten_nothing_pay_one_look(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    case = documents(api)
    loaded(case, destination)
    forgotten(case.source, warehouse, destination, "id=1")
    other = shop_source(name="others", pages=None, cursor=None, since_parameter=None)
    report = ingest(other, other.streams[0], connections(api), destination)[-1]
    assert (report.inserted, report.forgotten) == (3, 0), "another stream's keys are its own"


@pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])
def test_of_several_rows_in_several_loads_and_objects_each_is_found(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    landing: LandingFormat | None,
) -> None:
    connection = source_database(
        "create table t (day date, name text, said text, primary key (day, name));"
        " insert into t select '2024-01-01'::date + n % 7, 'n,' || n, 'canary-' || n || repeat('-x', n % 50)"
        " from generate_series(1, 5000) n"
    )
    source = erp(name="t", primary_key=("day", "name"), landing=landing)
    where = database(connection, warehouse)
    ingest(source, source.streams[0], where, destination)
    connection.execute("update t set said = said || '-y'")
    ingest(source, source.streams[0], where, destination)
    keys = warehouse.query("select day::text, name from raw_erp.t where name ~ '(7|13)$' order by 2")
    others = all_rows(warehouse, "raw_erp.t", "name !~ '(7|13)$'")
    report = forgotten(source, warehouse, destination, *(f"day={day},name={name}" for day, name in keys))
    assert (report.places["landing"], report.places["raw_erp.t"]) == (2 * len(keys), len(keys))
    assert all_rows(warehouse, "raw_erp.t") == others
    check_gone(warehouse, landing_folder, *(f"canary-{name[2:]}-" for _, name in keys[:50]))
    check_whole(warehouse, destination, landing_folder, source)
    assert warehouse.query("select sum(rows_erased), sum(rows_forgotten) from ops.loads") == [(2 * len(keys), 0)]
    second = forgotten(source, warehouse, destination, "day=2024-01-02,name=n,1")
    assert second.places["landing"] == 2
    check_whole(warehouse, destination, landing_folder, source)


def test_rows_in_quarantine_go_too_and_the_others_can_be_replayed(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    bad = [
        person(1, kind="none"),
        json.dumps({"id": 4, "email": OTHER})[:-1] + ', "id": 4}',  # a field twice: whose it is, is plain
        json.dumps(person(1))[:-1] + f', "email": "{CANARY}"}}',
        json.dumps(person(1))[:-1] + ', "odd": NaN}',
        person(5, kind="none"),
    ]
    records = ",".join(each if isinstance(each, str) else json.dumps(each) for each in [person(2, kind="7"), *bad])
    api.answer = lambda _: Answer(f'{{"result": {{"orders": [{records}]}}}}'.encode())
    declared = {"pages": None, "cursor": None, "since_parameter": None, "reject_limit": 1}
    source = shop_source(**declared, columns={"kind": "integer"})
    where = connections(api)
    assert ingest(source, source.streams[0], where, destination)[-1].quarantined == 5
    others = warehouse.query("select payload from ops.quarantine where payload not like '%canary%' order by 1")
    report = forgotten(source, warehouse, destination, "id=1")
    assert (report.places["landing"], report.places["ops.quarantine"], report.doubtful) == (3, 3, 0)
    assert warehouse.query("select payload from ops.quarantine order by 1") == others
    assert "raw_shop.orders" not in {place for place, rows in report.places.items() if rows}
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, source)
    mended = shop_source(**declared, columns={"kind": "text"})
    warehouse.execute("alter table raw_shop.orders alter column kind type text")
    [replayed] = replay(mended, mended.streams[0], destination)
    assert (replayed.inserted, replayed.quarantined, replayed.forgotten) == (1, 1, 0)
    assert raw(warehouse, "id, kind") == [(2, "7"), (5, "none")], "rows kept their places"
    check_whole(warehouse, destination, landing_folder, mended)
    again = ingest(source, source.streams[0], where, destination)[-1]
    assert (again.forgotten, again.quarantined) == (3, 1)
    check_gone(warehouse, landing_folder, CANARY)


def test_records_that_only_perhaps_name_a_key_are_counted_and_erased_if_told(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    stream = CsvStream(
        name="people",
        pattern="*.csv",
        primary_key=("id",),
        reject_limit=1,
        on_bad_file=OnBadFile.QUARANTINE,
    )
    contents = {
        "a.csv": f"id,email\nk17,{CANARY},one,more\nk2,{OTHER}\nk3,too,many\n".encode(),
        "b.csv": f"id,email\nk17,{CANARY}".encode(),  # cut off
        "c.csv": b"id,email\nk9,x",
    }
    case = files(tmp_path, stream, contents)
    assert loaded(case, destination).quarantined == 4
    assert looked(case.source, warehouse, destination, "k17").doubtful == 2
    report = forgotten(case.source, warehouse, destination, "k17")
    assert (report.doubtful, report.places.get("landing", 0)) == (2, 0)
    report = forgotten(case.source, warehouse, destination, "k17", with_unreadable=True)
    assert (report.doubtful, report.places["landing"], report.places["ops.quarantine"]) == (0, 2, 2)
    check_gone(warehouse, landing_folder, CANARY)
    assert warehouse.query("select payload from ops.quarantine order by 1") == [("c.csv",), ("k3,too,many",)]


def test_what_was_never_loaded_goes_too(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    """A load that failed after it had landed, objects of a run that was killed, and the table that it filled."""
    case = documents(api)
    loaded(case, destination)
    refused = shop_source(pages=None, cursor=None, since_parameter=None, primary_key=("missing",))
    with pytest.raises(DataError):
        ingest(refused, refused.streams[0], connections(api), destination)
    landed = next(landing_folder.rglob("a1-*"))
    landed.with_name("a7-00001.jsonl.zst").write_bytes(landed.read_bytes())
    with warehouse.connect("loader") as connection:
        connection.execute(f"create table loading.l1 as select '{CANARY}' as email".encode())
        connection.execute("comment on table loading.l1 is 'shop.orders'")
    report = forgotten(case.source, warehouse, destination, "id=1")
    assert report.places["landing, objects of killed runs"] == 1
    assert report.places["loading, tables of killed runs"] == 1
    assert report.places["landing"] == 2
    check_gone(warehouse, landing_folder, CANARY)
    assert loaded(case, destination).forgotten == 1
    check_whole(warehouse, destination, landing_folder, case.source)


def test_what_messages_quote_of_a_row_is_masked(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    case = documents(api)
    loaded(case, destination)
    warehouse.execute(
        f"update ops.loads set error = 'column email: \"{CANARY}\" is odd';"
        " insert into ops.reconciliations (reconciliation_id, source, stream, compared_by, key_from, key_to)"
        " values (gen_random_uuid(), 'shop', 'orders', 'rows', '1', '2');"
        " insert into ops.differences (reconciliation_id, source, stream, key, kind, is_certain)"
        " select reconciliation_id, 'shop', 'orders', jsonb_build_array(n), 'missing', true"
        " from ops.reconciliations, unnest(array['1', '2']) n;"
        " insert into ops.incidents (severity, title, cause, next_command)"
        f" values ('error', '{CANARY} is odd', 'see {CANARY}', 'none');"
        " insert into ops.alerts (alert_id, channel, kind, subject, body)"
        f" values (gen_random_uuid(), 'mail', 'opened', 'odd', '{{\"lines\": [\"{CANARY}\", 7]}}')"
    )
    report = forgotten(case.source, warehouse, destination, "1")
    assert report.places["ops, messages"] == 3
    check_gone(warehouse, landing_folder, CANARY)
    assert warehouse.query("select title, cause from ops.incidents") == [("*** is odd", "see ***")]
    assert warehouse.query("select body from ops.alerts") == [({"lines": ["***", 7]},)]
    assert warehouse.query("select error from ops.loads") == [('column email: "***" is odd',)]
    assert warehouse.query("select key from ops.differences") == [(["2"],)]
    assert warehouse.query("select key_from, key_to from ops.reconciliations") == [(None, "2")]


def test_a_hashed_key_is_given_in_clear(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    connection = source_database(
        f"create table people (email text primary key, n int); insert into people values ('{CANARY}', 1), ('b', 2)"
    )
    source = erp(name="people", primary_key=("email",), privacy={"email": HASHED}, deletes=Deletes(limit=1))
    where = with_key(database(connection, warehouse))
    before = erp(name="people", primary_key=("email",))
    ingest(before, before.streams[0], where, destination)
    ingest(source, source.streams[0], where, destination)
    find_deleted(source, source.streams[0], where, destination)
    report = forgotten(source, warehouse, destination, CANARY, connections=where)
    assert report.places["landing"] == 3, "also what landed before it was hashed, and its keys"
    check_gone(warehouse, landing_folder, CANARY, hash_of(CANARY))
    assert {*raw(warehouse, "email", "raw_erp.people")} == {("b",), (hash_of("b"),)}
    deleted = find_deleted(source, source.streams[0], where, destination)
    assert (deleted.forgotten, deleted.extracted, deleted.unchanged) == (1, 2, 1)
    check_gone(warehouse, landing_folder, CANARY, hash_of(CANARY))


def test_a_reconciliation_does_not_miss_what_was_forgotten(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    case = table(source_database, warehouse, None)
    loaded(case, destination)
    forgotten(case.source, warehouse, destination, "1")
    found = reconcile(case.source, case.source.streams[0], case.connections, destination, heal=True)
    assert found is not None
    assert (list(found.findings.differences), found.findings.is_alarming) == ([], False)
    assert warehouse.query("select count(*) from ops.differences") == [(0,)]
    check_gone(warehouse, landing_folder, CANARY)


def test_a_row_may_come_again_if_it_is_allowed(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    case = documents(api)
    loaded(case, destination)
    forgotten(case.source, warehouse, destination, "1", "2")
    subject = subject_of(case.source, case.source.streams[0], ["1", "3"], case.connections)
    assert let_come_again(subject, destination, warehouse.url("owner"), by="a test") == 1
    report = loaded(case, destination)
    assert (report.inserted, report.forgotten) == (1, 1)
    assert raw(warehouse, "id") == [(1,), (3,)]


def test_with_a_secret_only_who_has_it_can_tell_the_keys(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    case = documents(api)
    secretive = Destination(destination.warehouse, destination.landing, lambda: KEY)
    loaded(case, secretive)
    forgotten(case.source, warehouse, secretive, "1")
    for secret in (lambda: None, lambda: "another one, not the same"):
        stranger = Destination(destination.warehouse, destination.landing, secret)
        with pytest.raises(ConfigurationError, match="HEADWATER_FORGET_KEY"):
            loaded(case, stranger)
    assert loaded(case, secretive).forgotten == 1
    told = warehouse.query("select secret, encode(salt, 'hex') from ops.forget_salts")
    assert KEY not in str(told)


def test_streams_that_carry_the_key_of_their_parent_are_named(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    parent = RestStream(name="orders", path="/orders", records="result.orders", primary_key=("id",))
    child = RestStream(
        name="items",
        path="/orders/{id}/items",
        primary_key=("item",),
        parent=Parent(parent, fields={"order_id": "id"}),
    )
    shop = shop_source()
    source = RestSource(name="shop", base_url=shop.base_url, auth=shop.auth, streams=(parent, child))

    def answer(request: Request) -> Answer:
        if request.path == "/orders":
            return Answer({"result": {"orders": [{"id": 1}, {"id": 2}]}})
        number = int(request.path.split("/")[2])
        return Answer([{"item": 10 * number + n, "to": CANARY if number == 1 else OTHER} for n in (1, 2)])

    api.answer = answer
    for stream in source.streams:
        ingest(source, stream, connections(api), destination)
    subject = subject_of(source, parent, ["id=1"], connections(api))
    [found] = children_of(subject)
    assert (str(found), found.columns) == ("shop.items", ("order_id",))
    forget(found, destination, roles(warehouse), Lineage("shop.items"), by="a test")
    assert raw(warehouse, "item, order_id", "raw_shop.items") == [(21, 2), (22, 2)]
    assert ingest(source, child, connections(api), destination)[-1].forgotten == 2
    check_gone(warehouse, landing_folder, CANARY)


@pytest.mark.parametrize("text", ["di=17", "day=2024-01-01", "name=x", "17"])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    source = erp(name="t", primary_key=("day", "name"))
    with pytest.raises(ConfigurationError, match="Write it as `day=…,name=…`") as caught:
        subject_of(source, source.streams[0], [text], EnvironmentConnections({}))
    assert text not in str(caught.value)


def test_a_value_alone_is_a_key_and_one_of_another_field_is_none() -> None:
    source = erp(name="t", primary_key=("tailnum",))
    right = {"N1": "N1", "tailnum=N1": "N1", "tail-num = N1": "N1", "tailnum=a=b": "a=b", "1+1=2": "1+1=2"}
    for text, value in right.items():
        assert subject_of(source, source.streams[0], [text], EnvironmentConnections({})).keys == ((value,),)
    with pytest.raises(ConfigurationError, match="none of this stream.*Write it as `tailnum=…`"):
        subject_of(source, source.streams[0], ["id=N1"], EnvironmentConnections({}))


def test_a_stream_without_a_key_is_refused() -> None:
    source = erp(name="t", write=WriteDisposition.APPEND)
    with pytest.raises(ConfigurationError, match="no primary_key"):
        subject_of(source, source.streams[0], ["id=1"], EnvironmentConnections({}))


def test_loads_that_cannot_be_read_are_named_and_the_request_stays_open(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    case = documents(api)
    loaded(case, destination)
    [part] = landing_folder.rglob("a1-*")
    content = part.read_bytes()
    part.write_bytes(content[:-3])
    with pytest.raises(DataError, match="1 loads of the landing could not be reached"):
        forgotten(case.source, warehouse, destination, "1")
    assert raw(warehouse, "id") == [(2,), (3,)]
    part.write_bytes(content)
    [report] = resumed(case.source, warehouse, destination)
    assert report.status == "done"
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)


def test_objects_of_a_bucket_are_replaced_too(api: Api, warehouse: Warehouse, s3: StoreLocation) -> None:
    landing = Landing(StoreLocation(f"s3://landing/{uuid4()}", s3.options))
    destination = Destination(warehouse.url("loader"), landing)
    case = documents(api)
    loaded(case, destination)
    forgotten(case.source, warehouse, destination, "1")
    [manifest] = landing.manifests("shop", "orders")
    assert (manifest.rows, manifest.forgotten) == (2, [1])
    assert b"".join(chunk.data for chunk in landing.read(manifest)).count(b"\n") == 2
    stored = {each.key for each in landing.stored("shop", "orders") if not each.key.endswith("manifest.json")}
    assert stored == {landed.key for landed in manifest.objects}


def test_a_window_that_was_being_read_brings_nothing_back(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    case = documents(api)
    loaded(case, destination)
    day = Window.parse("2024-01-01", "2024-01-02")
    api.answer = lambda _: Answer({"result": {"orders": [person(1, said="again"), person(2, said="again")]}})
    forget_now = pytest.MonkeyPatch()

    def committed(*arguments: Any, **options: Any) -> Any:
        """The load has looked at what is forgotten, and has not begun its transaction."""
        forget_now.undo()
        forgotten(case.source, warehouse, destination, "1")
        return commit(*arguments, **options)

    forget_now.setattr("connectors.ingest.commit", committed)
    report = loaded(case, destination, window=day)
    assert (report.updated, report.forgotten) == (1, 1)
    assert raw(warehouse, "id") == [(2,), (3,)]
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)


def test_a_short_secret_is_refused(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    case = documents(api)
    loaded(case, destination)
    secretive = Destination(destination.warehouse, destination.landing, lambda: "short")
    with pytest.raises(ConfigurationError, match="HEADWATER_FORGET_KEY"):
        forgotten(case.source, warehouse, secretive, "1")
