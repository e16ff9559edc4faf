"""Private values out of JSON documents. What else is in them keeps its bytes: numbers all their digits.

A document that cannot be read strictly, or has something else where a private field should be, is withheld whole: a
text stands for it, which no row can be made of, so it is counted, goes to quarantine, and says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from connectors.documents.path import LIST, OBJECT
from connectors.treatments.plan import Branch, Leaf, Plan, withheld

_NULL = msgspec.Raw(b"null")
_TEXT = msgspec.json.Decoder(str)
_PAIRS = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str)


class DocumentTreatment:
    """Treats documents, one a line."""

    def __init__(self, plan: Plan) -> None:
        self._tree = plan.tree

    def lines(self, data: bytes) -> bytes:
        """As many lines as came."""
        return b"".join(self.line(line) + b"\n" for line in data.splitlines())

    def line(self, line: bytes) -> bytes:
        """A document, or the text that stands for it."""
        try:
            return bytes(_object(line, self._tree))
        except UnicodeDecodeError:
            why = "no UTF-8"
        except msgspec.DecodeError:
            why = "no JSON object that can be read"
        except RecursionError:
            why = "objects and lists within each other, too deep to be read"
        except ValueError as error:
            why = str(error)
        return msgspec.json.encode(withheld(len(line), why))


def _object(raw: bytes | msgspec.Raw, branch: Branch) -> msgspec.Raw:
    """An object with its private fields treated.

    Raises:
        ValueError: a field comes twice, or is not what the definition says.
        msgspec.DecodeError: it is no object.
    """
    members = OBJECT.decode(raw)
    _refuse_repeated(bytes(raw), members)
    treated: dict[str, msgspec.Raw | str] = {}
    for name, value in members.items():
        what = branch.of(name)
        found = value if what is None else _value(value, what)
        if found is not None:
            treated[name] = found
    return msgspec.Raw(msgspec.json.encode(treated))


def _value(value: msgspec.Raw, what: Branch | Leaf) -> msgspec.Raw | str | None:
    """What takes the place of a value; None is nothing."""
    first = bytes(value)[:1]
    if isinstance(what, Leaf):
        what.was_found = True
        if what.of_elements and first == b"[":
            return _list([_value(each, what) for each in LIST.decode(value)])
        if what.key is None:
            return None
        return value if value == _NULL else what.hashed(_text(value))
    if first == b"{":
        return _object(value, what)
    if first == b"[":
        return _list([_value(each, what) for each in LIST.decode(value)])
    if value == _NULL:
        return value
    raise ValueError("a single value where an object with private fields should be")


def _list(values: Iterable[msgspec.Raw | str | None]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode([value for value in values if value is not None]))


def _text(value: msgspec.Raw) -> bytes:
    """What is hashed: a string's content, anything else as it is written.

    Raises:
        ValueError: the string has characters that are none.
    """
    text = bytes(value)
    if text[:1] != b'"':
        return text
    try:
        return _TEXT.decode(value).encode()
    except msgspec.DecodeError:
        raise ValueError("a private field is no text that can be read") from None


def _refuse_repeated(raw: bytes, members: dict[str, msgspec.Raw]) -> None:
    """The decoder keeps one value of a field that comes twice; the other would be lost without a word.

    The parts of a compact object make up all of its bytes, and with spaces between them all but so many spaces; only
    of others, or where names are escaped, the pairs are counted.

    Raises:
        ValueError: a field comes twice.
    """
    values = b"".join(members.values())
    names = "".join(members)
    beside = len(raw) - len(values) - len(names.encode()) - 4 * len(members) - (1 if members else 2)
    spaces = raw.count(b" ") - values.count(b" ") - names.count(" ")
    if beside in (0, spaces):
        return
    if len(_PAIRS.decode(raw.decode())) != len(members):
        raise ValueError("a field is there twice")
