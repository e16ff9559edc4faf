"""Paths into bodies: each leads where its names say, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.documents.lenient import select_leniently
from connectors.documents.path import Path, find, parse_path, placed, scalar, select, single_path
from connectors.errors import ConfigurationError

names = st.text(min_size=1, max_size=6).filter(lambda name: name.isprintable()) | st.sampled_from(
    ["a.b", "a[]", "[]", '"', "\\", '\\"', "@odata.nextLink", "é", "x y"]
)
steps = st.none() | names


def written(path: Path) -> str:
    parts = [""]
    for name in path:
        if name is None:
            parts[-1] += "[]"
            continue
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        parts.append(quoted if set(name) & set('.[]"\\') else name)
    return parts[0] + ("." if parts[0] and parts[1:] else "") + ".".join(parts[1:])


@given(st.lists(steps, max_size=5))
def test_a_path_is_read_as_it_was_written(path: list[str | None]) -> None:
    assert parse_path(written(tuple(path))) == tuple(path)


@pytest.mark.parametrize(
    "text", [".", "a.", ".a", "a..b", "a[", "a]", "a[0]", 'a."b', 'a"b"', "a[]b", '"a\\n"', "[].[]"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no path into a body"):
        parse_path(text)


@pytest.mark.parametrize("text", ["", "a[].b"])
def test_a_path_to_many_is_no_path_to_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not lead to one value"):
        single_path(text)


def walked(value: Any, path: Path) -> list[Any]:
    """What a path means."""
    if not path:
        return [value]
    if path[0] is None:
        assert isinstance(value, list)
        return [found for element in value for found in walked(element, path[1:])]
    assert isinstance(value, dict)
    return walked(value[path[0]], path[1:])


keys = st.sampled_from(["a", "b", "c.d", "é", '"'])
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)


@given(bodies, st.lists(st.none() | keys, max_size=4), st.sampled_from([None, 1]))
def test_a_path_selects_what_its_names_say_by_both_readings(
    body: Any, path: list[str | None], indent: int | None
) -> None:
    text = json.dumps(body, indent=indent)
    try:
        expected: Any = walked(body, tuple(path))
    except (AssertionError, KeyError) as error:
        expected = type(error)

    def read(reading: Any) -> Any:
        try:
            return [json.loads(bytes(raw)) for raw in reading()]
        except KeyError:
            return KeyError
        except ValueError:
            return AssertionError

    assert read(lambda: select(text.encode(), tuple(path))) == expected
    assert read(lambda: select_leniently(text, tuple(path))) == expected


@given(bodies, st.lists(keys, min_size=1, max_size=3))
def test_the_one_value_is_found_or_is_not_there(body: Any, path: list[str]) -> None:
    text = json.dumps(body).encode()
    here = body
    for name in path:
        if here is None:
            break
        if not isinstance(here, dict):
            with pytest.raises(ValueError, match=r"no |Expected|malformed|character"):
                find(text, tuple(path))
            return
        here = here.get(name)
    found = find(text, tuple(path))
    assert (None if found is None else json.loads(bytes(found))) == here


def test_a_value_beside_one_that_is_nearly_json_is_found() -> None:
    found = find(b'{"data": [NaN, "\\ud800"], "meta": {"next": "x", "rate": Infinity}}', ("meta", "next"))
    assert found is not None
    assert scalar(found) == "x"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("-7", -7), ("1.10", "1.10"), ('"a"', "a"), ("true", True), ("1" * 30, "1" * 30)]
)
def test_a_value_keeps_its_kind_and_its_digits(text: str, value: object) -> None:
    assert scalar(msgspec.Raw(text.encode())) == value


def test_a_value_is_put_into_a_copy() -> None:
    template = {"variables": {"first": 10, "filter": {"state": "open"}}, "query": "…"}
    filled = placed(template, single_path("variables.filter.since"), 5)
    assert filled["variables"] == {"first": 10, "filter": {"state": "open", "since": 5}}
    assert template["variables"] == {"first": 10, "filter": {"state": "open"}}
    with pytest.raises(ConfigurationError, match="`query` in the body is no object"):
        placed(template, ("query", "x"), 1)
