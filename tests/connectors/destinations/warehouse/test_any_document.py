"""Whatever JSON an API sends: each record is in raw exactly, or in quarantine with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import set_json_loads

from connectors.connections import EnvironmentConnections, Setting
from connectors.destinations.manifest import LoadPlace
from connectors.destinations.warehouse.columns import IDENTIFIER_BYTES, column_name, column_names, widens
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.destinations.warehouse.records import JsonLines, Rejected
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.model import Chunk
from connectors.rest import RestSource, RestStream, TokenInBody
from tests.conftest import Answer, Api, Request, Warehouse

FIELDS = ["a", "b", "c", "id_", "Ünï", "select", "x y", "x" * 70]
digits = st.text("0123456789", min_size=1, max_size=45)
signs = st.sampled_from(["", "-"])
numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.builds("{}{}.{}".format, signs, digits.map(int), digits),
    st.builds("{}{}{}{}".format, signs, st.integers(0, 99), st.sampled_from("eE"), st.integers(-400, 400)),
    st.sampled_from(["9007199254740993", "9223372036854775808", "-0", "-0.0", "1e400", "1e-400", "1e200000", "1E+2"]),
)
plain = st.text(max_size=20) | st.sampled_from(
    ["\0", "\\N", "\\.", "\\", "\ud800", "NaN", "Infinity", "", "\t\r\n", "1", "007", "1e5", "true", "null", "now"]
)
texts = plain.map(json.dumps) | plain.filter(lambda text: text.isprintable()).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
scalars = st.sampled_from(["null", "true", "false", "NaN", "-Infinity"]) | numbers | texts
lists = st.lists(scalars, max_size=3).map(lambda items: f"[{', '.join(items)}]")
names = st.sampled_from(['"k"', '"\\u006b"', '"é"']) | texts
objects = st.lists(st.tuples(names, scalars), max_size=3).map(
    lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
)
values = st.one_of(scalars, scalars, lists, objects)
fields = st.sampled_from(FIELDS).map(json.dumps)
nested = st.tuples(st.just('"nested"'), objects | lists)
pairs = st.one_of(st.tuples(fields, values), st.tuples(fields, values), nested)
documents = st.lists(pairs, max_size=5)
"""Fields and values as their source writes them; a field can come twice, here and in the objects within."""
pools = st.lists(pairs, min_size=8, max_size=16)
"""Pairs to make many documents of."""
Document = list[tuple[str, str]]

GIVEN = RestSource(
    name="given",
    base_url=Setting("given_url"),
    streams=(RestStream(name="documents", path="/", primary_key=("n",)),),
)


class Documents:
    """An API of documents in pages, each document as a text."""

    def __init__(self, api: Api) -> None:
        self.texts: list[str] = []
        self.where = EnvironmentConnections({"HEADWATER_GIVEN_URL": api.url})
        self.source = replace(
            GIVEN,
            streams=(
                RestStream(
                    name=f"s{uuid4().hex[:20]}",
                    path="/",
                    records="data",
                    pages=TokenInBody("next", "after"),
                    primary_key=("n",),
                    reject_limit=1,
                ),
            ),
        )
        api.answer = self._answer

    def _answer(self, request: Request) -> Answer:
        start = int(request.parameters.get("after", 0))
        page = self.texts[start : start + 7]
        following = start + 7 if start + 7 < len(self.texts) else "null"
        return Answer(f'{{"data": [{",".join(page)}], "next": {following}}}'.encode())

    def load(self, destination: Destination) -> LoadReport:
        return ingest(self.source, self.source.streams[0], self.where, destination)[-1]


def _check(
    api: Api, warehouse: Warehouse, destination: Destination, batches: list[list[Document]], spaced: bool
) -> int:
    """Load batches one after another into one table, and look at every value; how many rows there were."""
    documents = Documents(api)
    number = 0
    for batch in batches:
        comma, colon = (", ", ": ") if spaced else (",", ":")
        first = number
        documents.texts = []
        for record in batch:
            pairs = [('"n"', str(number)), *record]
            documents.texts.append("{" + comma.join(f"{name}{colon}{value}" for name, value in pairs) + "}")
            number += 1
        report = documents.load(destination)
        assert report.extracted == len(batch) == report.inserted + report.quarantined
        rejected = dict(
            warehouse.query("select row_in_load, reason from ops.quarantine where load_id = %s", [report.load_id])
        )
        assert len(rejected) == report.quarantined
        assert all(rejected.values())
        loaded = _rows(warehouse, documents.source.streams[0].name) if report.inserted else {}
        for place, text in enumerate(documents.texts):
            sent = _Sent(text)
            if place + 1 in rejected:
                # Later loads can meet columns of another type; the first has no reason but the values themselves.
                assert first > 0 or sent.has_trouble, (text, rejected[place + 1])
                continue
            assert not sent.is_refused, text
            for field, value in sent.fields.items():
                found = loaded[first + place].get(column_name(field))
                assert _same(value, found), (text, field, found)
    return number


TROUBLE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=40, suppress_health_check=TROUBLE)
@given(st.lists(st.lists(documents, max_size=8), min_size=1, max_size=2), st.booleans())
@example([[[('"a"', '"\\ud800"')]]], False)  # none of them can be read
def test_each_record_is_loaded_exactly_or_quarantined_with_a_reason(
    api: Api,
    warehouse: Warehouse,
    destination: Destination,
    batches: list[list[Document]],
    spaced: bool,
) -> None:
    _check(api, warehouse, destination, batches, spaced)


@pytest.mark.chaos
def test_each_of_ten_thousand_records_is_loaded_exactly_or_quarantined_with_a_reason(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    rows = 0

    @settings(max_examples=180, suppress_health_check=TROUBLE)
    @given(st.lists(st.tuples(pools, st.randoms()), min_size=2, max_size=2), st.booleans())
    def check(drawn: list[tuple[Document, Random]], spaced: bool) -> None:
        nonlocal rows
        batches = [[chance.choices(pool, k=chance.randint(0, 4)) for _ in range(32)] for pool, chance in drawn]
        rows += _check(api, warehouse, destination, batches, spaced)

    check()
    assert rows >= 10_000


LAYOUTS = {
    "compact": '{"n":7,"a":1,"b":{"x":1},%s}',
    "spaced": '{"n": 7, "a": 1, "b": {"x": 1}, %s}',
    "padded as much as the repeated field is long": '{"n": 7, "a": 1,          "b":{"x":1},%s}',
    "indented": '{   "n": 7,   "a": 1,   "b": {      "x": 1   },   %s}',
    "with tabs": '{\t"n": 7,\t"a": 1, "b": {"x": 1}, %s}',
    "with an escaped name": '{"n":7,"\\u0061":1,"b":{"x":1},%s}',
    "with a space in a name": '{"n":7,"c d":" ","a":1,"b":{"x":1},%s}',
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_field_that_comes_twice_sends_its_record_to_quarantine_in_any_layout(layout: str) -> None:
    parser = JsonLines([])
    for addition, twice in (
        ('"e":1', None),
        ('"e":"a \\"b\\": x"', None),
        ('"a":1', "a"),
        ('"a":22', "a"),
        ('"\\u0061" : null', "a"),
        ('"b": {"x": 2}', "b"),
        ('"e":1,"e":1', "e"),
        ('"":1,"":1', ""),
        ('"éa":1,"éa":2', "éa"),
    ):
        [row] = parser.rows(Chunk((layout % addition).encode() + b"\n", 1))
        if twice is None:
            assert not isinstance(row, Rejected), row
        else:
            assert isinstance(row, Rejected)
            assert row.reason == f"field {twice}: it is there twice"


def test_records_that_cannot_be_read_are_rejected_one_by_one() -> None:
    deep = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"
    lines = [b'{"a":1}', deep, b'{"a":NaN}', b'{"a":"\xff"}', b"[1]", b"", b'{"a":2}']
    rows = list(JsonLines([]).rows(Chunk(b"\n".join(lines), len(lines))))
    assert [isinstance(row, Rejected) for row in rows] == [False, True, True, True, True, True, False]
    assert rows[1] == Rejected("objects and lists within each other, too deep to be read", deep.decode())


class _Sent:
    """A document as it was sent, read without losing anything."""

    def __init__(self, text: str) -> None:
        self.is_refused = False
        """Raw must not have it: a field comes twice, it has what is no JSON, or what PostgreSQL cannot hold."""
        self.has_trouble = False
        """Raw may not have it."""
        read = json.loads(text, object_pairs_hook=_object, parse_float=Decimal, parse_constant=self._constant)
        self.is_refused |= isinstance(read, tuple)
        self.fields: dict[str, Any] = dict(read)
        for value in self.fields.values():
            self._look(value, within=False)
        self.has_trouble |= self.is_refused

    def _constant(self, name: str) -> str:
        self.is_refused = True
        return name

    def _look(self, value: Any, *, within: bool) -> None:
        if isinstance(value, str):
            self.is_refused |= any("\ud800" <= character <= "\udfff" for character in value)
            self.is_refused |= "\0" in value and not within
            self.has_trouble |= "\0" in value
        elif isinstance(value, Decimal):
            self.has_trouble |= value.adjusted() > 100_000
        elif isinstance(value, list | tuple):
            self.has_trouble |= isinstance(value, tuple)
            for item in value:
                self._look(item, within=True)
        elif isinstance(value, dict):
            for name, item in value.items():
                self._look(name, within=True)
                self._look(item, within=True)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | tuple[tuple[str, Any], ...]:
    """An object, or its pairs if a key comes twice: no dict of what raw holds is equal to that, only the same text."""
    return dict(pairs) if len(dict(pairs)) == len(pairs) else tuple(pairs)


def _rows(warehouse: Warehouse, table: str) -> dict[int, dict[str, Any]]:
    with warehouse.server.connect(warehouse.database) as connection:
        connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        set_json_loads(partial(json.loads, parse_float=Decimal), connection)
        rows: Any = connection.execute(f"select * from raw_given.{table}".encode()).fetchall()
    return {row["n"]: row for row in rows}


def _same(sent: Any, found: Any) -> bool:
    """Whether raw holds what was sent; in a column of mixed kinds it does so as text, in one of numbers as digits."""
    if sent is None or found is None:
        return sent is found
    if isinstance(sent, bool):
        return found is sent or found == ("true" if sent else "false")
    if isinstance(sent, int | Decimal):
        return not isinstance(found, bool) and Decimal(sent) == Decimal(found)
    if isinstance(sent, str):
        return found == sent or (not isinstance(found, str) and sent == _text(found))
    inner = json.loads(found, parse_float=Decimal, object_pairs_hook=_object) if isinstance(found, str) else found
    if isinstance(sent, tuple):
        return bool(sent == inner)
    if isinstance(sent, list):
        return isinstance(inner, list) and len(sent) == len(inner) and all(map(_same, sent, inner))
    return (
        isinstance(inner, dict)
        and sent.keys() == inner.keys()
        and all(_same(value, inner[name]) for name, value in sent.items())
    )


def _text(found: Any) -> str:
    return str(found).lower() if isinstance(found, bool) else f"{found:f}" if isinstance(found, Decimal) else str(found)


@given(st.text(max_size=80))
def test_any_field_becomes_a_column_that_postgresql_takes_whole(field: str) -> None:
    column = column_name(field)
    assert 0 < len(column.encode()) <= IDENTIFIER_BYTES
    assert column_name(column) == column, "a name that fits stays as it is"


@given(st.lists(st.text(max_size=70), unique=True, max_size=8))
def test_two_fields_never_share_a_column(fields: list[str]) -> None:
    if len({column_name(field) for field in fields}) < len(fields):
        with pytest.raises(ContractViolationError, match="would both become the column"):
            column_names(fields)
    else:
        assert list(column_names(fields)) == fields


def test_long_names_that_differ_late_stay_two() -> None:
    columns = column_names(["x" * 70 + "a", "x" * 70 + "b"])
    assert len(set(columns.values())) == 2


def test_only_lossless_changes_are_widenings() -> None:
    yes = [("integer", "bigint"), ("bigint", "numeric"), ("numeric(5,2)", "numeric(7,3)"), ("real", "double precision")]
    yes += [
        ("character varying(3)", "character varying(4)"),
        ("character varying(3)", "text"),
        ("numeric(5,2)", "numeric"),
    ]
    yes += [("smallint", "numeric(5,0)"), ("integer", "numeric(12,2)"), ("bigint", "numeric(19,0)")]
    yes += [
        ("timestamp(0) without time zone", "timestamp without time zone"),
        ("time(3) with time zone", "time(6) with time zone"),
    ]
    no = [
        ("smallint", "numeric(5,1)"),
        ("bigint", "numeric(18,0)"),
        ("time(3) with time zone", "time(6) without time zone"),
    ]
    no += [
        ("timestamp without time zone", "timestamp(6) without time zone"),
        ("integer[]", "integer"),
        ("text[]", "text[]"),
    ]
    no += [("bigint", "double precision"), ("bigint", "integer"), ("text", "bigint"), ("numeric(5,2)", "numeric(6,3)x")]
    no += [("numeric(5,2)", "numeric(5,3)"), ("character varying(4)", "character varying(3)"), ("integer", "text")]
    no += [("date", "timestamp with time zone"), ("numeric", "double precision"), ("character(3)", "text")]
    assert [widens(*pair) for pair in yes] == [True] * len(yes)
    assert [widens(*pair) for pair in no] == [False] * len(no)


def test_the_place_of_a_load_is_its_utc_day() -> None:
    load_id = uuid4()
    place = LoadPlace("a", "b", load_id, datetime.fromisoformat("2024-01-01T01:00:00+02:00"))
    assert place.prefix == f"a/b/dt=2023-12-31/load_id={load_id}"
    assert place.started_at.astimezone(UTC).hour == 23
