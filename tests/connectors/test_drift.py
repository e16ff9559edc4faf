"""What sources do to their data: each value is in raw exactly, or its row in quarantine with a reason, or the load
fails aloud. Never is one changed silently, and loaded + quarantined = extracted.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ContractViolationError, MalformedResponseError
from connectors.ingest import Destination, ingest
from connectors.model import SchemaContract
from connectors.rebuild import rebuild
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Prepare, drop, erp, load, load_table, raw, shop_source, weather

MEGABYTE = 1 << 20


def things(**changes: Any) -> RestSource:
    """An API of things, each with an `id`, read whole each time."""
    whole = {"cursor": None, "since_parameter": None, "event_time": None, "window_parameters": None, "pages": None}
    return shop_source(**{"name": "things", "records": "", "columns": {}, "reject_limit": 1, **whole, **changes})


def send(api: Api, *values: str) -> None:
    """Have the API answer with one thing a value, `v`, given as it is written in JSON."""
    api.answer = lambda _: Answer(f"[{','.join(thing(n, value) for n, value in enumerate(values, 1))}]".encode())


def thing(number: int, value: str) -> str:
    return f'{{"id":{number},"v":{value}}}'


def found(warehouse: Warehouse, columns: str = "id, v::text") -> dict[int, Any]:
    return {row[0]: row[1] for row in raw(warehouse, columns, "raw_shop.things")}


def quarantined(warehouse: Warehouse) -> dict[int, str]:
    return dict(warehouse.query("select row_in_load, reason from ops.quarantine where replayed_by is null"))


def changes(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("select column_name, change, from_type, to_type from ops.schema_changes order by id")


EXACT = {
    "9007199254740993": "9007199254740993",
    "-9223372036854775809": "-9223372036854775809",
    "12345678901234567890123456789.012345678": "12345678901234567890123456789.012345678",
    "0.00000000000000000000000000000000000001": "0.00000000000000000000000000000000000001",
    "1e400": "1" + "0" * 400,
    "1.50": "1.50",
    "-0.0": "0.0",
    "2E-3": "0.002",
}


def test_numbers_of_any_size_keep_every_digit(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    send(api, *EXACT, "1e200000")
    report = load(things(), api, destination)
    assert (report.extracted, report.inserted, report.quarantined) == (len(EXACT) + 1, len(EXACT), 1)
    assert list(found(warehouse).values()) == list(EXACT.values())
    assert quarantined(warehouse) == {len(EXACT) + 1: "column v: value overflows numeric format"}


def test_numbers_within_objects_keep_every_digit(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    send(api, *(f'{{"a":[{number}]}}' for number in EXACT))
    assert load(things(), api, destination).inserted == len(EXACT)
    numbers = found(warehouse, "id, v->'a'->>0")
    assert list(numbers.values()) == list(EXACT.values())


# Declared type: what comes, and what raw then holds (None: quarantine).
TYPED: dict[str, dict[str, str | None]] = {
    "double precision": {
        "9007199254740992": "9.007199254740992e+15",
        "9007199254740993": None,
        "0.1": "0.1",
        "0.10000000000000001": "0.1",
        "0.30000000000000004": "0.30000000000000004",
        "12345678901234567890123456789012345678": None,
        "1e400": None,
        "1e-400": None,
        '"NaN"': "NaN",
        '"-Infinity"': "-Infinity",
        '"0x1p3"': None,
    },
    "real": {"0.1": "0.1", "16777217": None},
    "numeric(38,10)": {"1234567890123456789012345678.0123456789": "1234567890123456789012345678.0123456789"},
    "numeric(6,2)": {"1.255": None, "1234.50": "1234.50", "12345": None, "1e-11": None},
    "smallint": {"32767": "32767", "32768": None, "1.0": None, '"7"': "7", "true": None},
    "boolean": {"true": "true", "0": None, '"yes"': None},
    "character varying(3)": {'"abc"': "abc", '"abc "': None, '"abcd"': None},
    "date": {
        '"0001-01-01"': "0001-01-01",
        '"9999-12-31"': "9999-12-31",
        '"0000-01-01"': None,
        '"2023-02-29"': None,
        '"2024-01-01T00:00:00Z"': "2024-01-01",
        '"2024-01-01T12:00:00Z"': None,
        '"infinity"': "infinity",
        '"today"': None,
        '"03/04/2024"': None,
        '"3.4.24"': None,
        '"2024/04/03"': "2024-04-03",
        '"3 Apr 2024"': "2024-04-03",
        "20240101": "2024-01-01",
    },
    "timestamptz": {
        '"0001-01-01T00:00:00Z"': "0001-01-01 00:00:00+00",
        '"9999-12-31T23:59:59.999999Z"': "9999-12-31 23:59:59.999999+00",
        '"0001-01-01T00:00:00+14:00"': "0001-12-31 10:00:00+00 BC",
        '"0044-03-15 12:00:00Z BC"': "0044-03-15 12:00:00+00 BC",
        '"-infinity"': "-infinity",
        '"03/04/2024 10:00:00Z"': None,
        '"10:00:00 03-04-2024 UTC"': None,
        '"2016-12-31T23:59:60Z"': None,
        '"2024-01-01T24:00:00Z"': "2024-01-02 00:00:00+00",
        '"2024-01-01T24:00:01Z"': None,
        '"2024-01-01T00:00:00-12:00"': "2024-01-01 12:00:00+00",
        '"2024-01-01T00:00:00+05:45"': "2023-12-31 18:15:00+00",
        '"2024-01-01T00:00:00+25:00"': None,
        '"2024-01-01T00:00:00.123456000Z"': "2024-01-01 00:00:00.123456+00",
        '"2024-01-01T00:00:00.123456001Z"': None,
        '"now"': None,
        '""': None,
        "1704067200": None,
    },
    "timestamp": {
        '"2024-01-01T00:00:00"': "2024-01-01 00:00:00",
        '"2024-01-01T00:00:00Z"': "2024-01-01 00:00:00",
        '"2024-01-01T00:00:00+05:00"': None,
    },
    "time": {'"24:00"': "24:00:00", '"23:59:60"': None, '"12:00+02"': None, '"2024-01-01 12:00"': None},
    "interval": {'"PT1H"': "01:00:00", '"0.0000001 s"': None},
    "jsonb": {
        '{"a":{"b":1,"b":2}}': None,
        '[{"a":1},{"a":2}]': '[{"a": 1}, {"a": 2}]',
        '"text"': '"text"',
        "null": None,
        '"\\u0000"': None,
        "1e200000": None,
    },
    "json": {'{"a":1,"a":2}': '{"a":1,"a":2}'},
    "uuid": {'"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"': "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '"a0eebc99"': None},
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPED)
def test_a_declared_type_takes_what_it_holds_exactly(
    api: Api, warehouse: Warehouse, destination: Destination, kind: str
) -> None:
    cases = TYPED[kind]
    send(api, *cases)
    report = load(things(columns={"v": kind}), api, destination)
    assert report.extracted == report.inserted + report.quarantined == len(cases)
    held = found(warehouse)
    reasons = quarantined(warehouse)
    for number, (sent, expected) in enumerate(cases.items(), 1):
        if expected is None and sent != "null":
            assert reasons.get(number, "").startswith("column v: "), (sent, held.get(number))
        else:
            assert held[number] == expected, (sent, reasons.get(number))


TEXTS = {
    r'"nul \u0000"': "column v: a NUL character, which text cannot hold",
    r'"\ud83d"': "half of a surrogate pair, which is no character",
    r'"\ude00 x"': "half of a surrogate pair, which is no character",
    r'["\ud83d"]': "half of a surrogate pair, which is no character",
    "NaN": "NaN, which JSON does not have",
    "[-Infinity]": "-Infinity, which JSON does not have",
    r'"\ud83d\ude00"': None,
    r'"é 😀 \\N \t \" \/ \u00e9"': None,
    r'"\\."': None,
    '""': None,
}


def test_texts_arrive_as_they_are_or_not_at_all(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    send(api, *TEXTS)
    load(things(), api, destination)
    expected = {number: reason for number, reason in enumerate(TEXTS.values(), 1) if reason}
    assert quarantined(warehouse) == expected
    assert found(warehouse) == {7: "😀", 8: 'é 😀 \\N \t " / é', 9: "\\.", 10: ""}


@pytest.mark.parametrize("literal", ["01", ".5", "0x1", "'a'"])
def test_what_is_not_json_fails_the_load_aloud(
    api: Api, warehouse: Warehouse, destination: Destination, literal: str
) -> None:
    send(api, "1", literal)
    with pytest.raises(MalformedResponseError, match="cannot be read"):
        load(things(), api, destination)
    assert warehouse.query("select manifest_key from ops.loads") == [(None,)]


def test_a_field_that_comes_twice_is_named(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    send(api, "1", '1,"v":2', '1, "x" : 1, "x":1', "3")
    report = load(things(), api, destination)
    assert (report.extracted, report.inserted, report.quarantined) == (4, 2, 2)
    assert quarantined(warehouse) == {2: "field v: it is there twice", 3: "field x: it is there twice"}
    assert warehouse.query("select payload from ops.quarantine order by 1 limit 1") == [
        ('{"id":2,"v":1,"v":2}',)
    ]  # fmt: skip


# Raw's type after the first load: what comes later, and what raw then holds (None: quarantine).
CONFLICTS: dict[str, tuple[str, dict[str, str | None]]] = {
    "bigint": ("1", {'"7"': "7", '"007"': None, '"1e5"': None, '"abc"': None, "true": None, "{}": None, "5": "5"}),
    "numeric": ("1.5", {'"NaN"': None, '"0x1F"': None, '"1_000"': None, '"2.50"': "2.50", "7": "7", "[]": None}),
    "boolean": ("true", {"1": None, '"t"': None, "false": "false", "null": None}),
    "text": ('"a"', {"1.50": "1.50", "true": "true", '{"a": 1}': '{"a": 1}', "1E5": "1E5"}),
    "jsonb": ("{}", {"1.50": "1.50", '"x"': '"x"', "true": "true", "[1]": "[1]", '{"a":1,"a":1}': None}),
}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_values_of_another_kind_fit_exactly_or_go_to_quarantine(
    api: Api, warehouse: Warehouse, destination: Destination, kind: str
) -> None:
    first, cases = CONFLICTS[kind]
    send(api, first)
    load(things(), api, destination)
    send(api, first, *cases)
    report = load(things(), api, destination)
    assert report.extracted == report.inserted + report.unchanged + report.quarantined == len(cases) + 1
    assert warehouse.query("select distinct pg_typeof(v)::text from raw_shop.things") == [(kind,)]
    held, reasons = found(warehouse), quarantined(warehouse)
    for number, (sent, expected) in enumerate(cases.items(), 2):
        if expected is None and sent != "null":
            assert number in reasons, (sent, held.get(number))
        else:
            assert held[number] == expected, (sent, reasons.get(number))


def test_a_number_that_narrows_stays_in_the_wider_column(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    send(api, "1.5")
    load(things(), api, destination)
    send(api, "2", "3")
    load(things(), api, destination)
    assert found(warehouse) == {1: "2", 2: "3"}
    assert changes(warehouse) == []


def test_a_field_that_is_renamed_or_gone_leaves_null_behind(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    send(api, "1")
    load(things(), api, destination)
    api.answer = lambda _: Answer(b'[{"id":1,"w":1},{"id":2}]')
    load(things(), api, destination)
    assert raw(warehouse, "id, v, w", "raw_shop.things") == [(1, None, 1), (2, None, None)]
    assert changes(warehouse) == [("w", "added", None, "bigint")]


COLLISIONS = {
    "after normalising": ('{"id":1,"userId":1,"user_id":2}', "`userId` and `user_id` would both become .*`user_id`"),
    "in two records": ('{"id":1,"A":1},{"id":2,"a":2}', "`A` and `a` would both become the column `a`"),
    "with one of ours": ('{"id":1,"_load_id":1,"_load_id_":2}', "would both become the column `_load_id_`"),
}


@pytest.mark.parametrize(("records", "message"), COLLISIONS.values(), ids=COLLISIONS)
def test_two_fields_that_would_share_a_column_fail_the_load(
    api: Api, warehouse: Warehouse, destination: Destination, records: str, message: str
) -> None:
    api.answer = lambda _: Answer(f"[{records}]".encode())
    with pytest.raises(ContractViolationError, match=message):
        load(things(), api, destination)
    assert warehouse.query("select to_regclass('raw_shop.things')") == [(None,)]


def test_fields_may_be_named_as_postgresql_s_own_columns(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    names = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
    api.answer = lambda _: Answer(json.dumps([{"id": 1, **{name: n for n, name in enumerate(names)}}]).encode())
    load(things(), api, destination)
    columns = ", ".join(f"{name}_" for name in names)
    assert raw(warehouse, columns, "raw_shop.things") == [(0, 1, 2, 3, 4, 5)]
    assert rebuild(things(), things().streams[0], destination).rows == 1


def test_names_of_any_script_stay_apart_and_readable(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    names = ("имя", "год", "Größe", "Grüße", "名前", "住所", "नाम", "é" * 40 + "1", "é" * 40 + "2", "e\u0301t\u00e9")
    api.answer = lambda _: Answer(json.dumps([{"id": 1, **{name: n for n, name in enumerate(names)}}]).encode())
    load(things(), api, destination)
    row = warehouse.query("select to_jsonb(t) from raw_shop.things t")[0][0]
    values = {name: value for name, value in row.items() if not name.startswith("_") and name != "id"}
    assert sorted(values.values()) == list(range(len(names)))
    assert {name: values[name] for name in ("имя", "год", "größe", "grüße", "名前", "住所", "नाम", "été")} == {
        "имя": 0, "год": 1, "größe": 2, "grüße": 3, "名前": 4, "住所": 5, "नाम": 6, "été": 9
    }  # fmt: skip
    assert rebuild(things(), things().streams[0], destination).rows == 1


def test_names_that_differ_after_63_bytes_stay_two_columns(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    one, two = "x" * 63 + "one", "x" * 63 + "two"
    api.answer = lambda _: Answer(f'[{{"id":1,"{one}":1,"{two}":2}}]'.encode())
    load(things(), api, destination)
    names = warehouse.query(
        "select attname from pg_attribute where attrelid = 'raw_shop.things'::regclass and attname like 'xxx%'"
        " order by attnum"
    )
    assert len(names) == 2
    [row] = raw(warehouse, ", ".join(name for (name,) in names), "raw_shop.things")
    assert row == (1, 2)


def test_a_row_of_many_columns_can_go_to_quarantine(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    fields = ",".join(f'"c{n}":{n}' for n in range(300))
    api.answer = lambda _: Answer(f'[{{"id":1,{fields}}},{{"id":null,{fields}}}]'.encode())
    report = load(things(), api, destination)
    assert (report.inserted, report.quarantined) == (1, 1)
    assert warehouse.query("select payload::json ->> 'c299' from ops.quarantine") == [("299",)]


GREEDY = """
import resource, sys
from sqlalchemy.engine import make_url
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from tests.connectors.test_drift import things

