"""Canaries: private values that would be found anywhere, read in every way, and looked for everywhere."""

from __future__ import annotations

import hmac
import json
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import exc
from sqlalchemy.engine import make_url

from connectors.connections import Connections, Database, EnvironmentConnections, Secret
from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import DataError, HeadwaterError
from connectors.formats.file_streams import CsvStream, FileStream, JsonLinesStream, JsonStream, OnBadFile, ParquetStream
from connectors.ingest import Destination, ingest
from connectors.model import Deletes, LandingFormat, Source
from connectors.privacy import Dropped, Hashed, Masked, Treatment
from connectors.rebuild import rebuild
from connectors.replay import replay
from connectors.rest import BodyFormat, Keyset
from connectors.sql import SqlSource, SqlStream
from connectors.sql.connection import translated_errors
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Prepare, connections, database, drop, erp, met, order, raw, shop_source
from tests.telling import heard, landing_telling, tables_telling

KEY = "a key of the tests that is long enough"
EMAIL, CARD, IBAN, PHONE = "canary.one@birds.test", "canary-4111-1111", "canary-iban-81", "canary-555-0199"
CANARIES = (EMAIL, CARD, IBAN, PHONE)
HASHED = Hashed(Secret("people_key"))
FLAT: Mapping[str, Treatment] = {"email": HASHED, "card": Dropped()}
NESTED: Mapping[str, Treatment] = {
    "email": HASHED,
    "contact.phone": HASHED,
    "payments[].iban": Dropped(),
    "card": Dropped(),
}


def hash_of(text: str) -> str:
    return hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


class Told:
    """All that is told while loads run: every log, and what errors say to their last cause."""

    def __init__(self, warehouse: Warehouse, landing: Path, said: list[str]) -> None:
        self._warehouse = warehouse
        self._landing = landing
        self._said = said

    def failure(self, load: Callable[[], object]) -> HeadwaterError:
        """What a load says that cannot succeed."""
        with pytest.raises(HeadwaterError) as caught:
            load()
        self._said.append("".join(traceback.format_exception(caught.value)))
        return caught.value

    def check(self, texts: tuple[str, ...] = CANARIES) -> None:
        """No text is anywhere."""
        assert not [said for said in self._said if any(text in said for text in texts)]
        assert landing_telling(self._landing, texts) == []
        assert tables_telling(self._warehouse, texts) == []

    def check_said(self, texts: tuple[str, ...]) -> None:
        """No text is in a message, in quarantine or in the ledger."""
        assert not [said for said in self._said if any(text in said for text in texts)]
        assert not [table for table in tables_telling(self._warehouse, texts) if table.startswith("ops.")]


@pytest.fixture
def told(warehouse: Warehouse, landing_folder: Path) -> Iterator[Told]:
    with heard() as said:
        yield Told(warehouse, landing_folder, said)


def with_key(found: EnvironmentConnections) -> EnvironmentConnections:
    return EnvironmentConnections({**found._environment, "HEADWATER_PEOPLE_KEY": KEY})


def loaded(source: Source, where: Connections, destination: Destination, **options: Any) -> LoadReport:
    return ingest(source, source.streams[0], where, destination, **options)[-1]


def check_rebuilt(source: Source, warehouse: Warehouse, destination: Destination) -> None:
    table = f"raw_{source.name}.{source.streams[0].name}"
    before = raw(warehouse, "t::text", f"{table} t")
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, "t::text", f"{table} t") == before


def person(number: int, **changes: Any) -> dict[str, Any]:
    return order(
        number,
        **{
            "email": EMAIL,
            "card": CARD,
            "contact": {"phone": PHONE, "city": "Zürich"},
            "payments": [{"iban": IBAN, "cents": 12345678901234567890}, {"iban": None}],
            **changes,
        },
    )


BROKEN = [
    json.dumps(person(7))[:-1] + f', "email": "{EMAIL}"}}',  # a field twice
    json.dumps(person(8))[:-1] + ', "odd": NaN}',
    json.dumps(person(9, contact=PHONE)),  # no object where one should be
    json.dumps(EMAIL),
    json.dumps(person(10, email="\ud800" + EMAIL)),
]


