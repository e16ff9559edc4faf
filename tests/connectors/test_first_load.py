"""The first load of documents: the same rows whether they became raw as they were or each was judged."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.ingest import Destination
from connectors.model import Cursor, WriteDisposition
from connectors.rebuild import rebuild
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Shop, counts, load, order, raw, shop_source

JUDGED = "each is judged"


def texts(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    """Raw by what it prints, column by column in the order of their names."""
    return warehouse.query(
        "select id, (select jsonb_agg(array[key, value #>> '{}'] order by key) from jsonb_each(to_jsonb(o.*)))::text"
        " from raw_shop.orders o order by id, 2"
    )


def types(warehouse: Warehouse) -> dict[str, str]:
    return dict(
        warehouse.query(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = 'raw_shop' and column_name not like E'\\\\_%'"
        )
    )


AS_IT_IS: dict[str, list[dict[str, Any]]] = {
    "all kinds of values": [order(1, n=1, x=1.5, s="a\tb\\", b=True, j={"k": [1, "é: ", {}]}, none=None)],
    "a field that comes late": [order(n, **({"late": n} if n > 4 else {})) for n in range(1, 8)],
    "a value that comes late": [order(n, late="x" if n > 4 else None) for n in range(1, 8)],
    "whole numbers, then fractions": [order(n, x=n if n < 5 else n + 0.25) for n in range(1, 8)],
    "whole numbers, then larger ones": [order(n, x=10 ** (5 * n)) for n in range(1, 8)],
    "texts, then numbers": [order(n, x="007" if n < 5 else n) for n in range(1, 8)],
    "instants in all their forms": [
        order(n, at=at)
        for n, at in enumerate(
            [
                "2024-01-01T00:00:00Z",
                "2024-01-01 00:00:00.123456+01",
                "2024-01-01T23:59:59.5-0230",
                "2024-01-01T00:00:00",
            ]
        )
    ],
    "values that text escapes": [order(1, s="\\N"), order(2, s="\n"), order(3, s=""), order(4, s="null")],
}
JUDGED_ONE_BY_ONE: dict[str, list[dict[str, Any]]] = {
    "a row that comes twice": [order(1), order(2), order(1, x=2)],
    "a key that is null": [order(n) for n in range(1, 8)] + [order(0) | {"id": None}],
    "a cursor that is null": [order(n) for n in range(1, 8)] + [order(9) | {"changed": None}],
    "numbers, then texts": [order(n, x=n if n < 5 else "x") for n in range(1, 8)],
    "an object, then a text": [order(n, x={} if n < 5 else "x") for n in range(1, 8)],
    "a leap second": [order(1), order(2, at="2016-12-31T23:59:60Z")],
    "an instant that moves": [order(1), order(2, at="now")],
    "an instant finer than a microsecond": [order(1), order(2, at="2024-01-01T00:00:00.1234567Z")],
    "no instant": [order(1), order(2, at="noon")],
    "half of a surrogate pair in an object": [order(1), order(2, j={"k": "\ud800"})],
    "a NUL": [order(0), order(1, s="\0")],
    "a NUL in an object": [order(0), order(1, j=["\0"])],
    "a number that numeric does not hold": [order(1, j=1.5), order(2) | {"j": "HUGE"}],
    "a colon that could follow a name": [order(1), order(2, j={"k": "a :b"})],
}


def _bodies(documents: list[dict[str, Any]], *, spaced: bool = True) -> bytes:
    text = json.dumps({"result": {"orders": documents}}, separators=None if spaced else (",", ":"))
    return text.replace('"HUGE"', "1e200000").encode()


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("case", [*AS_IT_IS, *JUDGED_ONE_BY_ONE])
def test_both_ways_give_the_same_rows(
    api: Api, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture, case: str, spaced: bool
) -> None:
    documents = {**AS_IT_IS, **JUDGED_ONE_BY_ONE}[case]
    Shop(api, [], page=3)
    pages = [documents[start : start + 3] for start in range(0, len(documents), 3)]

    def answer(request: Any) -> Answer:
        number = int(request.parameters.get("after", 0))
        body = json.loads("{}") | {"next": number + 1 if number + 1 < len(pages) else None}
        whole = _bodies(pages[number], spaced=spaced)[:-1] + b"," + json.dumps(body).encode()[1:]
        return Answer(whole)

    api.answer = answer
    source = shop_source(reject_limit=0.9)
    with caplog.at_level(logging.INFO, "headwater"):
        report = load(source, api, destination)
    assert (JUDGED in caplog.text) == (case in JUDGED_ONE_BY_ONE)
    assert report.extracted == len(documents)
    assert report.extracted == report.inserted + report.duplicate + report.quarantined
    before = texts(warehouse), types(warehouse)
    rebuild(source, source.streams[0], destination)  # which judges each value
    assert (texts(warehouse), types(warehouse)) == before


def test_a_field_twice_in_an_object_is_noticed(
    api: Api, warehouse: Warehouse, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    documents = _bodies([order(1), order(2)]).replace(b'"id": 2', b'"id": 2, "j": {"a": 1, "a": 2}')
    api.answer = lambda _: Answer(documents)
    with caplog.at_level(logging.INFO, "headwater"):
        assert counts(load(shop_source(reject_limit=0.9), api, destination)) == (2, 1, 0, 0, 0, 1)
    assert JUDGED in caplog.text
    assert warehouse.query("select reason from ops.quarantine") == [
        ("column j: an object in it has the same key twice",)
    ]


def test_a_declared_column_without_a_value_is_there(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [order(1, note=None)])
    columns = {"changed": "timestamptz", "at": "timestamptz", "note": "text", "total": "numeric"}
    load(shop_source(columns=columns), api, destination)
    assert raw(warehouse, "id, note, total, pg_typeof(total)::text") == [(1, None, None, "numeric")]


@pytest.mark.parametrize("write", [WriteDisposition.APPEND, WriteDisposition.REPLACE])
def test_rows_without_a_key_are_all_there(
    api: Api, warehouse: Warehouse, destination: Destination, write: WriteDisposition
) -> None:
    Shop(api, [order(1), order(1), order(2)])
    source = shop_source(
        write=write, primary_key=(), cursor=None, since_parameter=None, event_time=None, window_parameters=None
    )
    assert load(source, api, destination).inserted == 3
    assert raw(warehouse, "id") == [(1,), (1,), (2,)]


def test_a_load_without_rows_makes_no_table(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    Shop(api, [])
    assert counts(load(shop_source(), api, destination)) == (0, 0, 0, 0, 0, 0)
    assert warehouse.query("select to_regclass('raw_shop.orders')::text") == [(None,)]
    Shop(api, [order(1)])
    assert load(shop_source(cursor=Cursor("changed")), api, destination).inserted == 1


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
values = (
    scalars
    | st.lists(scalars, max_size=2)
    | st.dictionaries(st.sampled_from(["a", "b", ":", "é"]), scalars, max_size=2)
)
kinds = st.sampled_from([st.integers(), st.text(max_size=4), st.booleans(), values, st.just({"a": ": :"})])


@st.composite
def loads(draw: st.DrawFn) -> list[dict[str, Any]]:
    columns = {name: draw(kinds) for name in ("p", "q", "r")}
    count = draw(st.integers(1, 9))
    return [
        order(number, **{name: draw(st.none() | kind) for name, kind in columns.items() if draw(st.integers(0, 5))})
        for number in range(count)
    ]


@given(loads(), st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_first_load_is_the_same_both_ways(
    api: Api, warehouse: Warehouse, destination: Destination, documents: list[dict[str, Any]], spaced: bool
) -> None:
    warehouse.execute(
        "drop schema if exists raw_shop cascade; truncate ops.loads, ops.quarantine, ops.watermarks cascade"
    )
    shop = Shop(api, documents)
    if not spaced:
        api.answer = lambda request: Answer(
            json.dumps(shop._answer(request).body, separators=(",", ":"), ensure_ascii=False).encode()
        )
    source = shop_source(reject_limit=1)
    report = load(source, api, destination)
    assert report.extracted == len(documents)
    before = texts(warehouse), types(warehouse)
    rebuild(source, source.streams[0], destination)
    assert (texts(warehouse), types(warehouse)) == before
