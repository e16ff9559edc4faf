"""From page to page: each record once, an end that is the end, and no guess where the source contradicts itself."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigurationError, MalformedResponseError
from connectors.http.link_header import links
from connectors.rest import (
    BodyFormat,
    InHeader,
    JsonBody,
    Keyset,
    LinkHeader,
    NextUrlInBody,
    Offset,
    PageNumber,
    RestStream,
    TokenInBody,
    pages,
)
from connectors.rest.pages import Ask, Pages
from connectors.rest.reading import _CircleGuard
from tests.conftest import Answer, Api, Request
from tests.connectors.reading import Busy, read

SIZES = [0, 1, 2, 3, 4, 7]
Records = list[dict[str, int]]


class Paged:
    """An API of numbered records, paged in every way at once."""

    def __init__(self, api: Api, count: int, *, size: int = 2, most: int = 100) -> None:
        self.api = api
        self.records = [{"id": 10 + number} for number in range(count)]
        self.size = size
        self.most = most
        api.answer = self.answer

    def answer(self, request: Request) -> Answer:
        asked = {**request.parameters, **(json.loads(request.body)["search"] if request.body else {})}
        size = min(int(asked.get("limit", self.size)), self.most)
        if "page" in asked:
            start = (int(asked["page"]) - int(asked.get("first", 1))) * size
        elif "after_id" in asked:
            start = sum(record["id"] <= int(asked["after_id"]) for record in self.records)
        else:
            start = int(asked.get("offset", asked.get("token", 0)))
        page = self.records[start : start + size]
        rest = start + size < len(self.records)
        url = f"{self.api.url}{request.path}?offset={start + size}&limit={size}"
        count = len(self.records)
        body = {
            "data": page,
            "meta": {"total": count, "pages": -(-count // size), "more": rest, "token": start + size if rest else None},
            "@odata.nextLink": url if rest else None,
            "links": {"next": f"?offset={start + size}&limit={size}" if rest else ""},
            "cursor": str(start + size),
        }
        headers = {"X-Total-Count": str(count), "X-Total-Pages": str(-(-count // size))}
        if rest:
            headers["Link"] = (
                f'<{url}&rel=first>; rel="first", <{urlsplit(url).query and "?" + urlsplit(url).query}>; rel=next'
            )
        return Answer(body, headers=headers)


WAYS: Mapping[str, tuple[Pages, bool]] = {
    "link header": (LinkHeader(), False),
    "next URL": (NextUrlInBody('"@odata.nextLink"'), False),
    "relative next URL": (NextUrlInBody("links.next"), False),
    "token": (TokenInBody("meta.token", "token"), False),
    "token and whether there are more": (TokenInBody("cursor", "token", has_more="meta.more"), False),
    "keyset": (Keyset("id", "after_id"), True),
    "keyset and whether there are more": (Keyset("id", "after_id", has_more="meta.more"), False),
    "offset": (Offset(2), True),
    "offset to a short page": (Offset(2, short_page_ends=True), True),
    "offset to a total": (Offset(2, total="meta.total"), False),
    "offset to a total in a header": (Offset(2, total=InHeader("x-total-count")), False),
    "page number": (PageNumber(), True),
    "page number to a short page": (PageNumber(size=2), True),
    "page number to a number of pages": (PageNumber(total_pages="meta.pages"), False),
    "page number to a number of pages in a header": (PageNumber(total_pages=InHeader("X-Total-Pages")), False),
}
"""Each with whether a page beyond the last may be asked for."""
COUNTED = [name for name, (pages, _) in WAYS.items() if isinstance(pages, Offset | PageNumber)]


def ids(lines: list[bytes]) -> list[int]:
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_every_record_comes_once_and_in_order(api: Api, way: str, count: int) -> None:
    pages, may_ask_beyond = WAYS[way]
    source = Paged(api, count)
    assert ids(read(api, records="data", pages=pages)) == [record["id"] for record in source.records]
    assert len(api.requests) <= max(1, -(-count // 2)) + may_ask_beyond


@pytest.mark.parametrize("count", [0, 1, 2, 30, 31])
@pytest.mark.parametrize("way", COUNTED)
def test_pages_that_come_at_once_are_the_same_in_the_same_order(api: Api, way: str, count: int) -> None:
    pages, may_ask_beyond = WAYS[way]
    source = Paged(api, count)
    found = ids(read(api, records="data", pages=pages, concurrency=4))
    assert found == [record["id"] for record in source.records]
    assert len(api.requests) <= max(1, -(-count // 2)) + 4 * may_ask_beyond


def test_as_many_requests_are_under_way_as_the_stream_allows_and_no_more(api: Api) -> None:
    source = Paged(api, 60)
    busy = api.answer = Busy(source.answer)
    assert len(read(api, records="data", pages=Offset(2), concurrency=5)) == 60
    assert busy.most == 5


@pytest.mark.parametrize("first", [0, 1])
def test_page_numbers_start_where_the_source_does(api: Api, first: int) -> None:
    Paged(api, 5)
    read(api, records="data", pages=PageNumber(start=first), parameters={"first": first})
    assert [request.parameters["page"] for request in api.requests] == [str(first + number) for number in range(4)]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_source_with_a_limit_of_its_own_loses_no_record(api: Api, concurrency: int) -> None:
    source = Paged(api, 20, most=3)
    if concurrency == 1:
        assert ids(read(api, records="data", pages=Offset(10))) == [record["id"] for record in source.records]
        return
    with pytest.raises(MalformedResponseError, match="shorter than it should be.*would leave gaps"):
        read(api, records="data", pages=Offset(5), concurrency=concurrency)


def test_a_token_goes_into_the_body_that_is_posted_and_keeps_its_kind(api: Api) -> None:
    source = Paged(api, 5)
    pages = TokenInBody("meta.token", "token")
    found = read(api, records="data", pages=pages, body=JsonBody(parameters_at="search"), parameters={"limit": 2})
    assert ids(found) == [record["id"] for record in source.records]
    assert [json.loads(request.body)["search"] for request in api.requests] == [
        {"limit": 2},
        {"limit": 2, "token": 2},
        {"limit": 2, "token": 4},
    ]


def test_a_link_is_followed_as_it_is(api: Api) -> None:
    Paged(api, 3)
    read(api, records="data", pages=LinkHeader(), parameters={"limit": "2", "state": "all"})
    assert [request.parameters for request in api.requests] == [
        {"limit": "2", "state": "all"},
        {"limit": "2", "offset": "2"},
    ]


IN_A_CIRCLE: dict[str, tuple[Pages, Callable[[int], dict[str, Any]]]] = {
    "tokens": (TokenInBody("next", "after"), lambda number: {"next": f"t{number}"}),
    "URLs": (NextUrlInBody("next"), lambda number: {"next": f"/things?n={number}"}),
}


@pytest.mark.parametrize("length", [1, 2, 5, 40])
@pytest.mark.parametrize("kind", IN_A_CIRCLE)
def test_pages_in_a_circle_of_any_length_are_noticed(api: Api, kind: str, length: int) -> None:
    pages, following = IN_A_CIRCLE[kind]

    def answer(request: Request) -> Answer:
        count = len(api.requests)
        return Answer({"data": [{"id": count}], **following(count if count < 7 else 7 + count % length)})

    api.answer = answer
    with pytest.raises(MalformedResponseError, match="go in a circle"):
        read(api, records="data", pages=pages)
    assert len(api.requests) <= 4 * (7 + length)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("pages", [Offset(2), PageNumber()])
def test_a_source_that_ignores_the_count_is_noticed(api: Api, pages: Pages, concurrency: int) -> None:
    api.answer = lambda _: Answer([{"id": 1}, {"id": 2}])
    with pytest.raises(MalformedResponseError, match="does not seem to know the parameter"):
        read(api, pages=pages, concurrency=concurrency)
    assert len(api.requests) <= 1 + concurrency * 2


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_empty_page_where_the_source_says_there_is_more_is_no_end(api: Api, concurrency: int) -> None:
    def answer(request: Request) -> Answer:
        offset = int(request.parameters["offset"])
        return Answer({"data": [{"id": offset}] if offset < 3 else [], "total": 10})

    api.answer = answer
    with pytest.raises(MalformedResponseError, match="empty after 3 of 10 records"):
        read(api, records="data", pages=Offset(1, total="total"), concurrency=concurrency)


@pytest.mark.parametrize(
    ("pages", "body", "says"),
    [
        (TokenInBody("next", "after", has_more="more"), {"more": True}, "`next` names none"),
        (TokenInBody("next", "after", has_more="more"), {"next": "x"}, "`more` is None, neither true nor false"),
        (TokenInBody("next", "after"), {"next": {"a": 1}}, "an object or a list in `next`"),
        (NextUrlInBody("next"), {"next": 17}, "no address"),
        (Keyset("name", "after"), {}, "last record without `name`"),
        (Offset(1, total="total"), {"total": "many"}, "'many', which is no count"),
        (PageNumber(total_pages=InHeader("X-Pages")), {}, "'-3', which is no count"),
        (LinkHeader(), {}, "The header Link cannot be read"),
    ],
)
def test_a_page_that_does_not_say_what_it_should_is_refused(
    api: Api, pages: Pages, body: dict[str, Any], says: str
) -> None:
    headers = {"X-Pages": "-3", "Link": "see </next"}
    api.answer = lambda _: Answer({"data": [{"id": 1}], **body}, headers=headers)
    with pytest.raises(MalformedResponseError, match=says):
        read(api, records="data", pages=pages)


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"pages": TokenInBody("a", "b"), "concurrency": 2}, "has a concurrency but its pages follow each other"),
        ({"concurrency": 2}, "has a concurrency but its pages follow each other"),
        ({"pages": Offset(5), "concurrency": 0}, "has a concurrency of 0"),
        ({"pages": Offset(5), "parameters": {"limit": "10"}}, "gives `limit` in its parameters and its pages"),
        ({"pages": TokenInBody("a", "b"), "format": "csv"}, "reads CSV, whose pages do not say what TokenInBody needs"),
        ({"pages": Keyset("a", "b"), "format": "csv"}, "It works with: JSON, NDJSON"),
        ({"pages": Offset(5, total="total"), "format": "ndjson"}, "reads NDJSON, whose pages do not say"),
        ({"pages": Offset(5), "single": True}, "reads a single record, and pages"),
        ({"format": "csv", "records": "data"}, "reads CSV and names records"),
        ({"records": "data..x"}, "is no path into a body"),
        ({"path": "/things/{id}"}, "has `{id}` in its path but no parent"),
    ],
)
def test_a_definition_that_cannot_work_is_refused(definition: dict[str, Any], says: str) -> None:
    if "format" in definition:
        definition = {**definition, "format": BodyFormat(definition["format"])}
    with pytest.raises(ConfigurationError, match=says):
        RestStream(**{"name": "things", "path": "/things", "primary_key": ("id",), **definition})


@pytest.mark.parametrize(
    "make",
    [lambda: TokenInBody("a[]", "b"), lambda: NextUrlInBody(""), lambda: Keyset("a", "b", has_more="[]")],
)
def test_a_path_that_leads_to_many_names_no_next_page(make: Callable[[], Pages]) -> None:
    with pytest.raises(ConfigurationError, match="does not lead to one value"):
        make()


@pytest.mark.parametrize("make", [lambda: Offset(0), lambda: PageNumber(size=0), lambda: PageNumber(start=2)])
def test_pages_that_cannot_be_are_refused(make: Callable[[], Pages]) -> None:
    with pytest.raises(ConfigurationError, match="cannot"):
        make()


targets = st.text("abc/?&=;,%:'() ", max_size=10).map(str.strip)
relations = st.lists(st.sampled_from(["next", "prev", "Last", "http://a.b/c"]), min_size=1, max_size=3)
others = st.lists(
    st.tuples(st.sampled_from(["title", "type", "rel2"]), st.text('abc ,;="\\<>', max_size=6)), max_size=2
)


@st.composite
def link_headers(draw: st.DrawFn) -> tuple[str, list[tuple[str, frozenset[str]]]]:
    """A header as RFC 8288 has it, and what it means."""
    parts, meant = [], []
    space = st.sampled_from(["", " ", "\t"])
    for target, relation, more in draw(st.lists(st.tuples(targets, relations, others), max_size=4)):
        named = [(draw(st.sampled_from(["rel", "REL"])), " ".join(relation)), *more]
        text = f"<{target}>"
        for name, value in draw(st.permutations(named)):
            is_token = value and value.isalpha() and draw(st.booleans())
            quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f"{draw(space)};{draw(space)}{name}{draw(space)}={draw(space)}{value if is_token else quoted}"
        parts.append(text)
        meant.append((target, frozenset(name.lower() for name in relation)))
    comma = draw(st.sampled_from([",", ", ", " ,", ",,"]))
    return comma.join(parts), meant


@given(link_headers())
def test_a_link_header_is_read_as_the_rfc_has_it(header: tuple[str, list[tuple[str, frozenset[str]]]]) -> None:
    text, meant = header
    assert list(links(text)) == meant


@given(st.text('<>;,="\\ relnxt', max_size=40))
def test_any_text_is_a_link_header_or_is_refused(text: str) -> None:
    try:
        found = list(links(text))
    except MalformedResponseError:
        return
    assert len(found) <= text.count("<")


def test_of_two_relations_the_first_counts_and_an_anchor_is_about_something_else() -> None:
    assert list(links("<a>; rel=prev; rel=next, <b>; rel=next; anchor='#x', <c>")) == [
        ("a", frozenset({"prev"})),
        ("c", frozenset()),
    ]


def test_what_is_asked_after_many_pages_takes_no_more_memory() -> None:
    """Two hundred thousand links through the guard: it holds one of them."""
    guard = _CircleGuard("/things")
    tracemalloc.start()
    for number in range(200_000):
        guard.see(Ask(url=f"https://example.org/things?page={number}"))
    # What the guard and this test hold; other threads of the tests hold some too.
    here = [tracemalloc.Filter(True, name) for name in (pages.__file__, __file__)]
    held = sum(each.size for each in tracemalloc.take_snapshot().filter_traces(here).statistics("filename"))
    tracemalloc.stop()
    assert held < 10_000
