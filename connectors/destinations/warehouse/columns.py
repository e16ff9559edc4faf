"""Names and types of raw's columns: how a source's words become PostgreSQL's, and which type can hold which.

Typing is inferred from what values *are* (a JSON number without a fraction, text, …), never from what text looks
like: a string that could be a date stays text unless the stream's definition says `timestamptz`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import IntFlag
from unicodedata import category, normalize

from connectors.errors import ContractViolationError

IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer identifiers without a word (manual, 4.1.1)."""

LOAD_ID, LOADED_AT, DELETED_AT = "_load_id", "_loaded_at", "_deleted_at"
OWN_COLUMNS = (LOAD_ID, LOADED_AT, DELETED_AT)
ROW, REJECTED, PAYLOAD = "_row", "_rejected", "_payload"
"""Further columns of an attempt's table: the row's place in the load, why it was rejected, and what it was."""
_TAKEN = (*OWN_COLUMNS, ROW, REJECTED, PAYLOAD, "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
"""Names that no field's column can have: Headwater's own, and those that every table of PostgreSQL has already."""


BESIDE = ""
"""In `_rejected`: the row is none of those that are loaded, only another version of one of them (in a replay)."""


class Kind(IntFlag):
    """What a document's values in one field were, over a whole load."""

    NONE = 0
    BOOLEAN = 1
    INTEGER = 2
    """Fits bigint."""
    BIG_INTEGER = 4
    FRACTION = 8
    """A number with a fraction or an exponent."""
    TEXT = 16
    JSON = 32
    """An object or a list."""


_NUMBERS = Kind.INTEGER | Kind.BIG_INTEGER | Kind.FRACTION


def inferred_type(kind: Kind) -> str | None:
    """The narrowest type that holds every value seen, exactly; None when there was no value."""
    if kind is Kind.NONE:
        return None
    if kind == Kind.BOOLEAN:
        return "boolean"
    if kind == Kind.INTEGER:
        return "bigint"
    if kind == kind & _NUMBERS:
        return "numeric"
    if kind == Kind.JSON:
        return "jsonb"
    return "text"


def document_kinds(source_type: str) -> Kind:
    """What a source that types its fields may send for a type, in documents.

    What else comes (a text where numbers are, in a database that allows it) is no value of the type, whatever
    PostgreSQL would make of it.
    """
    if source_type == "boolean":
        return Kind.BOOLEAN
    if source_type.startswith(("smallint", "integer", "bigint", "numeric", "real", "double precision")):
        return _NUMBERS
    if source_type.startswith(("date", "time", "interval", "bytea")):
        return Kind.TEXT
    return Kind.TEXT | _NUMBERS


def needs_check(kind: Kind | None, target: str) -> bool:
    """Whether values of such a kind (None: unknown, as in CSV) may be no valid value of the target type."""
    if target == "text":
        return False
    sure = {"boolean": Kind.BOOLEAN, "bigint": Kind.INTEGER, "numeric": Kind.INTEGER}.get(target)
    return kind is None or sure is None or kind & ~sure != Kind.NONE


_WIDER = {
    "smallint": {"integer", "bigint", "numeric", "double precision"},
    "integer": {"bigint", "numeric", "double precision"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "character varying": {"text"},
}
"""Type → the types that hold all its values exactly (of others than texts not text, which would break every model that
computes)."""

_SIZED = re.compile(r"(numeric|character varying|character|varchar)\((\d+)(?:,(\d+))?\)")
_INTEGER_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_OF_SECONDS = re.compile(r"(timestamp|time|interval)(?:\((\d)\))?( with(?:out)? time zone)?")


def widens(old: str, new: str) -> bool:
    """Whether a column of type `old` may become `new` without any of its values changing."""
    if new in _WIDER.get(old, set()):
        return True
    if old.endswith("[]") and new.endswith("[]"):
        return old != new and widens(old[:-2], new[:-2])
    old_time, new_time = _OF_SECONDS.fullmatch(old), _OF_SECONDS.fullmatch(new)
    if old_time is not None and new_time is not None:
        is_same = (old_time[1], old_time[3]) == (new_time[1], new_time[3])
        return is_same and old_time[2] is not None and (new_time[2] is None or new_time[2] > old_time[2])
    old_sized, new_sized = _SIZED.fullmatch(old), _SIZED.fullmatch(new)
    if old in _INTEGER_DIGITS and new_sized is not None and new_sized[1] == "numeric":
        return int(new_sized[2]) - int(new_sized[3] or 0) >= _INTEGER_DIGITS[old]
    if old_sized is None:
        return False
    if old_sized[1] == "numeric":
        if new == "numeric":
            return True
        if new_sized is None or new_sized[1] != "numeric":
            return False
        old_scale, new_scale = int(old_sized[3] or 0), int(new_sized[3] or 0)
        whole = int(new_sized[2]) - new_scale >= int(old_sized[2]) - old_scale
        return new_scale >= old_scale and whole
    if old_sized[1] == "character":
        return False  # its padding would become part of the value
    return new in ("text", "character varying") or (
        new_sized is not None and new_sized[1] == old_sized[1] and int(new_sized[2]) >= int(old_sized[2])
    )


def column_name(name: str) -> str:
    """A field's name as a column: lower case, letters and digits of any script and underscores, 63 bytes at most.

    A name that has to be cut keeps a hash of the whole, so that two long names stay two. Names that are Headwater's
    own or PostgreSQL's (`xmin`), or empty, get an underscore behind.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", normalize("NFC", name))
    plain = "".join(each if _is_of_a_word(each) else "_" for each in normalize("NFC", words.lower())) or "_"
    if plain[0].isdigit():
        plain = f"_{plain}"
    if plain in _TAKEN:
        plain += "_"
    if len(plain.encode()) > IDENTIFIER_BYTES:
        tail = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        plain = f"{plain.encode()[: IDENTIFIER_BYTES - 9].decode(errors='ignore')}_{tail}"
    return plain


def _is_of_a_word(character: str) -> bool:
    """Whether it is a letter, a digit, or a mark on one (the vowels of some scripts)."""
    return character.isalnum() or category(character).startswith("M")


def column_names(fields: Iterable[str]) -> dict[str, str]:
    """Column by field.

    Raises:
        ContractViolationError: two fields would become one column.
    """
    by_column: dict[str, str] = {}
    for field in fields:
        column = column_name(field)
        if column in by_column:
            raise ContractViolationError(
                f"The fields `{by_column[column]}` and `{field}` would both become the column `{column}`.",
                remedy="Rename one at the source, or leave it out in the stream's request.",
            )
        by_column[column] = field
    return {field: column for column, field in by_column.items()}