def test_documents_of_an_api_tell_nothing(api: Api, warehouse: Warehouse, destination: Destination, told: Told) -> None:
    source = shop_source(privacy=NESTED, pages=None, reject_limit=1)
    where = with_key(connections(api))
    records = ",".join([json.dumps(person(1)), json.dumps(person(2, email=None, contact=None)), *BROKEN])
    api.answer = lambda _: Answer(f'{{"result": {{"orders": [{records}]}}}}'.encode())
    report = loaded(source, where, destination)
    assert (report.inserted, report.quarantined) == (2, len(BROKEN))
    assert raw(warehouse, "id, email, contact ->> 'phone', contact ->> 'city'", "raw_shop.orders") == [
        (1, hash_of(EMAIL), hash_of(PHONE), "Zürich"),
        (2, None, None, None),
    ]
    columns = warehouse.query("select string_agg(payments::text, '') from raw_shop.orders")
    assert "iban" not in columns[0][0]
    assert "12345678901234567890" in columns[0][0]
    check_rebuilt(source, warehouse, destination)
    replay(source, source.streams[0], destination)
    told.check()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(f'{{"email": "{EMAIL}", "orders"'.encode()),
        Answer(f'{{"elsewhere": [{{"email": "{EMAIL}"}}]}}'.encode()),
        Answer(f"<html>{EMAIL}".encode()),
        Answer({"message": f"{EMAIL} may not see {IBAN}"}, 400),
        Answer({"message": f"{EMAIL} may not see {IBAN}"}, 503),
        Answer({"result": {"orders": [], "errors": [EMAIL, PHONE]}}),
    ],
    ids=["cut", "no records", "a page", "refused", "not now", "errors"],
)
def test_an_api_s_own_words_are_not_repeated(api: Api, destination: Destination, told: Told, answer: Answer) -> None:
    source = shop_source(privacy=NESTED, pages=None, errors="result.errors")
    api.answer = lambda _: answer
    told.failure(lambda: loaded(source, with_key(connections(api)), destination))
    told.check()


def test_pages_that_follow_a_private_field_do_not_say_where_they_go_in_a_circle(
    api: Api, destination: Destination, told: Told
) -> None:
    source = shop_source(privacy=NESTED, pages=Keyset("email", "after"))
    api.answer = lambda _: Answer({"result": {"orders": [person(1)]}})
    error = told.failure(lambda: loaded(source, with_key(connections(api)), destination))
    assert "in a circle: after came twice" in str(error)
    told.check()


def test_an_api_s_csv_tells_nothing(api: Api, warehouse: Warehouse, destination: Destination, told: Told) -> None:
    source = shop_source(privacy=FLAT, pages=None, reject_limit=1, format=BodyFormat.CSV, records="")
    where = with_key(connections(api))
    lines = f"id,email,card,changed,at\n1,{EMAIL},{CARD},2024-01-01Z,2024-01-01Z\n2,,,2024-01-01Z,2024-01-01Z\n"
    api.answer = lambda _: Answer(f"{lines}3,{EMAIL},{CARD},with,one,more\n".encode())
    report = loaded(source, where, destination)
    assert (report.inserted, report.quarantined) == (2, 1)
    assert raw(warehouse, "id, email", "raw_shop.orders") == [("1", hash_of(EMAIL)), ("2", hash_of(""))]
    check_rebuilt(source, warehouse, destination)
    api.answer = lambda _: Answer(f"{EMAIL},{CARD}\n1,2\n".encode())
    told.failure(lambda: loaded(source, where, destination))
    told.check()


@pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])
def test_a_postgresql_table_tells_nothing(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    told: Told,
    landing: LandingFormat | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = source_database(
        "create table people (id int primary key, email text, account bigint, card text, n numeric, note text);"
        f"insert into people values (1, '{EMAIL}', 7, '{CARD}', 'NaN', ''), (2, null, null, null, 1.50, null),"
        " (3, '', -1, '', 2, E'a,\"b\\n')"
    )
    source = erp(
        name="people", primary_key=("id",), landing=landing, privacy={**FLAT, "account": HASHED}, deletes=Deletes()
    )
    where = with_key(database(connection, warehouse))
    loaded(source, where, destination)
    assert raw(warehouse, "id, email, account, n::text, note", "raw_erp.people") == [
        (1, hash_of(EMAIL), hash_of("7"), "NaN", ""),
        (2, None, None, "1.50", None),
        (3, hash_of(""), hash_of("-1"), "2", 'a,"b\n'),
    ]
    check_rebuilt(source, warehouse, destination)
    assert find_deleted(source, source.streams[0], where, destination).unchanged == 3
    told.check()
    assert "No record had" not in caplog.text, "what is not read is not missed"


@pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])
def test_what_a_source_s_database_says_of_a_value_is_not_repeated(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    told: Told,
    landing: LandingFormat | None,
) -> None:
    connection = source_database(
        f"create table held (id int, email text); insert into held values (1, '{EMAIL}');"
        "create view people as select id, email::int as email from held"
    )
    source = erp(name="people", primary_key=("id",), landing=landing, privacy={"email": Masked()})
    error = told.failure(lambda: loaded(source, with_key(database(connection, warehouse)), destination))
    assert "22P02" in str(error)
    told.check()


def test_a_deleted_row_is_found_by_its_hashed_key(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, told: Told
) -> None:
    connection = source_database(
        f"create table people (email text primary key, n int); insert into people values ('{EMAIL}', 1), ('b', 2)"
    )
    source = erp(name="people", primary_key=("email",), privacy={"email": HASHED}, deletes=Deletes(limit=1))
    where = with_key(database(connection, warehouse))
    loaded(source, where, destination)
    connection.execute("delete from people where n = 1")
    assert find_deleted(source, source.streams[0], where, destination).deleted == 1
    assert raw(warehouse, "n, email, _deleted_at is null", "raw_erp.people") == [
        (1, hash_of(EMAIL), False),
        (2, hash_of("b"), True),
    ]
    told.check()


@pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])
def test_another_database_tells_nothing(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told, landing: LandingFormat | None
) -> None:
    with sqlite3.connect(tmp_path / "people.db") as connection:
        connection.execute("create table people (id integer primary key, email text, account integer, card text)")
        connection.execute("insert into people values (1, ?, 7, ?), (2, null, ?, null)", [EMAIL, CARD, PHONE])
    source = SqlSource(
        name="erp",
        database=Database("erp"),
        streams=(
            SqlStream(
                name="people", primary_key=("id",), landing=landing, privacy={**FLAT, "account": HASHED}, reject_limit=1
            ),
        ),
    )
    where = with_key(EnvironmentConnections({"HEADWATER_ERP_URL": f"sqlite:///{tmp_path}/people.db"}))
    loaded(source, where, destination)
    assert raw(warehouse, "id, email", "raw_erp.people") == [(1, hash_of(EMAIL)), (2, None)]
    check_rebuilt(source, warehouse, destination)
    told.check()


def test_what_another_database_says_of_a_value_is_not_repeated(told: Told) -> None:
    url = make_url("mysql+pymysql://reader:a-password@erp.test/people")

    def fails() -> None:
        with translated_errors(url, quotes=False):
            raise exc.DataError("select", {}, Exception(1292, f"Truncated incorrect INTEGER value: '{EMAIL}'"))

    assert "1292" in str(told.failure(fails))
    told.check()


