"""What a stream of an API is: where, how its pages follow each other, how it is asked for what is new.

A definition that cannot work is refused when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from connectors.documents.path import Path, parse_path, placed, single_path
from connectors.errors import ConfigurationError
from connectors.http.client import Request
from connectors.model import Stream
from connectors.privacy import folded, paths
from connectors.rest.bodies import Bodies, BodyFormat
from connectors.rest.bounds import InstantFormat, Instants
from connectors.rest.pages import Ask, CountedPages, Pages, Value

_FIELD = re.compile(r"\{([^{}]+)\}")
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A JSON object to POST; the stream's parameters, a page's and a bound's are put into it."""

    template: Mapping[str, Any] = field(default_factory=dict)
    parameters_at: str = ""
    """Where they go, dots between names; empty for the outermost object. A parameter's own dots lead further in."""

    def __post_init__(self) -> None:
        if self.parameters_at:
            single_path(self.parameters_at)

    @property
    def errors(self) -> str | None:
        return None

    def filled(self, parameters: Mapping[str, Value]) -> bytes:
        """The body with parameters in it."""
        body: dict[str, Any] = dict(self.template)
        place = single_path(self.parameters_at) if self.parameters_at else ()
        for name, value in parameters.items():
            body = placed(body, (*place, *single_path(name)), value)
        return msgspec.json.encode(body)


