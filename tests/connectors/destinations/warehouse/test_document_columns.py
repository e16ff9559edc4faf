"""Documents read column by column are the same rows as those read one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.destinations.warehouse.records import JsonLines, Rejected, Row
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
