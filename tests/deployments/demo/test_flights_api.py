from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.demo import clock
from deployments.local.layout import PROJECT_ROOT
from deployments.local.stack import LocalStack


def pages(client: httpx.Client, **parameters: str | int) -> Iterator[dict[str, Any]]:
    while True:
        response = client.get("/v1/flights", params=parameters)
        assert response.status_code == 200, response.text
        page = response.json()
        yield page
        if page["next"] is None:
            return
        parameters["after"] = page["next"]


def test_the_whole_year_comes_in_order_and_once(client: httpx.Client) -> None:
    last = ("", 0)
    statuses: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for page in pages(client, limit=10_000):
        assert page["as_of"] == "2013-12-31T17:00:00Z"
        for record in page["data"]:
            position = (record["updated_at"], record["id"])
            assert last < position
            last = position
            statuses[record["status"]] += 1
            missing.update(column for column in ("dep_time", "tailnum") if record[column] is None)
    assert sum(statuses.values()) == 336_776
    # The evening flights of the last day have not left yet.
    assert statuses["cancelled"] + statuses["landed"] + statuses["diverted"] + statuses["scheduled"] == 336_776
    assert 200 < statuses["scheduled"] < 1000
    assert missing["tailnum"] == 2_512


def test_a_day_of_scheduled_departures_is_half_open(client: httpx.Client) -> None:
    day = {"scheduled_from": "2013-06-01T00:00:00Z", "scheduled_to": "2013-06-02T00:00:00Z"}
    (page,) = pages(client, limit=10_000, **day)
    hours = sorted({record["time_hour"] for record in page["data"]})
    assert (hours[0], hours[-1]) == ("2013-06-01T00:00:00Z", "2013-06-01T23:00:00Z")
    (before,) = pages(client, limit=10_000, scheduled_from="2013-05-31T00:00:00Z", scheduled_to=day["scheduled_from"])
    (both,) = pages(client, limit=10_000, scheduled_from="2013-05-31T00:00:00Z", scheduled_to=day["scheduled_to"])
    assert len(before["data"]) + len(page["data"]) == len(both["data"])


def test_changes_since_an_instant_include_that_instant(client: httpx.Client) -> None:
    everything = [record for page in pages(client, updated_since="2013-12-31T16:00:00Z") for record in page["data"]]
    instants = sorted({record["updated_at"] for record in everything})
    (page,) = pages(client, updated_since=instants[-1], limit=10_000)
    assert {record["updated_at"] for record in page["data"]} == {instants[-1]}
    assert [r["id"] for r in page["data"]] == [r["id"] for r in everything if r["updated_at"] == instants[-1]]


def test_a_thousand_flights_make_a_page_when_nothing_is_said(client: httpx.Client) -> None:
    assert len(next(pages(client))["data"]) == 1000


@pytest.mark.parametrize("key", [None, "", "wrong", "ключ"])
def test_without_the_key_there_is_nothing_to_see(client: httpx.Client, key: str | None) -> None:
    headers = httpx.Headers({} if key is None else {b"X-API-Key": key.encode()})
    response = httpx.get(f"{client.base_url}/v1/flights", headers=headers, trust_env=False)
    assert response.status_code == 401
    assert response.json()["error"]["message"] == "Send the API key in the header X-API-Key."


def test_health_needs_no_key(client: httpx.Client) -> None:
    response = httpx.get(f"{client.base_url}/health", trust_env=False)
    assert response.json() == {"status": "ok", "flights": 336_776}


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("limit=0", "`limit` is `0`"),
        ("limit=10001", "from 1 to 10000"),
        ("limit=ten", "`limit` is `ten`"),
        ("limit=", "`limit` is ``"),
        ("since=2013-01-01T00:00:00Z", "Unknown parameter `since`"),
        ("limit=1&limit=2", "may be given once"),
        ("updated_since=yesterday", "`updated_since` is `yesterday`"),
        ("updated_since=2013-01-01T00:00:00", "must be an instant"),
        ("scheduled_from=2013-01-01T00:00:00+00:00", "+ as %2B"),
        ("scheduled_from=2013-02-01T00:00:00Z&scheduled_to=2013-01-01T00:00:00Z", "later than"),
        ("after=zzz", "not a token"),
        ("after=ZTE%21", "not a token"),
        ("after=", "not a token"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(client: httpx.Client, query: str, complaint: str) -> None:
    response = client.get(f"/v1/flights?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert complaint in response.json()["error"]["message"]


def test_other_paths_and_methods_are_refused_as_json(client: httpx.Client) -> None:
    assert client.get("/v2/flights").status_code == 404
    refused = client.post("/v1/flights", content=b"{}")
    assert refused.status_code == 501
    assert refused.json()["error"]["message"] == "Unsupported method ('POST')"
    assert client.get("/v1/flights", params={"limit": 1}).status_code == 200


def test_the_clock_is_seen_at_once(client: httpx.Client, stack: LocalStack) -> None:
    assert next(pages(client, limit=1))["as_of"] == clock.iso(clock.read(stack.home))


def test_it_does_not_start_without_a_key(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HEADWATER_FLIGHTS_API_KEY"}
    command = [sys.executable, "-m", "deployments.demo.flights_api", "--port", "1", "--home", str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert result.returncode == 1
    assert "Set HEADWATER_FLIGHTS_API_KEY" in result.stderr