def files(stream: FileStream, folder: Path) -> tuple[Source, EnvironmentConnections]:
    source, where = met(stream, folder.as_uri())
    return source, with_key(where)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_csv_files_tell_nothing(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told, encoding: str
) -> None:
    text = (
        f"made for {EMAIL}\r\nid;E-Mail;card;name\r\n1;'{EMAIL}';{CARD};'Zoë;\n''Q'''\r\n\r\n2;;;\r\n"
        f"3;{EMAIL};{CARD};too;many\r\n"
    )
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        (tmp_path / f"in/{number}.csv").write_bytes(text.replace("\r\n1;", f"\r\n1{number};").encode(encoding))
    source, where = files(
        CsvStream(
            name="people",
            pattern="*.csv",
            primary_key=("id",),
            delimiter=";",
            quote="'",
            encoding=encoding,
            skip_lines=1,
            reject_limit=1,
            privacy=FLAT,
        ),
        tmp_path / "in",
    )
    report = loaded(source, where, destination)
    assert (report.extracted, report.quarantined) == (6, 2)
    assert raw(warehouse, "id, e_mail, name", "raw_met.people") == [
        ("11", hash_of(EMAIL), "Zoë;\n'Q'"),
        ("12", hash_of(EMAIL), "Zoë;\n'Q'"),
        ("2", None, None),
    ]
    reasons = warehouse.query("select reason from ops.quarantine order by row_in_load")
    assert reasons[0][0].startswith("1.csv, record 5: ")
    check_rebuilt(source, warehouse, destination)
    told.check()


def test_a_csv_file_that_lacks_a_private_column_is_a_bad_one(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told
) -> None:
    drop(tmp_path / "in", {"a.csv": "id,email,card\n1,b,c\n", "b.csv": f"{EMAIL},{CARD}\n2,3\n"})
    stream = CsvStream(name="people", pattern="*.csv", primary_key=("id",), privacy=FLAT)
    source, where = files(stream, tmp_path / "in")
    error = told.failure(lambda: loaded(source, where, destination))
    assert "b.csv has no column `email`" in str(error)
    tolerant = CsvStream(
        name="people", pattern="*.csv", primary_key=("id",), privacy=FLAT, on_bad_file=OnBadFile.QUARANTINE
    )
    source, where = files(tolerant, tmp_path / "in")
    assert loaded(source, where, destination).quarantined == 1
    assert raw(warehouse, "id", "raw_met.people") == [("1",)]
    check_rebuilt(source, warehouse, destination)
    told.check()


def test_json_files_tell_nothing(tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told) -> None:
    readable = [each for each in BROKEN if "NaN" not in each]
    records = ",\n".join([json.dumps(person(1), indent=1), json.dumps(person(2)), *readable])
    content = f'{{"by": "{EMAIL}", "r": {{"items": [{records}]}}}}'
    drop(tmp_path / "in", {"a.json": content, "b.json": '{"r":{"items":[]}}'})
    stream = JsonStream(
        name="people", pattern="*.json", records="r.items", primary_key=("id",), privacy=NESTED, reject_limit=1
    )
    source, where = files(stream, tmp_path / "in")
    report = loaded(source, where, destination)
    assert (report.inserted, report.quarantined) == (2, len(readable))
    assert raw(warehouse, "id, email", "raw_met.people") == [(1, hash_of(EMAIL)), (2, hash_of(EMAIL))]
    check_rebuilt(source, warehouse, destination)
    drop(tmp_path / "in", {"c.json": f'{{"r": {{"items": [{{"id": 3, "email": "{EMAIL}"'})
    told.failure(lambda: loaded(source, where, destination))
    told.check()


def test_json_lines_tell_nothing(tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told) -> None:
    drop(
        tmp_path / "in",
        {"a.ndjson": "\n".join([json.dumps(person(1)), *BROKEN, f"{EMAIL}, cut", json.dumps(person(2))])},
    )
    stream = JsonLinesStream(name="people", pattern="*", primary_key=("id",), privacy=NESTED, reject_limit=1)
    source, where = files(stream, tmp_path / "in")
    report = loaded(source, where, destination)
    assert (report.inserted, report.quarantined) == (2, len(BROKEN) + 1)
    check_rebuilt(source, warehouse, destination)
    told.check()


