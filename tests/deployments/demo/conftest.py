"""What the tests of the demo stand on: its systems on a real PostgreSQL, started once, with time at a standstill."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from deployments.demo import systems
from deployments.local.stack import LocalStack


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStack, dict[str, str]]]:
    """The stack with the demo's systems (no Prefect), and the variables that say where they are."""
    stack = LocalStack(tmp_path_factory.mktemp("demo") / "home")
    try:
        stack.start_postgres()
        yield stack, systems.start(stack)
    finally:
        stack.destroy()


@pytest.fixture(scope="session")
def stack(started: tuple[LocalStack, dict[str, str]]) -> LocalStack:
    return started[0]


@pytest.fixture(scope="session")
def variables(started: tuple[LocalStack, dict[str, str]]) -> dict[str, str]:
    return started[1]


@pytest.fixture
def client(variables: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the flights API that has its key."""
    headers = {"X-API-Key": variables["HEADWATER_FLIGHTS_API_KEY"]}
    url = variables["HEADWATER_FLIGHTS_API_URL"]
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
