"""The records of a JSON document, one after another, without ever holding all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator

_LONGEST = 32 << 20
"""Characters that one record, or one value beside the records, may have."""
_SHORT = 16
"""Characters within which a value that only breaks off goes wrong at its end: `tru`, `"\\u00`."""
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
"""For the ends of values alone. It takes NaN and halves of surrogate pairs, which spoil their record, not the file."""

CUT_OFF = "ends in the middle of a record: it was cut off, or is still being written"


class JsonArray:
    """Takes the text of a document piece by piece and gives out its records, each as it was written.

    Args:
        path: the names that lead from the outermost object to the list; empty when the document is the list.
    """

    def __init__(self, path: list[str]) -> None:
        self._text = ""
        self._position = 0
        self._is_whole = False
        self._steps = self._document(path)

    def feed(self, text: str, *, is_last: bool = False) -> Iterator[str]:
        """The records that are complete with this text.

        Raises:
            ValueError: the document is no JSON, has no such list, or (with the last piece) no end; to be said behind
                its name.
        """
        self._text = self._text[self._position :] + text
        self._position = 0
        self._is_whole = is_last
        try:
            for record in self._steps:
                if record is None:
                    return
                yield record
        except RecursionError:
            raise ValueError("has objects and lists within each other, too deep to be read") from None

    # What follows are steps that give out records, or None when they need more text to go on.

    def _document(self, path: list[str]) -> Generator[str | None, None, None]:
        yield from self._list_at(path)
        if (yield from self._next()):
            raise ValueError("goes on after its end")

    def _list_at(self, path: list[str]) -> Generator[str | None, None, None]:
        if path:
            yield from self._object_with(*path)
            return
        yield from self._take("[", "has no list where its records should be")
        if (yield from self._next()) == "]":
            self._position += 1
            return
        while True:
            yield (yield from self._value())
            if (yield from self._separator("]")):
                return

    def _object_with(self, name: str, *further: str) -> Generator[str | None, None, None]:
        yield from self._take("{", f"has no object where {name} should be")
        is_found = False
        is_over = (yield from self._next()) == "}"
        self._position += is_over
        while not is_over:
            member = _DECODER.decode((yield from self._value()))
            yield from self._take(":", "is no JSON")
            if member != name:
                yield from self._value()
            elif is_found:
                raise ValueError(f"has {name} twice")
            else:
                is_found = True
                yield from self._list_at(list(further))
            is_over = yield from self._separator("}")
        if not is_found:
            raise ValueError(f"has no {name}")

    def _value(self) -> Generator[None, None, str]:
        """The text of the next value."""
        yield from self._next()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                short = 0 if self._is_whole else _SHORT
                if error.pos < len(self._text) - short and not error.msg.startswith("Unterminated string"):
                    raise ValueError(f"is no JSON: {error.msg}") from None
            else:
                # `1.` and `1e-` end in a way that may be part of a number.
                if self._is_whole or end + 2 < len(self._text):
                    value = self._text[self._position : end]
                    self._position = end
                    return value
            yield from self._more()

    def _more(self) -> Generator[None, None, None]:
        """Wait for as much text again as there is, so that a long value is not tried too often."""
        there = len(self._text) - self._position
        if self._is_whole:
            raise ValueError(CUT_OFF)
        if there > _LONGEST:
            raise ValueError(f"has a value of more than {_LONGEST >> 20} million characters")
        yield None
        while not self._is_whole and len(self._text) - self._position < 2 * there:
            yield None

    def _next(self) -> Generator[None, None, str]:
        """The character that the next thing begins with, behind white space; none at the end of the document."""
        while True:
            self._position = _SPACE.match(self._text, self._position).end()  # type: ignore[union-attr]  # matches always
            if self._position < len(self._text):
                return self._text[self._position]
            if self._is_whole:
                return ""
            yield None

    def _take(self, character: str, otherwise: str) -> Generator[None, None, None]:
        found = yield from self._next()
        if found != character:
            raise ValueError(otherwise if found else CUT_OFF)
        self._position += 1

    def _separator(self, closing: str) -> Generator[None, None, bool]:
        """Step over a comma or the closing bracket; whether it was that."""
        found = yield from self._next()
        if found not in (",", closing):
            raise ValueError("is no JSON" if found else CUT_OFF)
        self._position += 1
        return found == closing
