"""Whether the Prefect server answers whom it should, and nobody else; and whether somebody is there to run what it
schedules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import prefect

from connectors.errors import ConfigurationError
from connectors.http.addresses import is_loopback
from deployments.doctor.addresses import own_addresses
from deployments.doctor.examination import Result, State
from deployments.work_pools.pools import KIND_VARIABLE, Kind

_SECONDS = 10.0
_SILENT = timedelta(minutes=2)
_NAMES = ("Prefect version", "Prefect access", "telemetry", "work pool", "worker")
_REFUSED = (401, 403)
_OPEN = (
    "start the server with PREFECT_SERVER_API_AUTH_STRING='user:password', and set PREFECT_API_AUTH_STRING to the same "
    "for workers and commands"
)


def client_to(api_url: str, *, auth: str | None, key: str | None) -> httpx.Client:
    """A client of the API, as Prefect's own would introduce itself."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    login = httpx.BasicAuth(*auth.split(":", 1)) if auth and ":" in auth else None
    return httpx.Client(base_url=api_url, timeout=_SECONDS, headers=headers, auth=login)


def answers(api_url: str, *, auth: str | None, key: str | None) -> bool:
    """Whether the server is there and lets us in."""
    with client_to(api_url, auth=auth, key=key) as client:
        try:
            return client.get("/admin/version").status_code == 200
        except (httpx.HTTPError, httpx.InvalidURL):
            return False


def prefect_server(api_url: str | None, *, auth: str | None, key: str | None) -> Iterator[Result]:
    """All about the server."""
    if not api_url:
        yield Result(
            "Prefect server",
            State.WRONG,
            "PREFECT_API_URL is not set.",
            "export PREFECT_API_URL=http://127.0.0.1:4200/api, or, with the local stack: . .headwater/env",
        )
        yield from _skipped("no server is known")
        return
    with client_to(api_url, auth=auth, key=key) as client:
        try:
            answer = client.get("/admin/version")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = f"{api_url} does not answer ({type(error).__name__})."
            yield Result("Prefect server", State.WRONG, said, "headwater up (local stack), or: prefect server start")
            yield from _skipped("the server does not answer")
            return
        if answer.status_code in _REFUSED:
            said = f"{api_url} does not let us in ({answer.status_code})."
            remedy = "export PREFECT_API_AUTH_STRING='user:password', as the server has it"
            yield Result("Prefect server", State.WRONG, said, remedy)
            yield from _skipped("the server does not let us in")
            return
        if answer.status_code != 200:
            said = f"{api_url} answers {answer.status_code}: no Prefect server."
            yield Result("Prefect server", State.WRONG, said, "Correct PREFECT_API_URL; it ends in /api.")
            yield from _skipped("no Prefect server answers")
            return
        yield Result("Prefect server", State.OK, f"{api_url} answers.")
        yield _version(str(answer.json()))
        yield from _access(api_url)
        yield _telemetry(client)
        yield from _workers(client)


def _skipped(why: str) -> Iterator[Result]:
    for name in _NAMES:
        yield Result(name, State.SKIPPED, f"Not looked at: {why}.")


def _version(server: str) -> Result:
    ours = prefect.__version__
    if server == ours:
        return Result("Prefect version", State.OK, f"Server and client are {ours}.")
    state = State.WARNING if server.split(".")[:2] == ours.split(".")[:2] else State.WRONG
    said = f"The server is {server}, the client here is {ours}."
    return Result("Prefect version", state, said, f"Install prefect=={server} here, or upgrade the server first.")


def _access(api_url: str) -> Iterator[Result]:
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    if not is_loopback(host):
        if lets_strangers_in(api_url):
            yield Result(
                "Prefect access", State.WRONG, f"{host} lets anybody in, without a password.", f"Now: {_OPEN}."
            )
            return
        yield Result("Prefect access", State.OK, f"{host} refuses strangers.")
        if parts.scheme == "http":
            said = "The password of the Prefect server goes over the network in clear."
            yield Result("Prefect access", State.WARNING, said, "Put a proxy with TLS before it, and use https://.")
        return
    for address in own_addresses():
        if lets_strangers_in(f"{parts.scheme}://{address}:{parts.port}{parts.path}"):
            said = f"The server listens on {address} too, and lets anybody in there, without a password."
            yield Result("Prefect access", State.WRONG, said, f"Start it with --host 127.0.0.1; or {_OPEN}.")
            return
    yield Result("Prefect access", State.OK, "The server is on this machine, and cannot be reached from others.")


def lets_strangers_in(api_url: str) -> bool:
    """Whether an API answers who shows no credentials. One that cannot be reached does not."""
    try:
        answer = httpx.post(f"{api_url.rstrip('/')}/flows/count", json={}, timeout=_SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return answer.status_code == 200


def refuse_open_server(api_url: str | None) -> None:
    """Let nothing be sent to a server on another machine that answers everybody.

    Raises:
        ConfigurationError: it does.
    """
    host = urlsplit(api_url or "").hostname or "localhost"
    if api_url and not is_loopback(host) and lets_strangers_in(api_url):
        raise ConfigurationError(
            f"The Prefect server {host} lets anybody in, without a password: anybody could run what is sent there.",
            remedy=f"{_OPEN[0].upper()}{_OPEN[1:]}.",
        )


def _telemetry(client: httpx.Client) -> Result:
    answer = client.get("/admin/settings")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    is_on = found.get("server", {}).get("analytics_enabled", False)
    if is_on:
        said = "The Prefect server tells its makers how it is used."
        remedy = "Start the server with PREFECT_SERVER_ANALYTICS_ENABLED=false and DO_NOT_TRACK=1."
        return Result("telemetry", State.WARNING, said, remedy)
    return Result("telemetry", State.OK, "Off: Prefect's by the server's settings, dbt's by dbt_project.yml.")


def _workers(client: httpx.Client) -> Iterator[Result]:
    name = Kind(os.environ.get(KIND_VARIABLE) or Kind.PROCESS).pool
    pool = client.get(f"/work_pools/{name}")
    if pool.status_code == 404:
        yield Result("work pool", State.WRONG, f"There is no work pool `{name}`.", "headwater deploy")
        yield Result("worker", State.SKIPPED, "Not looked at: there is no work pool.")
        return
    pool.raise_for_status()
    if pool.json()["is_paused"]:
        remedy = f"prefect work-pool resume {name}"
        yield Result("work pool", State.WARNING, f"The work pool `{name}` is paused: nothing runs.", remedy)
    else:
        yield Result("work pool", State.OK, f"`{name}`, of type {pool.json()['type']}.")
    answer = client.post(f"/work_pools/{name}/workers/filter", json={})
    answer.raise_for_status()
    beats = [datetime.fromisoformat(each["last_heartbeat_time"]) for each in answer.json()]
    now = datetime.now(UTC)
    alive = sum(now - beat < _SILENT for beat in beats)
    if alive:
        yield Result("worker", State.OK, f"{alive} of `{name}` heard within two minutes.")
        return
    heard = f"the last was heard {max(beats):%Y-%m-%d %H:%M} UTC" if beats else "none was ever heard"
    said = f"No worker is there for `{name}`: {heard}. Nothing runs."
    yield Result("worker", State.WRONG, said, f"prefect worker start --pool {name}")
