"""What every stream of every registered source promises: see docs/sources.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.registry import SOURCES
from tests.sources.case import Case
from tests.sources.conduct_checks import CONDUCT_CHECKS
from tests.sources.row_checks import ROW_CHECKS
from tests.sources.stand_in import has_stand_in, start_of

STREAMS = [
    f"{source.name}.{stream.name}"
    for source in SOURCES.values()
    if has_stand_in(source.name)
    for stream in source.streams
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_a_stand_in(source: str) -> None:
    start_of(source)


@pytest.mark.parametrize("check", [*ROW_CHECKS, *CONDUCT_CHECKS], ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", STREAMS, indirect=True)
def test_conformance(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
