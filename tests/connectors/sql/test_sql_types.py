"""Every common type of MySQL, SQLite and PostgreSQL through SQLAlchemy: in raw as it was, or in quarantine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.model import LandingFormat, WriteDisposition
from connectors.rebuild import rebuild
from connectors.replay import replay
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, counts, raw
from tests.connectors.sql.sql_databases import MySql, Sqlite, connections, load_sql, sql_erp

AWKWARD = "tab\t line\nreturn\r quote\" ' back\\slash \\N \\. é 漢 😀 \u2028 \x7f"
HEX = AWKWARD.encode().hex()

Cases = list[tuple[str, str, list[tuple[Any, str]]]]
"""Type, raw's type, and values: as they are put into the source, and as PostgreSQL prints them."""

MYSQL: Cases = [
    ("tinyint", "smallint", [("-128", "-128"), ("127", "127")]),
    ("tinyint(1)", "smallint", [("0", "0"), ("2", "2"), ("-128", "-128")]),
    ("tinyint unsigned", "smallint", [("255", "255")]),
    ("smallint", "smallint", [("-32768", "-32768"), ("32767", "32767")]),
    ("smallint unsigned", "integer", [("65535", "65535")]),
    ("mediumint", "integer", [("-8388608", "-8388608")]),
    ("mediumint unsigned", "integer", [("16777215", "16777215")]),
    ("int", "integer", [("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("int unsigned zerofill", "bigint", [("4294967295", "4294967295"), ("7", "7")]),
    ("bigint", "bigint", [("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807",) * 2]),
    ("bigint unsigned", "numeric(20,0)", [("18446744073709551615", "18446744073709551615")]),
    ("decimal(65,30)", "numeric(65,30)", [(f"-{'9' * 35}.{'9' * 30}",) * 2, ("0", f"0.{'0' * 30}")]),
    ("decimal(5,0) unsigned zerofill", "numeric(5,0)", [("42", "42")]),
    (
        "float",
        "real",
        [("0.1", "0.1"), ("16777217", "1.6777216e+07"), ("3.402823466e38", "3.4028235e+38"), ("1e-45", "1e-45")],
    ),
    ("float(7,3)", "real", [("1234.5678", "1234.568")]),
    ("double", "double precision", [("0.1e0 + 0.2e0", "0.30000000000000004"), ("5e-324", "5e-324")]),
    ("double(10,2)", "double precision", [("1.006", "1.01"), ("99999999.99", "99999999.99")]),
    ("bit(1)", "bit(1)", [("b'1'", "1"), ("b'0'", "0")]),
    ("bit(64)", "bit(64)", [("b'101'", "101".rjust(64, "0")), ("18446744073709551615", "1" * 64)]),
    ("char(5)", "text", [("''", ""), ("'ab'", "ab")]),
    ("varchar(99) character set utf8mb4", "text", [(f"convert(x'{HEX}' using utf8mb4)", AWKWARD), ("' '", " ")]),
    ("varchar(9) character set latin1", "text", [("'Zürich'", "Zürich")]),
    ("tinytext", "text", [("'null'", "null")]),
    ("longtext", "text", [("repeat('é', 100000)", "é" * 100_000), ("'{\"a\": 1}'", '{"a": 1}')]),
    ("enum('yes', 'n,o')", "text", [("'n,o'", "n,o")]),
    ("set('a', 'b')", "text", [("'b,a'", "a,b"), ("''", "")]),
    ("binary(4)", "bytea", [("x'ff'", "\\xff000000")]),
    ("varbinary(9)", "bytea", [("''", "\\x"), ("'\\\\x41'", "\\x5c783431")]),
    ("longblob", "bytea", [("x'00ff0a5c'", "\\x00ff0a5c"), (f"x'{HEX}'", f"\\x{HEX}")]),
    ("date", "date", [("'0001-01-01'", "0001-01-01"), ("'9999-12-31'", "9999-12-31")]),
    ("datetime", "timestamp without time zone", [("'2024-02-29 23:59:59'", "2024-02-29 23:59:59")]),
    (
        "datetime(6)",
        "timestamp without time zone",
        [
            ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"),
            ("'0001-01-01 00:00:00.000001'", "0001-01-01 00:00:00.000001"),
        ],
    ),
    (
        "timestamp(6) null",
        "timestamp with time zone",
        [
            ("'2038-01-19 03:14:07.999999'", "2038-01-19 03:14:07.999999+00"),
            ("'1970-01-01 00:00:01'", "1970-01-01 00:00:01+00"),
        ],
    ),
    (
        "time(6)",
        "interval",
        [
            ("'838:59:59.000000'", "838:59:59"),
            ("'-838:59:59'", "-838:59:59"),
            ("'-00:00:00.000001'", "-00:00:00.000001"),
        ],
    ),
    ("year", "smallint", [("1901", "1901"), ("2155", "2155"), ("0", "0")]),
    ("point", "bytea", [("point(1, -2)", "\\x000000000101000000000000000000f03f00000000000000c0")]),
]
MARIADB: Cases = [
    ("uuid", "uuid", [("'123E4567-e89b-12d3-a456-426655440000'", "123e4567-e89b-12d3-a456-426655440000")]),
    ("inet6", "text", [("'::ffff:10.0.0.1'", "::ffff:10.0.0.1")]),
]


def types(warehouse: Warehouse, table: str) -> dict[str, str]:
    return dict(
        warehouse.query(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            f" where attrelid = '{table}'::regclass and attnum > 0 and attname not like '\\_%'"
        )
    )


def table_of(cases: Cases) -> tuple[list[str], list[list[Any]], list[dict[str, str | None]]]:
    """A table with a column for each case: their definitions, the rows to put in (the last of nulls), and what is to
    come of them."""
    count = max(len(values) for _, _, values in cases) + 1
    filled = [[*values, *[(None, None)] * (count - len(values))] for _, _, values in cases]
    rows = [[values[row][0] for values in filled] for row in range(count)]
    expected = [{f"c{number}": values[row][1] for number, values in enumerate(filled)} for row in range(count)]
    return [f"c{number} {kind}" for number, (kind, _, _) in enumerate(cases)], rows, expected


def raw_texts(warehouse: Warehouse, names: Iterable[str]) -> list[dict[str, str | None]]:
    names = list(names)
    rows = raw(warehouse, ", ".join(["id", *(f"{name}::text" for name in names)]), "raw_erp.t")
    return [dict(zip(names, row[1:], strict=True)) for row in rows]


LANDINGS = pytest.mark.parametrize("landing", [None, LandingFormat.PARQUET])


@LANDINGS
def test_every_type_of_mysql_arrives_as_it_is(
    mysql: MySql, warehouse: Warehouse, destination: Destination, landing: LandingFormat | None
) -> None:
    [[version]] = mysql.execute("select version()")
    cases = MYSQL + (MARIADB if "MariaDB" in version else [])
    columns, rows, expected = table_of(cases)
    mysql.execute(
        f"create table t (id int primary key, {', '.join(columns)})",
        *(f"insert into t values ({n}, {', '.join(v or 'null' for v in row)})" for n, row in enumerate(rows)),
    )
    source = sql_erp(name="t", primary_key=("id",), landing=landing)
    assert counts(load_sql(source, mysql, destination)) == (len(rows), len(rows), 0, 0, 0, 0)
    kinds = {f"c{number}": kind for number, (_, kind, _) in enumerate(cases)}
    assert types(warehouse, "raw_erp.t") == {"id": "integer", **kinds}
    assert raw_texts(warehouse, kinds) == expected
    rebuild(source, source.streams[0], destination)
    assert raw_texts(warehouse, kinds) == expected
    assert load_sql(source, mysql, destination).unchanged == len(rows)


def test_what_only_mysql_takes_for_a_date_goes_to_quarantine(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "set sql_mode = 'ALLOW_INVALID_DATES'",
        "create table t (id int primary key, d date, dt datetime(6), ts timestamp null)",
        "insert into t values (1, '0000-00-00', null, null), (2, '2024-00-15', null, null),"
        " (3, '2024-02-31', null, null),"
        " (4, null, '0000-00-00 00:00:00', null), (5, null, null, '0000-00-00 00:00:00'),"
        " (6, '2024-02-29', '2024-02-29 00:00:00', '2024-02-29 00:00:00')",
    )
    source = sql_erp(name="t", primary_key=("id",), reject_limit=1)
    report = load_sql(source, mysql, destination)
    assert (report.extracted, report.inserted, report.quarantined) == (6, 1, 5)
    payloads = warehouse.query("select payload::json ->> coalesce(%s) from ops.quarantine order by row_in_load", ["d"])
    assert [value for (value,) in payloads] == ["0000-00-00", "2024-00-15", "2024-02-31", None, None]
    as_text = sql_erp(name="t", primary_key=("id",), columns={"d": "text", "dt": "text", "ts": "text"})
    warehouse.execute("drop table raw_erp.t")
    assert load_sql(as_text, mysql, destination).inserted == 6
    assert raw(warehouse, "id, d", "raw_erp.t")[:2] == [(1, "0000-00-00"), (2, "2024-00-15")]


def test_columns_of_the_definition_say_more_than_mysql_does(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "create table t (id int primary key, is_new tinyint(1), flag bit(1), mask bit(8), doc longtext, at datetime, "
        "lasts time)",
        """insert into t values (1, 1, b'1', b'101', '{"a": [1, 2.50]}', '2024-01-01 10:00:00', '12:30:00'),
        (2, 0, b'0', 255, '"x"', null, null), (3, 2, null, null, null, null, null),
        (4, null, null, null, '{"a": 1, "a": 2}', null, null), (5, null, null, null, null, null, '25:00:00')""",
    )
    columns = {"is_new": "bool", "flag": "boolean", "mask": "int", "doc": "jsonb", "at": "timestamptz", "lasts": "time"}
    source = sql_erp(name="t", primary_key=("id",), columns=columns, reject_limit=1)
    assert counts(load_sql(source, mysql, destination)) == (5, 2, 0, 0, 0, 3)
    assert raw(warehouse, "id, is_new, flag, mask, doc, at::text, lasts::text", "raw_erp.t") == [
        (1, True, True, 5, {"a": [1, 2.5]}, "2024-01-01 10:00:00+00", "12:30:00"),
        (2, False, False, 255, "x", None, None),
    ]
    reasons = warehouse.query("select reason from ops.quarantine order by row_in_load")
    assert [reason.split(":")[0] for (reason,) in reasons] == ["column is_new", "column doc", "column lasts"]


def test_rows_in_quarantine_come_again_when_the_definition_is_put_right(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "set sql_mode = ''",
        "create table t (id int primary key, d date)",
        "insert into t values (1, '2024-01-01'), (2, '0000-00-00')",
    )
    strict = sql_erp(name="t", primary_key=("id",), reject_limit=1)
    load_sql(strict, mysql, destination)
    warehouse.execute("alter table raw_erp.t alter column d type text")
    mended = sql_erp(name="t", primary_key=("id",), columns={"d": "text"})
    assert [report.inserted for report in replay(mended, mended.streams[0], destination)] == [1]
    assert raw(warehouse, "id, d", "raw_erp.t") == [(1, "2024-01-01"), (2, "0000-00-00")]


def test_the_landing_says_which_types_the_database_gave(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute(
        "create table t (`Order No` int primary key, `Größe` varchar(9), d double, `_load_id` json)",
        "insert into t values (1, '', 0.1, '[1]'), (2, null, null, null)",
    )
    source = sql_erp(name="t", primary_key=("Order No",), deletes=None)
    load_sql(source, mysql, destination)
    mysql.execute("insert into t values (3, 'x', 1e300, null)", "update t set d = 2 where `Order No` = 1")
    load_sql(source, mysql, destination)
    before = raw(warehouse, "*", "raw_erp.t")
    assert before[0][:4] == (1, "", 2.0, "[1]"), "MariaDB's json is a text"
    warehouse.execute("drop table raw_erp.t")
    assert rebuild(source, source.streams[0], destination).rows == 3
    assert raw(warehouse, "*", "raw_erp.t") == before
    assert types(warehouse, "raw_erp.t")["d"] == "double precision"


def test_texts_do_not_depend_on_the_character_set_of_the_url(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute("create table t (id int primary key, v text)", "insert into t values (1, '漢 😀')")
    url = mysql.url.set(query={"charset": "latin1"}).render_as_string(hide_password=False)
    source = sql_erp(name="t", primary_key=("id",))
    ingest(source, source.streams[0], connections(url), destination)
    assert raw(warehouse, "v", "raw_erp.t") == [("漢 😀",)]


def test_a_table_without_rows_is_made_with_its_types(
    mysql: MySql, warehouse: Warehouse, destination: Destination
) -> None:
    mysql.execute("create table t (id int primary key, d decimal(10,2), at timestamp(3) null)")
    assert load_sql(sql_erp(name="t", primary_key=("id",)), mysql, destination).extracted == 0
    assert types(warehouse, "raw_erp.t") == {"id": "integer", "d": "numeric(10,2)", "at": "timestamp with time zone"}


def test_a_changed_table_is_followed_or_refused(mysql: MySql, warehouse: Warehouse, destination: Destination) -> None:
    mysql.execute("create table t (id int primary key, n int, gone int)", "insert into t values (1, 1, 1)")
    source = sql_erp(name="t", primary_key=("id",))
    load_sql(source, mysql, destination)
    mysql.execute(
        "alter table t modify n bigint, drop gone, add fresh varchar(9)", "insert into t values (2, 1e10, 'x')"
    )
    load_sql(source, mysql, destination)
    assert raw(warehouse, "id, n, gone, fresh", "raw_erp.t") == [(1, 1, None, None), (2, 10_000_000_000, None, "x")]
    assert warehouse.query("select column_name, change from ops.schema_changes order by id") == [
        ("n", "widened"),
        ("fresh", "added"),
        ("gone", "removed"),
    ]
    mysql.execute("alter table t modify n varchar(20)")
    with pytest.raises(ContractViolationError, match="changed `n` from bigint to text"):
        load_sql(source, mysql, destination)


# SQLite


@LANDINGS
def test_every_type_of_sqlite_arrives_as_it_is(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, landing: LandingFormat | None
) -> None:
    database = Sqlite(tmp_path / "erp.db")
    cases: Cases = [
        ("integer", "bigint", [(-(2**63), str(-(2**63))), (2**63 - 1, str(2**63 - 1))]),
        ("unsigned big int", "bigint", [(7, "7")]),
        ("varchar(3)", "text", [("longer than it says", "longer than it says"), ("", "")]),
        ("text", "text", [(AWKWARD, AWKWARD), ("\\x00", "\\x00"), ('{"bytes": 1}', '{"bytes": 1}')]),
        (
            "blob",
            "bytea",
            [(b"", "\\x"), (b"\\x41", "\\x5c783431"), (bytes(range(256)), f"\\x{bytes(range(256)).hex()}")],
        ),
        (
            "real",
            "double precision",
            [(0.1, "0.1"), (5, "5"), (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308")],
        ),
        ("decimal(5, 2)", "numeric", [(0.1, "0.1"), (1234567.891, "1234567.891"), (2**53 + 1, str(2**53 + 1))]),
        ("boolean", "boolean", [(0, "false"), (1, "true")]),
        ("date", "date", [("2024-02-29", "2024-02-29")]),
        ("datetime", "timestamp without time zone", [("2024-02-29T23:59:59.123456", "2024-02-29 23:59:59.123456")]),
        ("time", "time without time zone", [("23:59:59.5", "23:59:59.5")]),
        ("json", "jsonb", [('{"a": [1, 2.50], "é": null}', '{"a": [1, 2.50], "é": null}'), ('"x"', '"x"'), (5, "5")]),
        ("string", "text", [("text", "text")]),
        ("", "text", [("text", "text"), (5, "5"), (2.5, "2.5")]),
    ]
    columns, rows, expected = table_of(cases)
    database.execute(
        f"create table t (id integer primary key, {', '.join(columns)})",
        f"insert into t values (?{', ?' * len(cases)})",
        rows=[(n, *row) for n, row in enumerate(rows)],
    )
    source = sql_erp(name="t", primary_key=("id",), landing=landing)
    assert counts(load_sql(source, database, destination)) == (len(rows), len(rows), 0, 0, 0, 0)
    kinds = {f"c{number}": kind for number, (_, kind, _) in enumerate(cases)}
    assert types(warehouse, "raw_erp.t") == {"id": "bigint", **kinds}
    assert raw_texts(warehouse, kinds) == expected
    rebuild(source, source.streams[0], destination)
    assert raw_texts(warehouse, kinds) == expected


NOT_OF_ITS_TYPE = [
    ("integer", "'text'"),
    ("integer", "1.5"),
    ("integer", "x'00'"),
    ("integer", "'0x10'"),
    ("integer", "'1_000'"),
    ("real", "9e999"),
    ("real", "'NaN'"),
    ("decimal(9, 2)", "'Infinity'"),
    ("text", "x'41'"),
    ("text", "cast(x'ff41' as text)"),
    ("text", "cast(x'410042' as text)"),
    ("blob", "'text'"),
    ("blob", r"'\x41'"),
    ("blob", "5"),
    ("boolean", "2"),
    ("boolean", "'true'"),
    ("date", "20240101"),
    ("date", "'2024-01-01 12:00'"),
    ("date", "'now'"),
    ("date", "'01/02/2024'"),
    ("date", "'epoch'"),
    ("datetime", "'Infinity'"),
    ("time", "'noon'"),
    ("datetime", "1704067200"),
    ("datetime", "'2024-01-01T00:00:00+05:00'"),
    ("datetime", "'2024-01-01 00:00:00.1234567'"),
    ("json", "'{'"),
    ("json", """'{"a": 1, "a": 2}'"""),
    ("json", r"""'"\u0000"'"""),
    ("json", "x'7b7d'"),
]
"""Types, and values that SQLite puts into such a column all the same."""


def test_what_is_not_of_its_type_goes_to_quarantine(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    database = Sqlite(tmp_path / "erp.db")
    columns = [f"c{number} {kind}" for number, (kind, _) in enumerate(NOT_OF_ITS_TYPE)]
    database.execute(
        f"create table t (id integer primary key, {', '.join(columns)})",
        *(f"insert into t (id, c{number}) values ({number}, {v})" for number, (_, v) in enumerate(NOT_OF_ITS_TYPE)),
        "insert into t (id) values (99)",
    )
    report = load_sql(sql_erp(name="t", primary_key=("id",), reject_limit=1), database, destination)
    assert raw(warehouse, "id", "raw_erp.t") == [(99,)]
    assert report.quarantined == len(NOT_OF_ITS_TYPE)
    reasons = [reason for (reason,) in warehouse.query("select reason from ops.quarantine order by row_in_load")]
    assert [reason.split(":")[0] for reason in reasons] == [f"column c{n}" for n in range(len(NOT_OF_ITS_TYPE))]


def test_a_view_of_sqlite_is_read_by_what_the_definition_says(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    database = Sqlite(tmp_path / "erp.db")
    database.execute(
        "create table t (id integer primary key, v text, at text)",
        "insert into t values (1, 'a', '2024-01-01T00:00:00Z'), (2, 'a', '2024-01-02 01:00:00+01:00')",
        "create view by_v as select v, count(*) as n, max(at) as at from t group by v",
    )
    columns = {"n": "bigint", "at": "timestamptz"}
    source = sql_erp(name="by_v", primary_key=("v",), columns=columns)
    load_sql(source, database, destination)
    assert raw(warehouse, "v, n, at::text", "raw_erp.by_v") == [("a", 2, "2024-01-02 00:00:00+00")]


# PostgreSQL, as any other database


def test_a_table_of_postgresql_arrives_as_it_is_or_is_quarantined(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        """
        create type mood as enum ('fine', 'Not So "Fine"');
        create domain positive as integer check (value > 0);
        create table things (
            id bigint primary key, n numeric, n2 numeric(12, 3), d double precision, f real, t text, v varchar(7),
            c char(3), b bytea, u uuid, ts timestamptz, dt date, i interval, j json, jb jsonb, a text[], aa integer[][],
            r int4range, m mood, p positive, net inet, bits bit(3), tm time, "Strange Name" boolean
        );
        insert into things values
        (1, 12345678901234567890.5, 1.500, 5e-324, 0.1, E'tab\\t "quotes" \\\\ and \\n', '', 'x', '\\x00ff',
         gen_random_uuid(), 'infinity', '-infinity', '1 mon -2 days 03:04:05.678', '{"a": 1.50}', '{"k": [1, 2.50]}',
         array['x', null, ''], '{{1,2},{3,4}}', '[1,5)', 'Not So "Fine"', 7, '10.0.0.1/8', b'101', '23:59:59', true);
        insert into things (id, n) values (2, repeat('9', 5000)::numeric), (3, 'NaN');
        insert into things (id, d) values (4, '-Infinity');
        insert into things (id, j) values (5, '{"a": 1, "a": 2}');
        """
    )
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    source = sql_erp(name="things", primary_key=("id",), reject_limit=1, write=WriteDisposition.APPEND)
    report = ingest(source, source.streams[0], connections(url), destination)[-1]
    assert (report.extracted, report.inserted, report.quarantined) == (5, 2, 3)
    names = types(warehouse, "raw_erp.things").keys() - {"strange_name"}
    as_text = ", ".join(f"{name}::text" for name in names)
    there = connection.execute(f'select {as_text}, "Strange Name" from things where id < 3 order by id'.encode())
    assert raw(warehouse, f"{as_text}, strange_name", "raw_erp.things") == there.fetchall()
    assert types(warehouse, "raw_erp.things")["n2"] == "numeric(12,3)"
