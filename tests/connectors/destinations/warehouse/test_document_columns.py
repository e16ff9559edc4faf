"""Documents read a chunk or a column at a time are the same rows as those read one by one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.destinations.warehouse.records import JsonLines, Rejected, Row, unescaped
from connectors.destinations.warehouse.whole_chunks import CSV, TEXT, WholeChunk
from connectors.model import Chunk

FIELDS = ["a", "b", "c", "é", "x y", "select"]
texts = st.text(max_size=8) | st.sampled_from(
    ["null", "", "\t", "\\", '"', "\n", " ", "a\tb", "1", "n", "{", '"\n"', "é"]
)
integers = st.integers() | st.integers(10**17 - 2, 10**17 + 2) | st.integers(-(10**18), -(10**18) + 9)
numbers = st.one_of(
    integers.map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.sampled_from(["-0", "1e5", "1E-7", "0.10", "1.5e300"]),
)
strings = st.builds(json.dumps, texts, ensure_ascii=st.booleans())
nested = st.sampled_from(["{}", "[]", '{"k":"v\\\\"}', '["\\t", " "]', '[{"a": [null]}]', '{"\\u006b":1}'])
COLUMNS = [strings, numbers, integers.map(str), nested, st.sampled_from(["true", "false"])]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Documents of known fields, each field of a kind as a rule."""
    kinds = {field: draw(st.sampled_from(COLUMNS)) for field in FIELDS}
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :  ")]))
    odd = draw(st.booleans())

    def document() -> str:
        fields = draw(st.permutations(draw(st.sets(st.sampled_from(FIELDS)).map(sorted)))) if odd else FIELDS
        if odd and draw(st.integers(0, 20)) == 0:
            fields = [*fields, draw(st.sampled_from([*FIELDS, "new"]))]
        of = {field: kinds.get(field, strings) for field in fields}
        drawn = {field: st.just("null") | kind | kinds["a"] if odd else kind for field, kind in of.items()}
        values = [draw(drawn[field]) for field in fields]
        names = [json.dumps(field, ensure_ascii=draw(st.booleans())) for field in fields]
        return "{" + comma.join(f"{name}{colon}{value}" for name, value in zip(names, values, strict=True)) + "}"

    return "".join(f"{document()}\n" for _ in range(draw(st.integers(1, 6)))).encode()


def acquainted(json_columns: tuple[str, ...]) -> JsonLines:
    """A reader that knows all fields."""
    reader = JsonLines(json_columns)
    known = json.dumps(dict.fromkeys(FIELDS)).encode() + b"\n"
    assert not any(isinstance(row, Rejected) for row in reader.rows(Chunk(known, 1)))
    return reader


@given(lines(), st.sampled_from([(), ("a", "select")]))
def test_by_column_and_one_by_one_give_the_same_rows_and_kinds(data: bytes, json_columns: tuple[str, ...]) -> None:
    by_column, one_by_one = acquainted(json_columns), acquainted(json_columns)
    rows: list[Row] = list(one_by_one.rows(Chunk(data, 0)))
    columns = by_column.values_by_column(Chunk(data, 0))
    if columns is None:
        return
    assert [list(row) for row in zip(*columns, strict=True)] == rows
    assert by_column.kinds == one_by_one.kinds
    assert by_column.columns == one_by_one.columns


VALUE = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^,"\n]*)')
"""A value of CSV as COPY takes it with a backslash as its escape; in the second group if it is not in quotes."""


def values(chunk: WholeChunk) -> list[dict[str, str | None]]:
    """The rows, as PostgreSQL would understand the lines."""
    rows = []
    for line in chunk.lines.decode().removesuffix("\n").split("\n"):
        if chunk.form is TEXT:
            found = [unescaped(value.encode()) for value in line.split("\t")]
        else:
            found, end = [], -1
            while end < len(line):
                match = VALUE.match(line, end + 1)
                assert match is not None
                quoted, bare = match.groups()
                text = re.sub(r'\\(["\\])', r"\1", quoted) if quoted is not None else bare
                found.append(None if bare == "null" else text)
                end = match.end()
                assert line[end : end + 1] in (",", "")
        rows.append(dict(zip(chunk.columns, found, strict=True)))
    return rows


def one_by_one(reader: JsonLines, data: bytes) -> list[Row]:
    return list(reader.rows(Chunk(data, 0)))


