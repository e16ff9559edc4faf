"""A case for each stream of each registered source that has a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from connectors.model import stream_of
from connectors.registry import SOURCES
from tests.conftest import Server, empty_warehouse
from tests.sources.case import Case
from tests.sources.stand_in import StandIn, start_of


@pytest.fixture(scope="session")
def stand_in(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], StandIn]]:
    """The stand-in of a source, by its name; started when it is first asked for."""
    with ExitStack() as running:

        @cache
        def started(source: str) -> StandIn:
            return running.enter_context(start_of(source)(postgres, tmp_path_factory.mktemp(source)))

        yield started


@pytest.fixture(scope="module")
def case(
    request: pytest.FixtureRequest,
    stand_in: Callable[[str], StandIn],
    postgres: Server,
    _warehouse_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Case]:
    """A stream, by the name of source and stream, with a warehouse that all checks of it share."""
    source_name, _, stream_name = request.param.partition(".")
    source = SOURCES[source_name]
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        landing = tmp_path_factory.mktemp("landing")
        yield Case(source, stream_of(source, stream_name), stand_in(source_name), warehouse, landing)
