"""Bodies taken apart: JSON wherever its records are, JSON lines, CSV; none that broke off or says that it failed."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections, Setting
from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import MalformedResponseError
from connectors.http.client import Answer as HttpAnswer
from connectors.ingest import Destination, ingest
from connectors.model import Deletes, LandingFormat
from connectors.rebuild import rebuild
from connectors.rest import BodyFormat, GraphQl, Offset, RestSource, RestStream, TokenInBody
from connectors.rest.bodies import Bodies, Joined
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.examples import IMPATIENT, counts
from tests.connectors.reading import read

CSV = BodyFormat.CSV
NDJSON = BodyFormat.NDJSON


def lab(**definition: Any) -> RestSource:
    stream = RestStream(**{"name": "samples", "path": "/samples", "primary_key": ("id",), **definition})
    return RestSource(name="lab", base_url=Setting("lab_url"), retries=IMPATIENT, streams=(stream,))


def load(source: RestSource, api: Api, destination: Destination) -> LoadReport:
    connections = EnvironmentConnections({"HEADWATER_LAB_URL": api.url})
    return ingest(source, source.streams[0], connections, destination)[-1]


@pytest.mark.parametrize(
    ("records", "body"),
    [
        ("", [{"id": 1}, {"id": 2}]),
        ("data.items", {"data": {"items": [{"id": 1}, {"id": 2}]}}),
        ("data.search.edges[].node", {"data": {"search": {"edges": [{"node": {"id": 1}}, {"node": {"id": 2}}]}}}),
        ("[].item", [{"item": {"id": 1}}, {"item": {"id": 2}}]),
        ("groups[].members[]", {"groups": [{"members": [{"id": 1}]}, {"members": []}, {"members": [{"id": 2}]}]}),
        ('"a.b".c', {"a.b": {"c": [{"id": 1}, {"id": 2}]}}),
    ],
)
def test_records_are_found_wherever_they_are(api: Api, records: str, body: Any) -> None:
    api.answer = lambda _: Answer(body)
    assert [json.loads(line) for line in read(api, records=records)] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("definition", "body"),
    [
        ({}, b'[{"id":1}]'),
        ({"records": "data"}, b'{"data":[{"id":1}]}'),
        ({"single": True}, b'{"id":1}'),
        ({"format": NDJSON}, b'{"id":1}\n'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_json(api: Api, definition: dict[str, Any], body: bytes) -> None:
    api.answer = lambda _: Answer(b"\xef\xbb\xbf" + body)
    assert read(api, **definition) == [b'{"id":1}']


@pytest.mark.parametrize(("records", "body"), [("", {"id": 1}), ("data.viewer", {"data": {"viewer": {"id": 1}}})])
def test_a_single_record_is_one(api: Api, records: str, body: Any) -> None:
    api.answer = lambda _: Answer(body)
    assert [json.loads(line) for line in read(api, records=records, single=True)] == [{"id": 1}]
    with pytest.raises(MalformedResponseError, match="cannot be read"):
        read(api, records=records)


def test_graphql_pages_are_loaded(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    def answer(request: Request) -> Answer:
        sent = json.loads(request.body)
        assert sent["query"] == "query ($first: Int!, $after: String) { … }"
        start = int(sent["variables"].get("after") or 0)
        edges = [{"node": {"id": number, "name": f"n{number}"}} for number in range(start, min(start + 2, 5))]
        info = {"hasNextPage": start + 2 < 5, "endCursor": str(start + 2)}
        assert sent["variables"]["first"] == 2
        return Answer({"data": {"samples": {"edges": edges, "pageInfo": info}}, "errors": []})

    api.answer = answer
    info = "data.samples.pageInfo"
    source = lab(
        path="/graphql",
        body=GraphQl("query ($first: Int!, $after: String) { … }"),
        parameters={"first": 2},
        records="data.samples.edges[].node",
        pages=TokenInBody(f"{info}.endCursor", "after", has_more=f"{info}.hasNextPage"),
    )
    assert counts(load(source, api, destination)) == (5, 5, 0, 0, 0, 0)
    assert warehouse.query("select id, name from raw_lab.samples order by id") == [(n, f"n{n}") for n in range(5)]
    assert {request.method for request in api.requests} == {"POST"}


@pytest.mark.parametrize(
    "errors", [[{"message": "Field `nam` doesn't exist"}], {"message": "doesn't exist"}, "doesn't exist"]
)
def test_errors_with_status_200_fail_the_load_and_nothing_lands(
    api: Api, warehouse: Warehouse, destination: Destination, errors: Any
) -> None:
    body = {"data": {"samples": [{"id": 1}]}, "errors": errors}
    api.answer = lambda _: Answer(body)
    with pytest.raises(MalformedResponseError, match=r"reports errors.*doesn't exist.*\[source lab, stream samples"):
        load(lab(body=GraphQl("{ … }"), records="data.samples"), api, destination)
    with pytest.raises(MalformedResponseError, match="reports errors"):
        load(lab(errors="errors", records="data.samples"), api, destination)
    assert warehouse.query("select status from ops.loads where status <> 'failed'") == []


def test_json_lines_are_loaded(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    pages = {"0": b'{"id": 1, "n": 1.10}\n\n{"id": 2}\r\n', "2": b'{"id": 3, "s": "\\u00e9"}', "3": b""}
    api.answer = lambda request: Answer(pages[request.parameters["offset"]])
    assert counts(load(lab(format=NDJSON, pages=Offset(2)), api, destination)) == (3, 3, 0, 0, 0, 0)
    assert warehouse.query("select id, n::text, s from raw_lab.samples order by id") == [
        (1, "1.10", None),
        (2, None, None),
        (3, None, "é"),
    ]
    assert "ndjson" in api.requests[0].headers["Accept"]


def test_a_json_line_that_is_nearly_json_goes_to_quarantine_alone(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    api.answer = lambda _: Answer(b'{"id": 1}\n{"id": 2, "x": NaN}\n')
    assert counts(load(lab(format=NDJSON, reject_limit=0.5), api, destination)) == (2, 1, 0, 0, 0, 1)


def test_pages_of_csv_become_one_table(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    pages = {
        "0": '\ufeffid,name,note\r\n1,Ann,"two\r\nlines"\r\n2,"Bo ""B"", Esq.",\r\n',
        "2": "\ufeffid,name,note\r\n3,Cy,x\r\n",
        "3": "id,name,note\r\n",
    }
    api.answer = lambda request: Answer(pages[request.parameters["offset"]].encode())
    source = lab(format=CSV, pages=Offset(2), columns={"id": "bigint"}, nulls=("",), deletes=Deletes(limit=0.5))
    assert counts(load(source, api, destination)) == (3, 3, 0, 0, 0, 0)
    rows = [(1, "Ann", "two\r\nlines"), (2, 'Bo "B", Esq.', None), (3, "Cy", "x")]
    query = "select id, name, note from raw_lab.samples order by id"
    assert warehouse.query(query) == rows
    rebuild(source, source.streams[0], destination)
    assert warehouse.query(query) == rows
    pages["0"] = "id,name,note\r\n1,Ann,x\r\n"
    pages["1"] = "id,name,note\r\n"
    connections = EnvironmentConnections({"HEADWATER_LAB_URL": api.url})
    report = find_deleted(source, source.streams[0], connections, destination, limit=0.9)
    assert report.deleted == 2
    assert warehouse.query("select id from raw_lab.samples where _deleted_at is null") == [(1,)]


def test_a_page_of_csv_with_another_header_is_refused(api: Api, destination: Destination) -> None:
    pages = {"0": b"id,name\n1,Ann\n", "1": b"name,id\nBo,2\n"}
    api.answer = lambda request: Answer(pages[request.parameters["offset"]])
    with pytest.raises(MalformedResponseError, match="another header than the first page, which had id,name"):
        load(lab(format=CSV, pages=Offset(1)), api, destination)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"id,name\n1,Ann\n2,B", "does not end with a line break"),
        (b'id,name\n1,"Ann\n', "cannot be read"),
        (b"id,name\n1,\xff\n", "cannot be read"),
        (b"", "has no header line"),
        (b"<html><body>Log in</body></html>\n", "a web page"),
        (b'{"error": "over quota"}\n', "is no CSV"),
    ],
)
def test_a_body_that_is_no_whole_csv_is_refused(api: Api, body: bytes, says: str) -> None:
    api.answer = lambda _: Answer(body)
    with pytest.raises(MalformedResponseError, match=says):
        read(api, format=CSV)


def test_csv_may_end_without_a_line_break_where_the_stream_says_so(api: Api) -> None:
    pages = {"0": b"id,name\n1,Ann", "1": b"id,name\n2,Bo", "2": b"id,name"}
    api.answer = lambda request: Answer(pages[request.parameters["offset"]])
    lines = read(api, format=CSV, pages=Offset(1), final_newline=False)
    assert lines == [b"id,name", b"1,Ann", b"2,Bo"]


@pytest.mark.parametrize(
    "body", [b'{"id": 1}\n{"id": 2', b'{"id": 1}\n{"id"\n{"id": 3}\n', b"<html>\n", b'{"id": "\xff"}\n']
)
def test_a_body_that_is_no_json_lines_is_refused(api: Api, body: bytes) -> None:
    api.answer = lambda _: Answer(body)
    with pytest.raises(MalformedResponseError, match="cannot be read"):
        read(api, format=NDJSON)


WHOLE = {
    BodyFormat.JSON: json.dumps(
        {"data": [{"id": n, "s": 'a "b" é\\', "l": [1, {}]} for n in range(3)], "n": 1}
    ).encode(),
    BodyFormat.NDJSON: b'{"id": 1, "s": "a"}\n{"id": 2, "s": "\xc3\xa9"}\n{"id": 3}\n',
    BodyFormat.CSV: b'id,s\n1,"a ""b"",\nc"\n2,\xc3\xa9\n',
}


@pytest.mark.parametrize("body_format", BodyFormat)
def test_a_body_cut_at_any_byte_is_refused_or_ends_between_records(body_format: BodyFormat) -> None:
    """Without its length, a body of lines that ends between two of them cannot be told from a shorter one."""
    whole = WHOLE[body_format]
    bodies = Bodies("/things", body_format, ("data",) if body_format is BodyFormat.JSON else ())

    def taken(body: bytes) -> list[bytes]:
        chunk = Joined(bodies).chunk(bodies.page(HttpAnswer(body, {}, "http://a/")))
        return [] if chunk.rows == 0 else [chunk.data]

    [everything] = taken(whole)
    accepted = []
    for end in range(len(whole)):
        try:
            accepted += [(end, data) for data in taken(whole[:end])]
        except MalformedResponseError:
            continue
    assert all(everything.startswith(data) for _, data in accepted)
    if body_format is BodyFormat.JSON:
        assert accepted == []
    else:
        line_ends = {place for place in range(len(whole)) if whole[place - 1 : place] == b"\n"}
        json_ends = {place for place in range(len(whole)) if whole[place : place + 1] == b"\n"}
        assert {end for end, _ in accepted} <= (line_ends if body_format is CSV else line_ends | json_ends)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=6) | st.sampled_from(
    ['"', "\n", "\r\n", ",", ""]
)
tables = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=6))


@given(tables, st.lists(st.integers(0, 6), max_size=3), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_cut_into_pages_is_the_same_table_again(
    table: list[list[str]], cuts: list[int], line_end: str, with_bom: bool
) -> None:
    width = len(table[0]) if table else 1
    header = ["a,b", "c\nd", 'e"f'][:width]
    places = [0, *sorted(min(cut, len(table)) for cut in cuts), len(table)]
    bodies = Bodies("/things", BodyFormat.CSV)
    joined = Joined(bodies)
    data, rows = b"", 0
    for start, end in pairwise(places):
        written = io.StringIO(newline="")
        writer = csv.writer(written, lineterminator=line_end, quoting=csv.QUOTE_ALL)
        writer.writerows([header, *table[start:end]])
        body = ("\ufeff" if with_bom else "").encode() + written.getvalue().encode()
        chunk = joined.chunk(bodies.page(HttpAnswer(body, {}, "http://a/")))
        data, rows = data + chunk.data, rows + chunk.rows
    assert list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True)) == [header, *table]
    assert rows == len(table)


def test_the_landing_has_the_format_of_the_body(api: Api, destination: Destination, warehouse: Warehouse) -> None:
    api.answer = lambda _: Answer(b"id\n1\n")
    load(lab(format=CSV), api, destination)
    [(key,)] = warehouse.query("select manifest_key from ops.loads")
    assert destination.landing.manifest_of_loaded(key).landing_format is LandingFormat.CSV