def test_parquet_files_tell_nothing(tmp_path: Path, warehouse: Warehouse, destination: Destination, told: Told) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table(
        {
            "id": [1, 2],
            "email": pa.array([EMAIL, None]).dictionary_encode(),
            "card": [CARD, None],
            "payments": [[{"iban": IBAN}], None],
            "n": pa.array([1.5, None], pa.float32()),
        }
    ).replace_schema_metadata({"made by": EMAIL})
    pq.write_table(table, tmp_path / "in/a.parquet")
    stream = ParquetStream(
        name="people", pattern="*", primary_key=("id",), privacy={**FLAT, "payments": HASHED}, reject_limit=1
    )
    source, where = files(stream, tmp_path / "in")
    loaded(source, where, destination)
    assert raw(warehouse, "id, email, payments, n", "raw_met.people") == [
        (1, hash_of(EMAIL), hash_of(f'[{{"iban":"{IBAN}"}}]'), 1.5),
        (2, None, None, None),
    ]
    check_rebuilt(source, warehouse, destination)
    pq.write_table(table.drop_columns(["email"]), tmp_path / "in/b.parquet")
    told.failure(lambda: loaded(source, where, destination))
    (tmp_path / "in/b.parquet").write_bytes(b"PAR1" + EMAIL.encode() + b"PAR1")
    told.failure(lambda: loaded(source, where, destination))
    told.check()


def test_masked_fields_are_loaded_and_shown_nowhere_else(
    api: Api, warehouse: Warehouse, destination: Destination, told: Told
) -> None:
    source = shop_source(
        privacy={"email": Masked(), "contact.phone": Masked()}, pages=None, reject_limit=1, columns={"n": "integer"}
    )
    records = [person(1, n="no number", card=None, payments=None), person(2, n=1, card=None, payments=None)]
    bad = json.dumps(person(3, card=None))[:-1] + ', "odd": NaN}'
    body = f'{{"result": {{"orders": [{json.dumps(records)[1:-1]}, {bad}]}}}}'.encode()
    api.answer = lambda _: Answer(body)
    report = loaded(source, connections(api), destination)
    assert (report.inserted, report.quarantined) == (1, 2)
    assert raw(warehouse, "email, contact ->> 'phone'", "raw_shop.orders") == [(EMAIL, PHONE)]
    [(payload,)] = warehouse.query("select payload::json from ops.quarantine where reason like 'column n%'")
    assert (payload["email"], payload["contact"], payload["id"]) == ("***", "***", "1")
    told.check_said((EMAIL, PHONE))


def test_what_landed_before_a_field_was_private_is_not_loaded_again(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    connection = source_database(
        f"create table people (id int primary key, card text); insert into people values (1, '{CARD}')"
    )
    before = erp(name="people", primary_key=("id",))
    loaded(before, database(connection, warehouse), destination)
    after = erp(name="people", primary_key=("id",), privacy={"card": Dropped()})
    with pytest.raises(DataError, match="landed before `card` was to be dropped"):
        rebuild(after, after.streams[0], destination)
    assert raw(warehouse, "id, card", "raw_erp.people") == [(1, CARD)], "raw is as it was"
    loaded(after, database(connection, warehouse), destination)
    assert "`card` landed untreated before it became private" in caplog.text


def test_a_private_field_that_no_record_has_is_named(
    api: Api, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    source = shop_source(privacy={"emial": Dropped()}, pages=None)
    api.answer = lambda _: Answer({"result": {"orders": [order(1)]}})
    loaded(source, connections(api), destination)
    assert "No record had `emial`" in caplog.text


def test_a_private_column_that_a_table_lacks_is_an_error(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database("create table people (id int primary key)")
    source = erp(name="people", primary_key=("id",), privacy={"card": Dropped()})
    with pytest.raises(HeadwaterError, match="has no column card"):
        loaded(source, database(connection, warehouse), destination)


def test_a_short_key_is_refused_and_not_told(api: Api, destination: Destination, told: Told) -> None:
    where = EnvironmentConnections({**connections(api)._environment, "HEADWATER_PEOPLE_KEY": "short-canary"})
    error = told.failure(lambda: loaded(shop_source(privacy=NESTED), where, destination))
    assert "HEADWATER_PEOPLE_KEY" in str(error)
    told.check(("short-canary",))
