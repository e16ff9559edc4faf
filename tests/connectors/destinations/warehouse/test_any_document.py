"""Whatever JSON an API sends: each record is in raw exactly, or in quarantine with a reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.connections import Connections, EnvironmentConnections, Setting
from connectors.destinations.landing import LoadPlace
from connectors.destinations.warehouse.columns import IDENTIFIER_BYTES, column_name, column_names, widens
from connectors.destinations.warehouse.records import JsonLines, Rejected
from connectors.errors import ContractViolationError
from connectors.ingest import Destination, ingest
from connectors.model import Chunk, Extraction, ExtractRequest, LandingFormat, Stream, check_source
from connectors.rest import RestStream
from tests.conftest import Warehouse

numbers = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
texts = st.text(max_size=20) | st.sampled_from(["\0", "\\N", "\\", "\ud800", "NaN", "", "\t\r\n", "1", "true", "null"])
scalars = st.none() | numbers | texts
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)
documents = st.dictionaries(st.sampled_from(["a", "b", "c", "id_", "Ünï", "select", "x y"]), values, max_size=5)


class Given:
    """A source that sends the records it was made with."""

    name = "given"
    requirements: tuple[Setting, ...] = ()

    def __init__(self, lines: list[bytes], stream: RestStream) -> None:
        self.lines = lines
        self.streams: tuple[Stream, ...] = (stream,)
        check_source(self.name, self.streams)

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        batches = [self.lines[start : start + 3] for start in range(0, len(self.lines), 3)]
        chunks = [Chunk(b"".join(batch), len(batch)) for batch in batches]
        return Extraction(LandingFormat.JSONL, iter(chunks))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(documents, max_size=8))
@example([{"a": "\ud800"}])  # none of them can be read
def test_each_record_is_loaded_exactly_or_quarantined_with_a_reason(
    warehouse: Warehouse, destination: Destination, records: list[dict[str, Any]]
) -> None:
    stream = RestStream(name=f"s{uuid4().hex[:20]}", path="/", primary_key=("n",), reject_limit=1)
    numbered = [{"n": number, **record} for number, record in enumerate(records)]
    lines = [json.dumps(record).encode() + b"\n" for record in numbered]
    report = ingest(Given(lines, stream), stream, EnvironmentConnections({}), destination)[-1]
    assert report.extracted == len(records) == report.inserted + report.quarantined
    rejected = {
        json.loads(payload)["n"]: reason
        for payload, reason in warehouse.query(
            "select payload, reason from ops.quarantine where load_id = %s", [report.load_id]
        )
    }
    assert all(rejected.values())
    loaded = _rows(warehouse, stream.name) if report.inserted else {}
    assert len(loaded) == report.inserted
    for number, record in enumerate(numbered):
        if str(number) in rejected or number in rejected:
            continue
        for field, value in record.items():
            assert _same(value, loaded[number].get(column_name(field))), (field, value, loaded[number])


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


def _rows(warehouse: Warehouse, table: str) -> dict[int, dict[str, Any]]:
    with warehouse.server.connect(warehouse.database) as connection:
        connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        rows: Any = connection.execute(f"select * from raw_given.{table}".encode()).fetchall()
    return {row["n"]: row for row in rows}


def _same(sent: Any, found: Any) -> bool:
    """Whether raw holds what was sent; in a column of mixed kinds it does so as text."""
    if sent is None or found is None:
        return sent is found
    if isinstance(sent, bool):
        return found is sent or found == ("true" if sent else "false")
    if isinstance(sent, int | float):
        return Decimal(json.dumps(sent)) == Decimal(str(found))
    if isinstance(sent, str):
        return bool(found == sent)
    inner = json.loads(found) if isinstance(found, str) else found
    if isinstance(sent, list):
        return len(sent) == len(inner) and all(map(_same, sent, inner))
    return sent.keys() == inner.keys() and all(_same(value, inner[name]) for name, value in sent.items())


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
    no = [("bigint", "double precision"), ("bigint", "integer"), ("text", "bigint"), ("numeric(5,2)", "numeric(6,3)x")]
    no += [("numeric(5,2)", "numeric(5,3)"), ("character varying(4)", "character varying(3)"), ("integer", "text")]
    no += [("date", "timestamp with time zone"), ("numeric", "double precision"), ("character(3)", "text")]
    assert [widens(*pair) for pair in yes] == [True] * len(yes)
    assert [widens(*pair) for pair in no] == [False] * len(no)


def test_the_place_of_a_load_is_its_utc_day() -> None:
    load_id = uuid4()
    place = LoadPlace("a", "b", load_id, datetime.fromisoformat("2024-01-01T01:00:00+02:00"))
    assert place.prefix == f"a/b/dt=2023-12-31/load_id={load_id}"
    assert place.started_at.astimezone(UTC).hour == 23