@dataclass(frozen=True, slots=True)
class GraphQl:
    """A GraphQL query to POST. Parameters become its variables; an answer with `errors` fails the load."""

    query: str
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> str | None:
        return "errors"

    def filled(self, parameters: Mapping[str, Value]) -> bytes:
        """The body with parameters among the variables."""
        body = JsonBody({"query": self.query, "variables": dict(self.variables)}, "variables")
        return body.filled(parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestStream(Stream):
    """A stream of an HTTP API."""

    path: str
    """Below the source's base_url. With a parent, `{id}` stands for the field `id` of the parent's record."""
    format: BodyFormat = BodyFormat.JSON
    records: str = ""
    """Where the list of records is in a JSON body: names with dots between, `[]` behind a list each of whose elements
    holds a record (`data.edges[].node`); empty when the body is the list."""
    single: bool = False
    """Whether `records` leads to one record instead of a list."""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    """Sent with every request: page size, filters. With a parent, `{id}` in a text as in `path`."""
    body: JsonBody | GraphQl | None = None
    """What to POST; parameters go into it then, and into the query otherwise."""
    errors: str | None = None
    """Where a JSON body says that the request failed although its status is 200: anything but null, false, or empty."""
    pages: Pages | None = None
    concurrency: int = 1
    """How many requests may be under way at once: for pages that are counted, and for a parent's children."""
    since_parameter: str | None = None
    """The parameter that takes the watermark, inclusive."""
    window_parameters: tuple[str, str] | None = None
    """The two parameters that take a window's start (inclusive) and end (exclusive)."""
    window_end_included: bool = False
    """Whether the source takes the end of a window as the last value meant: `to=2024-01-31` for all of January."""
    instants: InstantFormat = Instants.ISO
    """How both write instants."""
    parent: Parent | None = None
    """The stream to each of whose records this one's belong."""
    final_newline: bool = True
    """Whether a CSV body ends with a line break. If not, a body that broke off cannot be told from a whole one."""

    def __post_init__(self) -> None:
        # Slotted dataclasses are made anew by the decorator, so a bare super() would name the discarded class.
        Stream.__post_init__(self)
        for found in (
            self._wrong_bounds(),
            self._wrong_bodies(),
            self._wrong_pages(),
            self._wrong_parent(),
            self._wrong_privacy(),
        ):
            if found is not None:
                what, remedy = found
                raise ConfigurationError(f"Stream `{self.name}` {what}", remedy=remedy)

    def _wrong_bounds(self) -> tuple[str, str] | None:
        if (self.since_parameter is not None and self.cursor is None) or self._lacks_since_parameter:
            return (
                "has only one of cursor and since_parameter.",
                "An incremental API stream needs both: the field, and the parameter that filters by it.",
            )
        if (self.window_parameters is not None and self.event_time is None) or self._lacks_window_parameters:
            return (
                "has only one of event_time and window_parameters.",
                "A stream read by windows needs both: the column, and the two parameters that filter by it.",
            )
        return None

    @property
    def _lacks_since_parameter(self) -> bool:
        return self.cursor is not None and self.since_parameter is None and not self.follows_parents_cursor

    @property
    def _lacks_window_parameters(self) -> bool:
        return self.event_time is not None and self.window_parameters is None and not self.follows_parents_windows

    @property
    def follows_parents_cursor(self) -> bool:
        """Whether the cursor is the parent's: parents that have changed are read, and all their children."""
        parent = self.parent
        if parent is None or self.cursor is None or self.since_parameter is not None:
            return False
        own = parent.stream.cursor
        return (
            own is not None
            and parent.stream.since_parameter is not None
            and parent.fields.get(self.cursor.field) == own.field
        )

    @property
    def follows_parents_windows(self) -> bool:
        """Whether windows are the parent's."""
        parent = self.parent
        return (
            parent is not None
            and self.event_time is not None
            and self.window_parameters is None
            and parent.stream.window_parameters is not None
            and parent.fields.get(self.event_time) == parent.stream.event_time
        )

    def _wrong_bodies(self) -> tuple[str, str] | None:
        parse_path(self.records)
        if self.errors is not None:
            single_path(self.errors)
        if self.format is not BodyFormat.JSON and (self.records or self.single or self.failure is not None):
            return (
                f"reads {self.format.upper()} and names records, single or errors.",
                "Those are places in a JSON body: drop them, or the format.",
            )
        if self.single and self.pages is not None:
            return "reads a single record, and pages.", "Drop one of `single` and `pages`."
        return None

    def _wrong_pages(self) -> tuple[str, str] | None:
        if not 1 <= self.concurrency <= _MOST_AT_ONCE:
            return f"has a concurrency of {self.concurrency}.", f"Give a number from 1 to {_MOST_AT_ONCE}."
        if self.concurrency > 1 and self.parent is None and not isinstance(self.pages, CountedPages):
            return (
                "has a concurrency but its pages follow each other.",
                "Only Offset and PageNumber can be asked for at once: drop concurrency.",
            )
        if self.pages is None:
            return None
        if self.format not in self.pages.formats:
            return (
                f"reads {self.format.upper()}, whose pages do not say what {type(self.pages).__name__} needs.",
                f"It works with: {', '.join(sorted(each.upper() for each in self.pages.formats))}.",
            )
        own = {*self.parameters, self.since_parameter, *(self.window_parameters or ())}
        if both := sorted(own & self.pages.first().parameters.keys()):
            return f"gives `{'`, `'.join(both)}` in its parameters and its pages.", "Leave it to the pages."
        return None

    def _wrong_parent(self) -> tuple[str, str] | None:
        named = _fields_in(self.path, self.parameters)
        if self.parent is None:
            if named and "{" in self.path:
                return f"has `{{{named[0]}}}` in its path but no parent.", "Name the parent whose field it is."
            return None
        for name in named:
            single_path(name)
        if not named:
            return (
                "has a parent and asks for the same with each of its records.",
                "Put a field of the parent into path or parameters, as in /repos/{id}/commits.",
            )
        if self.format is BodyFormat.CSV or self.parent.stream.format is BodyFormat.CSV:
            return "has a parent, and one of the two is CSV.", "Parents and children are JSON or NDJSON."
        if self.since_parameter is not None and self.cursor is not None and self.cursor.lag <= timedelta(0):
            remedy = (
                "Parents are read one after another, and what is new in the first while the last is read lies below "
                "the watermark: give the cursor a lag longer than a load takes, or use the parent's cursor."
            )
            return "is asked by its own cursor for each parent, and the cursor has no lag.", remedy
        return None

    def _wrong_privacy(self) -> tuple[str, str] | None:
        if self.parent is None:
            return None
        private = {path[0]: treatment for path, treatment in paths(self.parent.stream.privacy)}
        for names in self.named_fields.values():
            if folded(str(names[0])) in private:
                return (
                    f"asks with `{names[0]}`, which its parent is to keep private: addresses are in messages and logs.",
                    "Ask with another field of the parent, or leave its treatment out.",
                )
        own = {path[0] for path, _ in paths(self.privacy)}
        for name, field_of_parent in self.parent.fields.items():
            if folded(str(single_path(field_of_parent)[0])) in private and folded(name) not in own:
                return (
                    f"gets `{name}` from its parent, which is to keep it private.",
                    f"Say in the child's own privacy what becomes of `{name}`.",
                )
        return None

    @property
    def has_documents(self) -> bool:
        return self.format is not BodyFormat.CSV

    @property
    def quotes(self) -> bool:
        """Whether messages may show what the source sent."""
        return not self.privacy and (self.parent is None or self.parent.stream.quotes)

    @property
    def failure(self) -> str | None:
        """Where a body says that the request failed."""
        return self.errors or (self.body.errors if self.body is not None else None)

    @property
    def bodies(self) -> Bodies:
        """How its bodies are read."""
        return Bodies(
            self.path,
            self.format,
            parse_path(self.records),
            self.single,
            single_path(self.failure) if self.failure is not None else None,
            self.final_newline,
            self.quotes,
        )

    def request(self, bounds: Mapping[str, Value], ask: Ask, of: Mapping[str, Value] | None = None) -> Request:
        """The request for a page.

        Args:
            bounds: the parameters that say from where on.
            of: the parent's fields that path and parameters name.
        """
        own = {name: _filled(value, of) for name, value in self.parameters.items()} if of else self.parameters
        parameters = {**own, **bounds, **ask.parameters}
        address = ask.url or self._address(of)
        accept = self.format.media_types
        if self.body is not None:
            return Request(address, {}, "POST", self.body.filled(parameters), accept)
        if ask.url is not None:
            return Request(address, accept=accept)  # a link has its parameters in it
        return Request(address, {name: str(value) for name, value in parameters.items()}, accept=accept)

    def _address(self, of: Mapping[str, Value] | None) -> str:
        if of is None:
            return self.path
        return _FIELD.sub(lambda match: quote(str(of[match[1]]), safe=""), self.path)

    @property
    def named_fields(self) -> dict[str, Path]:
        """The parent's fields that path and parameters name."""
        return {name: single_path(name) for name in _fields_in(self.path, self.parameters)}


@dataclass(frozen=True, slots=True)
class Parent:
    """Whose children a stream's records are."""

    stream: RestStream
    """Read as it is defined, pages and all; it need not be one of the source's own streams."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of the parent that each of its children gets: the child's name for it, the parent's field."""
    skip_missing: bool = False
    """Whether a parent whose children are not found (404, 410) is passed over: it was deleted in between. Otherwise
    the load fails."""

    def __post_init__(self) -> None:
        for path in self.fields.values():
            single_path(path)


def _fields_in(path: str, parameters: Mapping[str, Value]) -> list[str]:
    texts = [path, *(value for value in parameters.values() if isinstance(value, str))]
    return [name for text in texts for name in _FIELD.findall(text)]


def _filled(value: Value, of: Mapping[str, Value]) -> Value:
    """A parameter with the parent's fields in it; one that is a field alone keeps the field's kind."""
    if not isinstance(value, str):
        return value
    if (whole := _FIELD.fullmatch(value)) is not None:
        return of[whole[1]]
    return _FIELD.sub(lambda match: str(of[match[1]]), value)
