"""What a definition can say of private fields, and what is said of one that cannot be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from connectors.connections import Secret
from connectors.errors import ConfigurationError
from connectors.formats.file_streams import CsvStream, JsonLinesStream, ParquetStream
from connectors.model import Cursor
from connectors.postgres import TableStream
from connectors.privacy import Dropped, Hashed, Masked, folded
from connectors.rest import BodyFormat, Parent, RestStream
from tests.connectors.examples import erp, shop_source

HASHED = Hashed(Secret("people_key"))
MASKED, DROPPED = Masked(), Dropped()


def rest(**changes: Any) -> RestStream:
    return RestStream(name="people", path="/people", primary_key=("id",), **changes)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"id": DROPPED}, "of the primary key, and rows are told by it.*Use Hashed"),
        ({"ID": DROPPED}, "of the primary key"),
        ({"changed": HASHED}, "the cursor or the event time"),
        ({"changed": MASKED}, "the cursor or the event time"),
        ({"at": DROPPED}, "the cursor or the event time"),
        ({"at.zone": DROPPED}, "the cursor or the event time"),
        ({"n": HASHED}, "is declared as integer, and a hash is a text"),
        ({"contact": HASHED, "contact.email": DROPPED}, "same as `contact`, or one lies within"),
        ({"contact.email": HASHED, "Contact": DROPPED}, "one lies within the other"),
        ({"a[].b": HASHED, "a.b": DROPPED}, "same as"),
        ({"[].a": HASHED}, "no name of a field"),
        ({"": HASHED}, "no name of a field"),
        ({"a..b": HASHED}, "no path into a body"),
    ],
)
def test_a_treatment_that_cannot_be_is_refused(privacy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rest(
            cursor=Cursor("changed", lag=timedelta(0)),
            since_parameter="since",
            event_time="at",
            window_parameters=("from", "to"),
            columns={"n": "integer"},
            privacy=privacy,
        )


@pytest.mark.parametrize("treatment", [HASHED, MASKED])
def test_a_key_may_be_hashed_or_masked(treatment: Hashed | Masked) -> None:
    assert rest(privacy={"id": treatment}).privacy == {"id": treatment}


@pytest.mark.parametrize(
    "make",
    [
        lambda privacy: TableStream(name="people", primary_key=("id",), privacy=privacy),
        lambda privacy: CsvStream(name="people", pattern="*", primary_key=("id",), privacy=privacy),
        lambda privacy: ParquetStream(name="people", pattern="*", primary_key=("id",), privacy=privacy),
        lambda privacy: rest(format=BodyFormat.CSV, privacy=privacy),
    ],
)
def test_only_documents_have_fields_within_fields(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="lies within a column"):
        make({"contact.email": HASHED})
    assert make({'"contact.email"': HASHED})


def test_a_column_of_file_names_cannot_be_private() -> None:
    with pytest.raises(ConfigurationError, match="file_column private"):
        JsonLinesStream(name="p", pattern="*", primary_key=("id",), file_column="file", privacy={"File": DROPPED})


def test_a_child_is_not_asked_for_with_what_its_parent_keeps_private() -> None:
    parent = rest(privacy={"email": HASHED})
    with pytest.raises(ConfigurationError, match="addresses are in messages"):
        RestStream(name="orders", path="/people/{email}/orders", primary_key=("id",), parent=Parent(parent))


def test_a_child_says_itself_what_becomes_of_a_private_field_of_its_parent() -> None:
    parent = Parent(rest(privacy={"email": HASHED}), fields={"of": "email"})
    definition: dict[str, Any] = {"name": "orders", "path": "/people/{id}/orders", "primary_key": ("id",)}
    with pytest.raises(ConfigurationError, match="gets `of` from its parent"):
        RestStream(**definition, parent=parent)
    child = RestStream(**definition, parent=parent, privacy={"of": HASHED})
    assert not child.quotes


def test_keys_are_among_what_a_source_requires() -> None:
    privacy = {"email": HASHED, "phone": HASHED, "card": DROPPED}
    assert erp(name="t", primary_key=("id",), privacy=privacy).requirements[1:] == (Secret("people_key"),)
    assert Secret("people_key") in shop_source(privacy=privacy).requirements


def test_names_are_compared_without_regard_to_how_they_are_written() -> None:
    assert {folded(name) for name in ("e-mail", "E_Mail", "eMail", "E mail", "EMAIL")} == {"email"}
    assert folded("---") != folded("___"), "what has nothing else is told by it"
