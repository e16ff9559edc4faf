"""Private values out of JSON documents: nothing of them is left, and nothing else is changed."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections, Secret
from connectors.privacy import Dropped, Hashed
from connectors.treatments.documents import DocumentTreatment
from connectors.treatments.plan import Plan

KEY = "a key of the tests that is long enough"
HASHED = Hashed(Secret("people_key"))
PRIVACY = {"email": HASHED, "card": Dropped(), "contact.phone": HASHED, "orders[].iban": Dropped(), "tags[]": HASHED}
CONNECTIONS = EnvironmentConnections({"HEADWATER_PEOPLE_KEY": KEY})


def treatment() -> DocumentTreatment:
    return DocumentTreatment(Plan.of(PRIVACY, CONNECTIONS, None))


def hash_of(text: str) -> str:
    return hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


_NUMBERS = st.one_of(
    st.integers(min_value=-(10**30), max_value=10**30).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda number: f"{number:f}"),
)
"""As they are written."""


@dataclass(frozen=True)
class Number:
    """A JSON number by its text."""

    text: str


_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS.map(Number), _TEXTS)
_NAMES = st.one_of(st.sampled_from(["x", "iban", "phone", 'é\\"', ""]), _TEXTS)
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=8,
)


def _with(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that may have a field of that name."""
    return st.dictionaries(st.one_of(st.just(name), _NAMES), _ANY, max_size=3)


_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "E-Mail": _ANY,
        "card": _ANY,
        "contact": st.one_of(st.none(), _with("phone"), st.lists(_with("Phone"), max_size=2)),
        "orders": st.one_of(st.none(), st.lists(_with("iban"), max_size=3)),
        "tags": st.one_of(st.none(), st.lists(_SCALARS, max_size=3)),
        "else": _ANY,
    },
)


def written(value: Any, *, separators: tuple[str, str], ensure_ascii: bool) -> str:
    """A value as a source may write it."""
    if isinstance(value, Number):
        return value.text
    comma, colon = separators
    inner = [
        written(each, separators=separators, ensure_ascii=ensure_ascii)
        for each in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    ]
    if isinstance(value, dict):
        names = [json.dumps(name, ensure_ascii=ensure_ascii) for name in value]
        return "{" + comma.join(name + colon + each for name, each in zip(names, inner, strict=True)) + "}"
    return f"[{comma.join(inner)}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=ensure_ascii)


def read(text: bytes) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number)


def hashed(value: Any, layout: dict[str, Any]) -> Any:
    if value is None:
        return None
    return hash_of(value if isinstance(value, str) else written(value, **layout))


def without_private(document: dict[str, Any], layout: dict[str, Any]) -> dict[str, Any]:
    """The same by Python's own objects."""
    result = {name: value for name, value in document.items() if name != "card"}
    if "E-Mail" in result:
        result["E-Mail"] = hashed(result["E-Mail"], layout)
    contacts = result.get("contact")
    for contact in contacts if isinstance(contacts, list) else [contacts] if contacts else []:
        for name in contact:
            if name.lower() == "phone":
                contact[name] = hashed(contact[name], layout)
    for each in result.get("orders") or []:
        each.pop("iban", None)
    if result.get("tags") is not None:
        result["tags"] = [hashed(tag, layout) for tag in result["tags"]]
    return result


@given(_DOCUMENTS, st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_what_is_private_is_treated_and_all_else_is_as_it_was(
    document: dict[str, Any], ensure_ascii: bool, separators: tuple[str, str]
) -> None:
    layout = {"ensure_ascii": ensure_ascii, "separators": separators}
    line = written(document, **layout).encode()
    expected = without_private(read(line), layout)
    assert read(treatment().line(line)) == expected


@pytest.mark.parametrize(
    "line",
    [
        '{"email": "canary", "email": "canary"}',
        '{"email":"canary","e\\u006dail":"canary"}',
        '{"contact": {"phone": "canary", "phone":\t"canary"}}',
        '{"orders": [{"iban": "canary"}, "canary"]}',
        '{"contact": "canary"}',
        '{"contact": 5.5}',
        '{"email": "canary \\ud800"}',
        '{"email": "canary", "n": NaN}',
        '{"email": "canary"',
        '["canary"]',
        '"canary"',
        "canary",
        "",
        '{"contact":' * 3000 + '"canary"' + "}" * 3000,
    ],
)
def test_what_cannot_be_told_apart_is_withheld_whole(line: str) -> None:
    found = json.loads(treatment().line(line.encode()))
    assert isinstance(found, str)
    assert found.startswith(f"withheld, {len(line):,} bytes: ")
    assert "canary" not in found


def test_bytes_that_are_no_text_are_withheld() -> None:
    assert b"withheld" in treatment().line(b'{"email": "canary \xff"}')


@pytest.mark.parametrize("line", ['{ "a" : 1 , "b c" : [ 1 ] }', '{\t"a": 1}', '{"\\u0061": 1}', "{}", "{ }"])
def test_no_layout_is_taken_for_a_field_that_comes_twice(line: str) -> None:
    assert json.loads(treatment().line(line.encode())) == json.loads(line)


def test_there_are_as_many_lines_as_before() -> None:
    assert treatment().lines(b'{"a": 1}\n\nno\n{"card": 1}\n').count(b"\n") == 4


def test_an_element_that_is_hashed_may_stand_alone() -> None:
    assert json.loads(treatment().line(b'{"tags": "x"}')) == {"tags": hash_of("x")}
