"""Rows that their source deleted: marked by a comparison of keys, unmarked when they are back, never by a mishap."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.connections import Connections
from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import Lease, LoadReport
from connectors.errors import ConfigurationError, ContractViolationError, SourceUnavailableError, StreamBusyError
from connectors.failpoints import FAILPOINTS
from connectors.files import CsvStream
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, Deletes, Extraction, KeySource, Stream, Window, WriteDisposition
from connectors.postgres import PostgresSource
from connectors.rebuild import rebuild
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import (
    Prepare,
    Shop,
    connections,
    counts,
    database,
    erp,
    load,
    load_table,
    order,
    raw,
    shop_source,
    weather,
)
from tests.victims import kill_at, sleeper
from tests.waiting import until

CURSOR = Cursor("changed")
TABLE = """
create table t (id int primary key, v text, changed timestamptz not null default now());
insert into t select n, 'v' || n, '2024-01-01Z' from generate_series(1, 100) n;
"""


def table(**changes: Any) -> PostgresSource:
    return erp(**{"name": "t", "primary_key": ("id",), "cursor": CURSOR, "deletes": Deletes(), **changes})


class Erp:
    """A table of an ERP, its raw table, and both ways of bringing them together."""

    def __init__(
        self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination, **changes: Any
    ) -> None:
        self.connection = connection
        self.warehouse = warehouse
        self.destination = destination
        self.source = table(**changes)

    def at_source(self, statements: str) -> None:
        self.connection.execute(statements.encode())

    def load(self) -> LoadReport:
        return load_table(self.source, self.connection, self.warehouse, self.destination)

    def compare(self, **options: Any) -> LoadReport:
        return self.comparing(**options)()

    def comparing(self, **options: Any) -> Callable[[], LoadReport]:
        where = database(self.connection, self.warehouse)
        return partial(find_deleted, self.source, self.source.streams[0], where, self.destination, **options)

    def deleted(self, key: str = "id") -> list[Any]:
        found = self.warehouse.query(f"select {key} from raw_erp.t where _deleted_at is not null")
        return sorted(row[0] if len(row) == 1 else row for row in found)

    def raw(self) -> list[tuple[Any, ...]]:
        return self.warehouse.query("select * from raw_erp.t order by 1")


Open = Callable[..., Erp]


@pytest.fixture
def open_erp(source_database: Prepare, warehouse: Warehouse, destination: Destination) -> Open:
    """An ERP whose table is made by the statements, and loaded."""

    def make(statements: str = TABLE, **changes: Any) -> Erp:
        made = Erp(source_database(statements), warehouse, destination, **changes)
        made.load()
        return made

    return make


def test_rows_that_are_gone_are_marked_and_the_others_left_alone(open_erp: Open) -> None:
    shop = open_erp()
    before = shop.raw()
    shop.at_source("delete from t where id in (3, 5, 99)")
    report = shop.compare()
    assert counts(report) == (97, 0, 0, 97, 0, 0)
    assert report.deleted == 3
    assert shop.deleted() == [3, 5, 99]
    marked = shop.warehouse.query(
        "select distinct r._load_id, r._deleted_at = r._loaded_at, r._loaded_at = l.raw_loaded_at, v is not null"
        " from raw_erp.t r join ops.loads l on l.load_id = r._load_id where _deleted_at is not null"
    )
    assert marked == [(report.load_id, True, True, True)]
    assert [row for row in shop.raw() if row[0] not in (3, 5, 99)] == [r for r in before if r[0] not in (3, 5, 99)]
    ledger = "select kind, status, rows_extracted, rows_unchanged, rows_deleted from ops.loads where kind <> 'rows'"
    assert shop.warehouse.query(ledger) == [("keys", "loaded", 97, 97, 3)]
    assert shop.warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]


def test_a_second_comparison_finds_nothing_more(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id = 3")
    shop.compare()
    before = shop.raw()
    report = shop.compare()
    assert (report.deleted, report.updated, report.unchanged) == (0, 0, 99)
    assert shop.raw() == before


def test_only_the_key_columns_are_read_and_landed(open_erp: Open, landing_folder: Path) -> None:
    shop = open_erp()
    report = shop.compare()
    manifest = shop.destination.landing.manifest(
        shop.warehouse.query("select manifest_key from ops.loads where load_id = %s", [report.load_id])[0][0]
    )
    assert manifest is not None
    assert (manifest.kind, manifest.rows) == ("keys", 100)
    assert [(column.name, column.type) for column in manifest.columns] == [("id", "integer")]


def test_a_row_that_is_back_unchanged_is_unmarked_by_the_next_comparison(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("create table kept as select * from t where id = 3; delete from t where id = 3")
    shop.compare()
    shop.at_source("insert into t select * from kept")
    report = shop.compare()
    assert (report.updated, report.unchanged, report.deleted) == (1, 99, 0)
    assert shop.deleted() == []
    assert shop.warehouse.query("select v, _load_id from raw_erp.t where id = 3") == [("v3", report.load_id)]


def test_a_load_that_brings_the_row_again_unmarks_it(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id = 3")
    shop.compare()
    shop.at_source("insert into t values (3, 'again', '2024-02-01Z')")
    assert shop.load().updated == 1
    assert shop.deleted() == []
    assert shop.warehouse.query("select v from raw_erp.t where id = 3") == [("again",)]


def test_in_an_append_stream_only_a_comparison_unmarks_it(open_erp: Open) -> None:
    shop = open_erp(write=WriteDisposition.APPEND)
    shop.at_source("delete from t where id = 3")
    shop.compare()
    assert shop.deleted() == [3]
    shop.at_source("insert into t values (3, 'again', '2024-02-01Z')")
    assert shop.load().updated == 0
    assert shop.deleted() == [3]
    assert shop.compare().updated == 1
    assert shop.deleted() == []
    assert shop.warehouse.query("select v from raw_erp.t where id = 3") == [("v3",)]


def test_rows_that_came_after_the_last_load_are_no_concern_of_it(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("insert into t values (101, 'new', now()); delete from t where id = 1")
    report = shop.compare()
    assert (report.extracted, report.unchanged, report.deleted) == (100, 100, 1)
    assert shop.deleted() == [1]
    assert shop.load().inserted == 1
    assert shop.deleted() == [1]


def test_more_than_the_limit_marks_nothing_and_says_how_to_go_on(open_erp: Open) -> None:
    shop = open_erp()
    before = shop.raw()
    shop.at_source("delete from t where id <= 11")
    with pytest.raises(
        ContractViolationError, match=r"11 of 100 rows \(11.0%\) are gone .* more than the 10.0%"
    ) as refused:
        shop.compare()
    assert (refused.value.source, refused.value.stream) == ("erp", "t")
    assert shop.raw() == before
    statuses = "select status, error like '%11 of 100%' from ops.loads where kind = 'keys'"
    assert shop.warehouse.query(statuses) == [("failed", True)]
    assert shop.compare(limit=0.11).deleted == 11
    assert shop.deleted() == list(range(1, 12))


def test_the_share_is_of_the_rows_that_are_not_marked_yet(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id <= 10")
    shop.compare()
    shop.at_source("delete from t where id <= 20")
    with pytest.raises(ContractViolationError, match="10 of 90 rows"):
        shop.compare()


def test_a_source_without_a_row_is_believed_only_by_a_limit_of_one(open_erp: Open) -> None:
    shop = open_erp(deletes=Deletes(limit=1))
    shop.at_source("delete from t")
    for limit in (None, 0.99):
        with pytest.raises(ContractViolationError, match="has no rows any more, and raw has 100"):
            shop.compare(limit=limit)
    assert shop.deleted() == []
    assert shop.compare(limit=1).deleted == 100
    assert shop.compare().deleted == 0, "nothing is alive: an empty source is no surprise"


def test_a_stream_that_was_never_loaded_has_nothing_to_compare(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    shop = Erp(source_database("select"), warehouse, destination)  # not even the table is there: it is not asked
    report = shop.compare()
    assert (*counts(report), report.deleted) == (0,) * 7
    assert warehouse.query("select kind, status from ops.loads") == [("keys", "loaded")]
    shop.at_source(TABLE)
    assert shop.load().inserted == 100


@pytest.mark.parametrize(
    ("created", "altered", "declared"),
    [
        ("smallint", None, {"id": "bigint"}),
        ("int", None, {"id": "text"}),
        ("varchar(5)", None, {"id": "text"}),
        ("numeric(5,0)", "numeric(9,2)", {}),
        ("int", "bigint", {}),
        ("char(3)", None, {}),
        ("double precision", None, {}),
    ],
)
def test_keys_are_compared_as_values_whatever_their_types(
    open_erp: Open, created: str, altered: str | None, declared: dict[str, str]
) -> None:
    shop = open_erp(TABLE.replace("id int", f"id {created}"), columns=declared)
    if altered:  # wider than raw's, which no load has followed yet
        shop.at_source(f"alter table t alter id type {altered}")
    shop.at_source(f"delete from t where id = 7::{created}")
    if altered == "bigint":
        shop.at_source("insert into t values (3000000000, 'too much for integer', now())")
    assert shop.compare().deleted == 1
    assert shop.deleted("trim(id::text)::numeric::int") == [7]
    before = shop.raw()
    shop.load()
    assert shop.compare().deleted == 0
    assert len(shop.deleted()) == 1
    assert len(shop.raw()) == len(before) + (altered == "bigint")


def test_a_key_of_another_kind_than_raws_is_refused(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("alter table t alter id type date using date '2024-01-01' + id")
    with pytest.raises(ContractViolationError, match="key `id` is date, raw's is integer"):
        shop.compare()
    assert shop.deleted() == []


def test_texts_are_told_apart_by_every_character(open_erp: Open) -> None:
    keys = ["a", "A", "ä", "a\u0308", "a ", "", "x'y", "😀", "0", "00"]
    rows = ", ".join("('" + key.replace("'", "''") + "', 'v', now())" for key in keys)
    shop = open_erp(
        "create table t (id text primary key, v text, changed timestamptz);"
        f"insert into t values {rows}, ('gone', 'v', now())"
    )
    shop.at_source("delete from t where id = 'gone'")
    shop.compare()
    assert shop.deleted() == ["gone"]
    for key in keys:
        shop.at_source("delete from t where id = '" + key.replace("'", "''") + "'")
        shop.compare(limit=0.99) if key != keys[-1] else shop.compare(limit=1)
        assert shop.warehouse.query("select from raw_erp.t where id = %s and _deleted_at is not null", [key])
    assert len(shop.deleted()) == len(keys) + 1


def test_a_key_of_several_columns_is_compared_whole(open_erp: Open) -> None:
    shop = open_erp(
        'create table t ("orderId" int, line text, v text, changed timestamptz, primary key ("orderId", line));'
        "insert into t select n, l, 'v', now() from generate_series(1, 30) n, unnest(array['a', 'b', 'c']) l",
        primary_key=("orderId", "line"),
    )
    shop.at_source("""delete from t where ("orderId", line) in ((1, 'a'), (1, 'b'), (2, 'c'))""")
    assert shop.compare().deleted == 3
    assert shop.deleted("order_id, line") == [(1, "a"), (1, "b"), (2, "c")]


def test_keys_that_are_null_stop_it_only_when_they_are_many(open_erp: Open, caplog: pytest.LogCaptureFixture) -> None:
    shop = open_erp(TABLE.replace("int primary key", "int"))
    shop.at_source("insert into t values (null, 'v', now()); delete from t where id = 4")
    report = shop.compare()
    assert (report.extracted, report.unchanged, report.deleted) == (100, 100, 1)
    assert "1 keys that were read are null" in caplog.text
    shop.at_source("update t set id = null where id < 40")
    with pytest.raises(ContractViolationError, match="39 of the 100 keys that were read are null"):
        shop.compare(limit=1)
    assert shop.deleted() == [4]


def test_a_key_that_comes_twice_is_counted_once(open_erp: Open) -> None:
    shop = open_erp(TABLE.replace("int primary key", "int"))
    shop.at_source("insert into t values (4, 'twin', now()); delete from t where id = 5")
    report = shop.compare()
    assert (report.extracted, report.unchanged, report.duplicate, report.deleted) == (100, 99, 1, 1)


def shop_keys(source: RestSource, api: Api, destination: Destination, **options: Any) -> LoadReport:
    return find_deleted(source, source.streams[0], connections(api), destination, **options)


def test_an_api_is_asked_for_every_page_without_bounds(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(deletes=Deletes(limit=0.5))
    # A text that raw's documents cannot hold: the order is known by its key all the same.
    shop = Shop(api, [order(n, total=n, changed=f"2024-01-0{n}T00:00:00Z") for n in range(1, 9)])
    load(source, api, destination)
    shop.orders[2]["note"] = "\0"
    del shop.orders[0], shop.orders[4]
    asked = len(api.requests)
    report = shop_keys(source, api, destination)
    assert [request.parameters for request in api.requests[asked:]] == [{}, {"after": "3"}]
    assert (report.extracted, report.unchanged, report.deleted) == (6, 6, 2)
    assert raw(warehouse, "id, _deleted_at is not null") == [(n, n in (1, 6)) for n in range(1, 9)]
    load(source, api, destination)
    assert len(raw(warehouse)) == 8


def test_only_the_keys_of_documents_are_landed_as_they_were_written(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(deletes=Deletes())
    Shop(api, [order(1, total=1)])
    load(source, api, destination)
    body = (
        b'{"result": {"orders": [{"total": 1, "id" : 1.0, "secret": "x"}, {"id": 12345678901234567890}]}, "next": null}'
    )
    api.answer = lambda _: Answer(body)
    report = shop_keys(source, api, destination)
    assert (report.extracted, report.deleted) == (2, 0), "1.0 is 1, as it would be for a load"
    [(key,)] = warehouse.query("select manifest_key from ops.loads where kind = 'keys'")
    manifest = destination.landing.manifest(key)
    assert manifest is not None
    landed = b"".join(chunk.data for chunk in destination.landing.read(manifest))
    assert landed == b'{"id":1.0}\n{"id":12345678901234567890}\n'


def test_an_api_that_answers_with_something_else_marks_nothing(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    source = shop_source(deletes=Deletes(limit=1))
    shop = Shop(api, [order(n) for n in range(5)])
    load(source, api, destination)
    shop.orders = [{"number": n, "changed": "", "id": "", "at": "x"} for n in range(5)]
    with pytest.raises(ContractViolationError, match="5 of the 5 keys that were read are null or no values"):
        shop_keys(source, api, destination)
    for one in shop.orders:
        one["id"] = None
    api.answer = lambda _: Answer({"result": {"orders": [{"number": 1}]}, "next": None})
    with pytest.raises(ContractViolationError, match="key column `id` is missing in what the source sent"):
        shop_keys(source, api, destination)
    api.answer = lambda _: Answer({"error": "down"}, 503)
    with pytest.raises(SourceUnavailableError):
        shop_keys(source, api, destination)
    assert warehouse.query("select count(*) from raw_shop.orders where _deleted_at is not null") == [(0,)]
    assert warehouse.query("select distinct status from ops.loads where kind = 'keys'") == [("failed",)]


def history(shop: Erp) -> None:
    """Deletions, returns by load and by comparison, a refusal, and changes between."""
    shop.at_source("create table kept as select * from t; delete from t where id <= 5")
    shop.compare()
    shop.at_source("insert into t values (1, 'again', '2024-02-01Z'), (101, 'new', '2024-02-01Z')")
    shop.load()
    shop.at_source("insert into t select * from kept where id = 2; delete from t where id = 100")
    shop.compare()
    shop.at_source("delete from t where id > 20")
    with pytest.raises(ContractViolationError):
        shop.compare()
    shop.at_source("insert into t select * from kept where id > 20 and id < 100; update t set v = 'x' where id = 50")
    shop.at_source("update t set changed = '2024-03-01Z' where id = 50")
    shop.load()
    shop.compare()


@pytest.mark.parametrize("write", ["merge", "append"])
def test_a_rebuild_marks_as_it_was_marked(open_erp: Open, write: str) -> None:
    shop = open_erp(write=WriteDisposition(write))
    history(shop)
    before = shop.raw()
    assert shop.deleted() == [3, 4, 5, 100, 101]
    shop.at_source("drop table t")
    shop.warehouse.execute("drop table raw_erp.t")
    report = rebuild(shop.source, shop.source.streams[0], shop.destination)
    assert (report.loads, report.rows) == (6, 101)
    assert shop.raw() == before


def test_a_rebuild_repeats_that_a_source_was_empty(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("delete from t")
    shop.compare(limit=1)
    before = shop.raw()
    rebuild(shop.source, shop.source.streams[0], shop.destination)
    assert shop.raw() == before
    assert len(shop.deleted()) == 100


def test_documents_are_rebuilt_as_they_were_marked(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    source = shop_source(deletes=Deletes(limit=0.5))
    shop = Shop(api, [order(n, total=n) for n in range(1, 9)])
    load(source, api, destination)
    gone = shop.orders.pop(4)
    shop_keys(source, api, destination)
    shop.orders[0] = order(1, total=1.5, changed="2024-02-01T00:00:00Z")
    load(source, api, destination)
    shop.orders.append(gone)
    del shop.orders[2]
    shop_keys(source, api, destination)
    before = raw(warehouse)
    assert sum(row[-1] is not None for row in before) == 1
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse) == before


REACHED = [name for name in FAILPOINTS if name not in ("rows-quarantined", "watermark-moved")]
SHORT = ("chunk-landed", "landed-noted", "rows-written", "committed")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.chaos) for name in REACHED]
)
def test_a_kill_marks_all_or_nothing_and_keys_left_behind_are_never_taken_up(
    open_erp: Open, landing_folder: Path, name: str
) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id in (3, 5)")
    kill_at(name, shop.comparing())
    assert shop.deleted() == ([3, 5] if name == "committed" else [])
    # A row that raw gets now is not among the keys that the dead run had read.
    shop.at_source("insert into t values (101, 'new', now())")
    assert shop.load().inserted == 1
    assert shop.deleted() == ([3, 5] if name == "committed" else [])
    assert shop.compare().extracted == 99
    assert shop.deleted() == [3, 5]
    assert shop.warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
    open_loads = "select count(*) from ops.loads where status not in ('loaded', 'failed')"
    assert shop.warehouse.query(open_loads) == [(0,)]


@pytest.mark.parametrize("name", ["all-copied", "landed-noted"])
def test_a_comparison_that_slept_through_a_load_marks_nothing(open_erp: Open, landing_folder: Path, name: str) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id in (3, 5)")
    with sleeper(name, shop.comparing(run="the victim", lease_seconds=1)) as victim:
        lease_over = "select from ops.streams where lease_until < now() and holder = 'the victim'"
        until(lambda: shop.warehouse.query(lease_over), "its lease ends")
        shop.at_source("insert into t values (101, 'new', now())")
        shop.load()
        before = shop.raw()
        victim.send(signal.SIGCONT)
        victim.wait()
    assert "FencedError: This run lost the stream" in victim.said
    assert shop.raw() == before
    assert shop.compare().deleted == 2
    assert shop.deleted() == [3, 5]


def test_a_comparison_and_a_load_of_one_stream_take_turns(open_erp: Open) -> None:
    shop = open_erp()
    shop.at_source("delete from t where id = 3; insert into t values (101, 'new', now())")
    with Lease(shop.destination.warehouse, "erp", "t", "a load"):
        with pytest.raises(StreamBusyError, match="a load .* is working on the stream"):
            shop.compare(wait_seconds=0.3)
        waiting = threading.Thread(target=shop.compare)
        waiting.start()
        time.sleep(0.5)
        assert shop.deleted() == []
    waiting.join()
    assert shop.deleted() == [3]


class Overtaken:
    """A source whose keys have all been read when a window of it is loaded, with rows that came since."""

    def __init__(self, shop: Erp, window: Window) -> None:
        self._shop = shop
        self._source = shop.source
        self._window = window
        self.name, self.streams, self.requirements = self._source.name, self._source.streams, self._source.requirements
        self.extract = self._source.extract

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        extraction = self._source.keys(stream, connections)
        chunks = list(extraction.chunks)
        self._shop.at_source("insert into t select n, 'new', now() from generate_series(101, 102) n")
        self._shop.at_source("delete from t where id = 7")
        ingest(self._source, stream, connections, self._shop.destination, window=self._window)
        return replace(extraction, chunks=iter(chunks))


def test_what_a_window_brings_meanwhile_is_not_taken_for_deleted(open_erp: Open) -> None:
    """Windows are read beside a comparison: its keys say nothing of rows that are younger than they are."""
    shop = open_erp(event_time="changed")
    shop.at_source("delete from t where id = 3")
    where = database(shop.connection, shop.warehouse)
    overtaken = Overtaken(shop, Window.parse("2024-01-01", "2100-01-01"))
    report = find_deleted(overtaken, shop.source.streams[0], where, shop.destination)
    assert report.deleted == 1
    assert shop.deleted() == [3]
    assert shop.warehouse.query("select count(*) from raw_erp.t where id > 100") == [(2,)]
    before = shop.raw()
    rebuild(shop.source, shop.source.streams[0], shop.destination)
    assert shop.raw() == before, "nor is it when history is repeated"
    assert shop.compare().deleted == 1
    assert shop.deleted() == [3, 7]
    stale = shop.warehouse.query("select window_start::date::text, rows from ops.windows where rows > 0 order by 1")
    assert stale[0] == ("2024-01-01", 100), "rows that are marked are still in raw"


def test_what_cannot_work_is_refused_before_anything_starts(
    open_erp: Open, tmp_path: Path, destination: Destination
) -> None:
    shop = open_erp(deletes=None)
    with pytest.raises(ConfigurationError, match="deletions are not looked for. .* Give it `deletes`"):
        shop.compare()
    shop.source = table()
    for limit in (-0.1, 1.1):
        with pytest.raises(ConfigurationError, match="give a number from 0 to 1"):
            shop.compare(limit=limit)
        with pytest.raises(ConfigurationError, match="give a number from 0 to 1"):
            Deletes(limit=limit)
    with pytest.raises(ConfigurationError, match="`t` names deletes but has no primary_key"):
        Stream(name="t", write=WriteDisposition.APPEND, deletes=Deletes())
    with pytest.raises(ConfigurationError, match="`t` is `replace` and names deletes"):
        Stream(name="t", primary_key=("id",), write=WriteDisposition.REPLACE, deletes=Deletes())
    with pytest.raises(ConfigurationError, match="`t` reads files and names deletes"):
        CsvStream(name="t", primary_key=("id",), pattern="*.csv", deletes=Deletes())
    files, where = weather(tmp_path)
    assert not isinstance(files, KeySource)
    assert shop.warehouse.query("select count(*) from ops.loads where kind = 'keys'") == [(0,)]
    assert ingest(files, files.streams[0], where, destination)
