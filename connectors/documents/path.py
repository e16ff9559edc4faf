"""Where a value is in a JSON body: names with dots between them, `[]` behind a list whose elements are meant.

`data.items` is one value; `data.edges[].node` is as many as `edges` has elements. A name with dots or brackets of its
own goes in double quotes, as in `"@odata.nextLink"`; inside them a quote or backslash takes a backslash before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from connectors.documents.lenient import members_leniently
from connectors.errors import ConfigurationError

Path = tuple[str | None, ...]
"""The names from the outside in; None stands for each element of a list."""
Json = bytes | msgspec.Raw | dict[str, msgspec.Raw]
"""A value as it was received, or the members of an object."""

_LONGEST_INTEGER = 18
"""Digits; longer ones stay text, as who reads them may not take them for numbers."""
_NULL = msgspec.Raw(b"null")
OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
LIST = msgspec.json.Decoder(list[msgspec.Raw])
_SCALAR: msgspec.json.Decoder[str | int | bool | None] = msgspec.json.Decoder(str | int | bool | None)
_NAME = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\])+)"|(?P<plain>[^.\[\]"]+)')
_ESCAPED = re.compile(r'\\(["\\])')


def parse_path(text: str) -> Path:
    """A path as it is written in a definition; the empty text is the whole body.

    Raises:
        ConfigurationError: it is none.
    """
    names: list[str | None] = []
    position = 0
    while position < len(text):
        if names and not text.startswith(".", position):
            raise _no_path(text)
        position += bool(names)
        if (match := _NAME.match(text, position)) is not None:
            names.append(match["plain"] or _ESCAPED.sub(r"\1", match["quoted"]))
            position = match.end()
        elif names or not text.startswith("[]", position):
            raise _no_path(text)
        while text.startswith("[]", position):
            names.append(None)
            position += 2
    return tuple(names)


def single_path(text: str) -> Path:
    """A path to one value.

    Raises:
        ConfigurationError: it is none, or leads to many.
    """
    path = parse_path(text)
    if not path or None in path:
        raise ConfigurationError(
            f"`{text}` does not lead to one value.", remedy="Name it from the outside in, without []: e.g. meta.next."
        )
    return path


def _no_path(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"`{text}` is no path into a body.",
        remedy='Write names with dots between them and [] behind lists: data.edges[].node, or "odd.name".items.',
    )


def select(body: Json, path: Path) -> list[msgspec.Raw]:
    """The values at a path, each undecoded.

    Raises:
        KeyError: an object on the way lacks a name.
        msgspec.DecodeError: what is on the way is no such object or list, or no JSON.
    """
    for depth, name in enumerate(path):
        if name is None:
            elements = LIST.decode(_text(body))
            rest = path[depth + 1 :]
            return [found for element in elements for found in select(element, rest)] if rest else elements
        body = (body if isinstance(body, dict) else OBJECT.decode(body))[name]
    return [msgspec.Raw(_text(body))]


def find(body: Json, path: Path) -> msgspec.Raw | None:
    """The one value at a path, undecoded; None when an object on the way lacks it, or there is null.

    Raises:
        ValueError: something on the way is neither object nor null, or no JSON, even by a lenient reading.
    """
    if isinstance(body, bytes):
        body = msgspec.Raw(body)
    for name in path:
        if body == _NULL:
            return None
        found = _members(body).get(name or "")
        if found is None:
            return None
        body = found
    raw = msgspec.Raw(_text(body))
    return raw if raw != _NULL else None


def _members(body: Json) -> dict[str, msgspec.Raw]:
    if isinstance(body, dict):
        return body
    try:
        return OBJECT.decode(body)
    except msgspec.DecodeError:
        return members_leniently(bytes(body).decode())


def _text(body: Json) -> bytes | msgspec.Raw:
    if isinstance(body, dict):
        raise msgspec.ValidationError("Expected `array`, got `object`")
    return body


def scalar(raw: msgspec.Raw) -> str | int | bool | None:
    """A value that is no object or list; a number with a fraction as its text.

    Raises:
        ValueError: it is an object or a list.
    """
    text = bytes(raw).decode()
    if text[:1] in "-0123456789":
        return int(text) if text.lstrip("-").isdigit() and len(text) <= _LONGEST_INTEGER else text
    return _SCALAR.decode(raw)


def placed(template: Mapping[str, Any], path: Path, value: object) -> dict[str, Any]:
    """A copy of an object with a value put at a path through objects, which are made where they are missing.

    Raises:
        ConfigurationError: the path leads through something that is no object.
    """
    name, *rest = path
    assert name is not None  # noqa: S101 - paths of definitions are checked by `single_path`
    if not rest:
        return {**template, name: value}
    inner = template.get(name, {})
    if not isinstance(inner, Mapping):
        raise ConfigurationError(
            f"`{name}` in the body is no object that `{rest[-1]}` could be put into.",
            remedy="Correct the body, or where its parameters go.",
        )
    return {**template, name: placed(inner, tuple(rest), value)}