@given(st.lists(lines(), min_size=2, max_size=4), st.sampled_from([(), ("a", "select")]))
def test_whole_chunks_have_the_same_rows_and_kinds(chunks: list[bytes], json_columns: tuple[str, ...]) -> None:
    """Of a reader that learns more of the fields with each, so that the last ones may be regular."""
    reader, other = acquainted(json_columns), acquainted(json_columns)
    for data in chunks + chunks[-1:]:
        expected = one_by_one(other, data)
        whole = reader.whole(Chunk(data, 0))
        if whole is None:
            assert one_by_one(reader, data) == expected
        else:
            assert whole.rows == len(expected)
            rows = [
                {name: unescaped(value) for name, value in zip(other.columns, row, strict=True)}
                for row in expected
                if isinstance(row, list)
            ]
            found = values(whole)
            assert [{**dict.fromkeys(other.columns), **row} for row in found] == rows
            for column in whole.columns:
                there = [text for row in found if (text := row[column]) is not None]
                if not re.search(r"[\t\n\r]", "".join(there)):
                    assert whole.values(column).decode() == "\n".join(there)
        assert reader.kinds == other.kinds
        assert reader.columns == other.columns


REGULAR = [
    {"a": 1, "b": "x", "c": 1.5, "é": {"k": [1, "\\ é"]}, "x y": True, "select": None},
    {"a": -2, "b": "", "c": 2, "é": [], "x y": False, "select": None},
    {"a": None, "b": '"quoted" \\ é null', "c": None, "é": None, "x y": None, "select": None},
    {"select": None, "c": 12345678901234567890, "a": 999, "é": {}, "x y": True, "b": None},
]


def compact(*documents: dict[str, Any]) -> bytes:
    written = (json.dumps(each, separators=(",", ":"), ensure_ascii=False) + "\n" for each in documents)
    return "".join(written).encode()


def test_documents_that_are_all_alike_are_taken_as_they_are() -> None:
    reader = acquainted(())
    one_by_one(reader, compact(*REGULAR))
    whole = reader.whole(Chunk(compact(*REGULAR), 0))
    assert whole is not None
    assert whole.form is CSV
    assert whole.columns == ["a", "b", "c", "é", "x_y"]


@pytest.mark.parametrize(
    "odd",
    [
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{},"x y":true}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select":null,"a":1}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select":1}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select": null}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{"k":\t1},"x y":true,"select":null}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":"x","x y":true,"select":null}',
        b'{"a":1,"b":"x","c":"1","\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1.0,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":-0,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1234567890123456789,"b":"x","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"a\\nb","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"a\\u0007","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"a\\/b","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"\\u00e9","c":1,"\xc3\xa9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"x","c":1,"\\u00e9":{},"x y":true,"select":null}',
        b'{"a":1,"b":"x","c":1,"\xc3\xa9":{"k":"\xff"},"x y":true,"select":null}',
    ],
)
def test_one_document_that_is_otherwise_leaves_its_chunk_to_the_other_readings(odd: bytes) -> None:
    reader, other = acquainted(()), acquainted(())
    for each in (reader, other):
        one_by_one(each, compact(*REGULAR))
    whole = reader.whole(Chunk(compact(*REGULAR) + odd + b"\n", 0))
    assert whole is None or whole.form is TEXT


USUAL: list[dict[str, Any]] = [
    {"a": 1, "b": "x", "c": 1.5, "é": {"k": [1, "\\ \t"]}, "x y": True, "select": None},
    {"a": -2, "b": "", "c": 2, "é": [], "x y": False, "select": None},
    {"a": None, "b": 'quoted "\t" \\ é', "c": None, "é": None, "x y": None, "select": None},
    {"a": 10**20, "b": None, "c": 1e300, "é": {}},
]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_usual_documents_are_read_by_column(separators: tuple[str, str], ensure_ascii: bool) -> None:
    data = "".join(json.dumps(row, separators=separators, ensure_ascii=ensure_ascii) + "\n" for row in USUAL)
    names_escaped = ensure_ascii  # é in a name is longer then than it is
    assert (acquainted(()).values_by_column(Chunk(data.encode(), 0)) is None) == names_escaped


@pytest.mark.parametrize(
    "odd",
    [
        b'{"a":1,"new":2}',
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":"\\u0000"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":{"b":"\xff"}}',
        b'{"a":1',
        b"[1]",
        b"",
        b'{"a":1}{"a":2}',
        b'{"a":\n1}{"a":2}',
        b'{"a":{}\n}{"a":2}',
        b'{"a":[1,\n2]}{"a":2}',
        b'{"a":"x\ny"}{"a":2}',
        b'{"a":"}\n{"}{"a":2}',
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_unusual_documents_are_left_to_the_reading_one_by_one(odd: bytes) -> None:
    reader = acquainted(())
    assert reader.values_by_column(Chunk(b'{"a":1}\n{"a":2}\n', 0)) is not None
    assert reader.values_by_column(Chunk(b'{"a":1}\n' + odd + b'\n{"a":2}\n', 0)) is None


def test_a_field_with_a_name_that_no_member_can_have_is_read_one_by_one() -> None:
    reader = JsonLines(())
    data = b'{"a\\"b":1}\n'
    assert list(reader.rows(Chunk(data, 1))) == [[b"1"]]
    assert reader.values_by_column(Chunk(data, 1)) is None
