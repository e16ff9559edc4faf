"""Cutting CSV where records end, and choosing files."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigurationError
from connectors.files import CsvStream, _compile
from connectors.formats import CsvSplitter
from connectors.model import Cursor, WriteDisposition

cells = st.text(st.sampled_from('ab",\n\r é'), max_size=6)


@given(st.lists(st.lists(cells, min_size=2, max_size=3), max_size=6), st.integers(1, 9), st.booleans())
def test_a_file_is_cut_only_between_records(rows: list[list[str]], block: int, quote_all: bool) -> None:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(text, quoting=quoting).writerows(rows)
    data = text.getvalue().encode()
    splitter = CsvSplitter()
    pieces = [splitter.feed(data[start : start + block]) for start in range(0, len(data), block)]
    pieces.append(splitter.rest())
    assert b"".join(pieces) == data
    read = [row for piece in pieces for row in csv.reader(io.StringIO(piece.decode(), newline=""), strict=True)]
    assert read == list(csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True)) == rows


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("weather-{date}.csv", "weather-2013-01-01.csv", True),
        ("weather-{date}.csv", "weather-2013-01-01.csv.part", False),
        ("weather-{date}.csv", "old/weather-2013-01-01.csv", False),
        ("in/*.csv", "in/a b.csv", True),
        ("in/*.csv", "in/sub/a.csv", False),
        ("a+b.csv", "aab.csv", False),
    ],
)
def test_a_pattern_means_what_it_says(pattern: str, path: str, matches: bool) -> None:
    assert bool(_compile(pattern).fullmatch(path)) is matches


def test_a_definition_that_cannot_work_is_refused() -> None:
    key = {"name": "w", "primary_key": ("a",)}
    with pytest.raises(ConfigurationError, match="cannot be told apart by date"):
        CsvStream(**key, pattern="*.csv", event_time="at")
    with pytest.raises(ConfigurationError, match="reads files and has a cursor"):
        CsvStream(**key, pattern="*.csv", cursor=Cursor("at"))
    with pytest.raises(ConfigurationError, match="reads files and is `replace`"):
        CsvStream(**key, pattern="*.csv", write=WriteDisposition.REPLACE)
