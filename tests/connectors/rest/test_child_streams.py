"""Streams of streams: for each parent its children, with what they need of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from connectors.connections import EnvironmentConnections, Setting
from connectors.deletions import find_deleted
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import ConfigurationError, MalformedResponseError, NotFoundError
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, Deletes, Window
from connectors.rest import BodyFormat, GraphQl, Offset, Parent, RestSource, RestStream, TokenInBody
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.examples import IMPATIENT, counts
from tests.connectors.reading import Busy

REPOS = RestStream(
    name="repos",
    path="/repos",
    records="data",
    pages=TokenInBody("next", "after"),
    primary_key=("id",),
    cursor=Cursor("pushed"),
    since_parameter="since",
    event_time="pushed",
    window_parameters=("from", "to"),
    columns={"pushed": "timestamptz"},
)
COMMITS = RestStream(
    name="commits",
    path="/repos/{owner.login}/{name}/commits",
    pages=Offset(2),
    primary_key=("repo_id", "sha"),
    parent=Parent(REPOS, fields={"repo_id": "id", "owner": "owner", "missing": "nothing"}),
)


class Forge:
    """Repositories in pages of two, each with commits in pages that are counted."""

    def __init__(self, api: Api, commits: dict[str, int]) -> None:
        self.api = api
        self.commits = commits
        self.gone: set[str] = set()
        api.answer = self.answer

    def repo(self, number: int, name: str) -> dict[str, Any]:
        return {
            "id": number,
            "name": name,
            "owner": {"login": f"o/{number % 2} é"},
            "pushed": f"2024-01-{number + 1:02}T00:00:00Z",
        }

    def answer(self, request: Request) -> Answer:
        if request.path == "/repos":
            since, start, end = (request.parameters.get(name, "") for name in ("since", "from", "to"))
            repos = [self.repo(number, name) for number, name in enumerate(self.commits)]
            repos = [repo for repo in repos if repo["pushed"] >= since and start <= repo["pushed"] < (end or "~")]
            after = int(request.parameters.get("after", 0))
            return Answer({"data": repos[after : after + 2], "next": after + 2 if after + 2 < len(repos) else None})
        _, _, owner, name, _ = (unquote(part) for part in request.path.split("/"))
        assert owner == f"o/{list(self.commits).index(name) % 2} é"
        if name in self.gone:
            return Answer({"message": "gone"}, 404)
        offset = int(request.parameters["offset"])
        return Answer([{"sha": f"{name}{n}", "n": n} for n in range(offset, min(offset + 2, self.commits[name]))])

    def asked(self, path: str = "/repos") -> list[dict[str, str]]:
        return [request.parameters for request in self.api.requests if request.path == path]


def load(api: Api, destination: Destination, stream: RestStream = COMMITS, **options: Any) -> LoadReport:
    source = RestSource(name="forge", base_url=Setting("forge_url"), retries=IMPATIENT, streams=(stream,))
    connections = EnvironmentConnections({"HEADWATER_FORGE_URL": api.url})
    return ingest(source, stream, connections, destination, **options)[-1]


REPO_COUNTS = {"a": 3, "b": 0, "c": 2, "d": 5, "e": 1}


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_each_parent_has_its_children(
    api: Api, warehouse: Warehouse, destination: Destination, concurrency: int
) -> None:
    Forge(api, REPO_COUNTS)
    report = load(api, destination, replace(COMMITS, concurrency=concurrency))
    assert counts(report) == (11, 11, 0, 0, 0, 0)
    rows = warehouse.query("select repo_id, sha, owner ->> 'login' from raw_forge.commits order by sha")
    assert rows == [
        (number, f"{name}{n}", f"o/{number % 2} é")
        for number, (name, count) in enumerate(REPO_COUNTS.items())
        for n in range(count)
    ]


def test_children_are_read_at_once_within_the_bound_and_come_in_their_parents_order(
    api: Api, destination: Destination
) -> None:
    forge = Forge(api, {f"r{number:02}": 1 for number in range(24)})
    busy = api.answer = Busy(forge.answer, lambda request: request.path != "/repos")
    load(api, destination, replace(COMMITS, concurrency=4))
    assert busy.most == 4


def test_a_parent_that_is_gone_fails_the_load_unless_the_stream_says_otherwise(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    forge = Forge(api, REPO_COUNTS)
    forge.gone = {"c"}
    with pytest.raises(NotFoundError, match="answered 404"):
        load(api, destination)
    assert warehouse.query("select count(*) from ops.loads where status = 'loaded'") == [(0,)]
    tolerant = replace(COMMITS, parent=Parent(REPOS, fields={"repo_id": "id"}, skip_missing=True))
    assert load(api, destination, tolerant).inserted == 9
    assert warehouse.query("select distinct repo_id from raw_forge.commits order by 1") == [(0,), (3,), (4,)]


BY_PARENT = replace(
    COMMITS,
    cursor=Cursor("repo_pushed"),
    event_time="repo_pushed",
    columns={"repo_pushed": "timestamptz"},
    parent=Parent(REPOS, fields={"repo_id": "id", "repo_pushed": "pushed"}),
)


def test_with_the_parents_cursor_only_children_of_changed_parents_are_read(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    forge = Forge(api, {"a": 1, "b": 1, "c": 1})
    load(api, destination, BY_PARENT)
    forge.commits.update({"c": 2, "d": 2})
    api.requests.clear()
    assert counts(load(api, destination, BY_PARENT)) == (4, 3, 0, 1, 0, 0)
    assert [asked.get("since") for asked in forge.asked()] == ["2024-01-03T00:00:00Z"]
    assert {unquote(request.path).split("/")[-2] for request in api.requests[1:]} == {"c", "d"}
    assert warehouse.query("select value from ops.watermarks") == [("2024-01-04 00:00:00+00",)]


def test_with_the_parents_windows_the_children_of_its_parents_are_read(api: Api, destination: Destination) -> None:
    forge = Forge(api, REPO_COUNTS)
    report = load(api, destination, BY_PARENT, window=Window.parse("2024-01-03", "2024-01-05"))
    assert report.inserted == 2 + 5
    assert forge.asked() == [{"from": "2024-01-03T00:00:00Z", "to": "2024-01-05T00:00:00Z"}]


def test_with_a_cursor_of_their_own_children_of_all_parents_are_asked_from_it(
    api: Api, destination: Destination
) -> None:
    forge = Forge(api, {"a": 1, "b": 1})
    own = replace(
        COMMITS,
        cursor=Cursor("at", lag=timedelta(hours=1)),
        since_parameter="since",
        columns={"at": "timestamptz"},
        pages=None,
    )

    def answer(request: Request) -> Answer:
        if request.path == "/repos":
            return forge.answer(request)
        return Answer([{"sha": request.path, "at": "2024-05-01T12:00:00Z"}])

    api.answer = answer
    load(api, destination, own)
    api.requests.clear()
    load(api, destination, own)
    assert [request.parameters for request in api.requests] == [
        {},
        *[{"since": "2024-05-01T11:00:00Z"}] * 2,
    ]


def test_grandchildren_have_what_their_parents_have(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    forge = Forge(api, {"a": 2, "b": 1})

    def answer(request: Request) -> Answer:
        if not request.path.startswith("/checks/"):
            return forge.answer(request)
        _, _, repo, sha = request.path.split("/")
        return Answer({"state": f"{repo}:{sha} is fine"})

    api.answer = answer
    checks = RestStream(
        name="checks",
        path="/checks/{repo_id}/{sha}",
        single=True,
        primary_key=("repo_id", "sha"),
        parent=Parent(COMMITS, fields={"repo_id": "repo_id", "sha": "sha"}),
        concurrency=2,
    )
    load(api, destination, checks)
    assert warehouse.query("select repo_id, sha, state from raw_forge.checks order by sha") == [
        (0, "a0", "0:a0 is fine"),
        (0, "a1", "0:a1 is fine"),
        (1, "b0", "1:b0 is fine"),
    ]


def test_a_parents_field_can_be_a_parameter_or_a_variable(api: Api, destination: Destination) -> None:
    def answer(request: Request) -> Answer:
        if request.path == "/repos":
            return Answer({"data": [{"id": 7, "name": "seven", "pushed": "2024-01-01T00:00:00Z"}]})
        return Answer({"data": [{"sha": "x"}]})

    api.answer = answer
    child = replace(
        COMMITS,
        path="/graphql",
        records="data",
        pages=None,
        body=GraphQl("query { … }"),
        parameters={"repo": "{id}", "label": "name:{name}", "first": 5},
        parent=Parent(REPOS, fields={"repo_id": "id"}),
    )
    load(api, destination, child)
    sent = json.loads(api.requests[-1].body)
    assert sent["variables"] == {"repo": 7, "label": "name:seven", "first": 5}


def test_children_that_are_gone_are_found(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    forge = Forge(api, {"a": 4, "b": 2})
    stream = replace(COMMITS, deletes=Deletes(limit=0.9))
    load(api, destination, stream)
    forge.commits["a"] = 1
    source = RestSource(name="forge", base_url=Setting("forge_url"), retries=IMPATIENT, streams=(stream,))
    connections = EnvironmentConnections({"HEADWATER_FORGE_URL": api.url})
    assert find_deleted(source, stream, connections, destination).deleted == 3
    assert warehouse.query("select sha from raw_forge.commits where _deleted_at is null order by 1") == [
        ("a0",),
        ("b0",),
        ("b1",),
    ]


def test_a_parent_without_the_field_that_is_asked_with_fails_the_load(api: Api, destination: Destination) -> None:
    api.answer = lambda _: Answer({"data": [{"id": 1, "name": "a", "owner": {"login": None}}]})
    with pytest.raises(MalformedResponseError, match=r"record without `owner\.login`, which `commits` asks with"):
        load(api, destination)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": "/commits"}, "asks for the same with each of its records"),
        ({"format": BodyFormat.CSV}, "one of the two is CSV"),
        ({"cursor": Cursor("at"), "since_parameter": "since"}, "the cursor has no lag"),
        ({"cursor": Cursor("at")}, "only one of cursor and since_parameter"),
        ({"event_time": "at"}, "only one of event_time and window_parameters"),
        ({"path": "/repos/{a[]}"}, "does not lead to one value"),
    ],
)
def test_a_child_that_cannot_work_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        replace(COMMITS, **changes)
