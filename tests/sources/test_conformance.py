"""What every stream of every registered source promises: see docs/sources.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.registry import SOURCES
from tests.sources.case import Case
from tests.sources.conduct_checks import CONDUCT_CHECKS
from tests.sources.row_checks import ROW_CHECKS
from tests.sources.stand_in import stand_in_of

STREAMS = [
    f"{source.name}.{stream.name}"
    for source in SOURCES.values()
    if stand_in_of(source.name) is not None
    for stream in source.streams
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_a_stand_in(source: str) -> None:
    assert stand_in_of(source) is not None, (
        f"Nothing shows that {source} works. Write tests/sources/stand_ins/{source}.py with a context manager "
        "`stand_in(server, folder)` that starts a system like it and yields a StandIn (tests/sources/stand_in.py); "
        "copy the nearest of its folder. The conformance suite does the rest."
    )


@pytest.mark.parametrize("check", [*ROW_CHECKS, *CONDUCT_CHECKS], ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", STREAMS, indirect=True)
def test_conformance(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