_, url, loader, landing = sys.argv
destination = Destination(make_url(loader), Landing(StoreLocation(landing)))
where = EnvironmentConnections({"HEADWATER_SHOP_URL": url, "HEADWATER_SHOP_KEY": "sesame"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest(things(), things().streams[0], where, destination)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_field_of_100_megabytes_arrives_within_a_few_times_its_size(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    part = "a naïve line " * 80 + "\n"
    size = 100 * MEGABYTE // len(json.dumps(part, ensure_ascii=False).encode())
    body = b'[{"id":1,"v":"' + part.encode().replace(b"\n", b"\\n") * size + b'"}]'
    api.answer = lambda _: Answer(body)
    loader = warehouse.url("loader").render_as_string(hide_password=False)
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", GREEDY, api.url, loader, landing_folder.as_uri()], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    grown = int(ended.stdout) * 1024
    assert grown < 8 * len(body), f"{grown / MEGABYTE:.0f} MB, {time.monotonic() - started:.1f} s"
    digest = hashlib.md5((part * size).encode()).hexdigest()  # noqa: S324 - to compare with PostgreSQL's
    assert raw(warehouse, "md5(v)", "raw_shop.things") == [(digest,)]


def test_a_table_whose_columns_come_go_and_narrow_is_followed(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        "create table t (id bigint primary key, a int, b text); insert into t values (1,1,'x')"
    )
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    connection.execute("alter table t rename a to a2; alter table t alter id type smallint; update t set a2 = 2")
    load_table(source, connection, warehouse, destination)
    assert raw(warehouse, "id, a, b, a2", "raw_erp.t") == [(1, None, "x", 2)]
    assert changes(warehouse) == [("a2", "added", None, "integer"), ("a", "removed", "integer", None)]
    connection.execute("alter table t rename a2 to a; insert into t values (2, 3, 'y')")
    load_table(source, connection, warehouse, destination)
    assert raw(warehouse, "id, a, b, a2, pg_typeof(id)::text", "raw_erp.t") == [
        (1, 2, "x", None, "bigint"),
        (2, 3, "y", None, "bigint"),
    ]
    assert changes(warehouse)[2:] == [("a", "returned", None, "integer"), ("a2", "removed", "integer", None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop a", "The column `a` is gone"),
        ("add b int", "The column `b` is new"),
        ("alter a type bigint", "The column `a` changed from integer to bigint"),
    ],
)
def test_a_frozen_table_refuses_every_change_of_its_columns(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, change: str, message: str
) -> None:
    connection = source_database("create table t (id int primary key, a int); insert into t values (1, 1)")
    source = erp(name="t", primary_key=("id",), contract=SchemaContract.FREEZE)
    load_table(source, connection, warehouse, destination)
    connection.execute(f"alter table t {change}")
    with pytest.raises(ContractViolationError, match=message):
        load_table(source, connection, warehouse, destination)
    assert raw(warehouse, "id, a", "raw_erp.t") == [(1, 1)]
    assert changes(warehouse) == []


def test_a_table_whose_columns_differ_in_case_alone_is_refused(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database('create table t (id int primary key, "userId" int, user_id int)')
    with pytest.raises(ContractViolationError, match="`userId` and `user_id` would both become the column `user_id`"):
        load_table(erp(name="t", primary_key=("id",)), connection, warehouse, destination)


def test_the_edges_of_a_table_s_types_arrive_bit_for_bit(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        """
        create table t (id int primary key, ts timestamptz, tn timestamp, d date, tm time, tz timetz, n numeric,
                        f float8, r real, b bigint, j json, s text);
        insert into t values
        (1, '0001-01-01Z', '4713-01-01 BC', '4714-11-24 BC', '24:00', '00:00-15:59', '1e400', '-0', 'NaN',
         -9223372036854775808, '{"a":1,"a":2}', E'\\N \\. \t \u0001'),
        (2, '9999-12-31 23:59:59.999999Z', '294276-12-31 23:59:59.999999', '5874897-12-31', '23:59:59.999999',
         '24:00+15:59', '12345678901234567890123456789012345678.1234567890', '5e-324', '3.4028235e38',
         9223372036854775807, '[]', ''),
        (3, '-infinity', 'infinity', '-infinity', '00:00', '12:00+05:45', 'Infinity', '9007199254740993', '-Infinity',
         0, 'null', null)
        """
    )
    load_table(erp(name="t", primary_key=("id",)), connection, warehouse, destination)
    columns = ", ".join(f"{name}::text" for name in ["id", "ts", "tn", "d", "tm", "tz", "n", "f", "r", "b", "j", "s"])
    there = connection.execute(f"select {columns} from t order by 1".encode()).fetchall()
    assert raw(warehouse, columns, "raw_erp.t") == there


def test_files_whose_columns_change_are_followed(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    source, where = weather(tmp_path / "files", reject_limit=1)

    def deliver(day: int, header: str, *lines: str) -> tuple[int, ...]:
        drop(tmp_path / "files", {f"weather-2013-01-0{day}.csv": "\n".join([header, *lines, ""])})
        report = ingest(source, source.streams[0], where, destination)[-1]
        assert report.extracted == report.inserted + report.quarantined
        return report.extracted, report.quarantined

    assert deliver(1, "station,hour,temp", "EWR,2013-01-01T00:00Z,1.50") == (1, 0)
    assert deliver(2, "hour,station,wind,temp", "2013-01-02T00:00Z,EWR,3,2") == (1, 0), "another order, one more"
    assert deliver(3, "station,hour,Gust", "EWR,2013-01-03T00:00Z,9") == (1, 0), "renamed"
    assert deliver(4, "station,hour,temp", "EWR,2013-01-04T00:00Z,warm", "JFK,2013-01-04T00:00:60Z,1", "A\0B,x,1") == (
        3,
        3,
    )
    assert raw(warehouse, "hour::date::text, temp::text, wind, gust", "raw_met.weather") == [
        ("2013-01-01", "1.50", None, None),
        ("2013-01-02", "2", "3", None),
        ("2013-01-03", None, None, "9"),
    ]
    reasons = [reason for (reason,) in warehouse.query("select reason from ops.quarantine order by row_in_load")]
    assert "warm" in reasons[0]
    assert "a leap second" in reasons[1]
    assert "a NUL character" in reasons[2]
    with pytest.raises(ContractViolationError, match="`Temp` and `temp` would both become the column `temp`"):
        deliver(5, "station,hour,Temp,temp", "EWR,2013-01-05T00:00Z,1,2")
