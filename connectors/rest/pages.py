"""From one page of an API to the next: one small definition for each way that APIs have.

A definition holds no state. It is given what the last page was asked with and what came, and says what to ask next; so
pages can be read for as long as there are any, in memory that does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from urllib.parse import urljoin

from connectors.documents.path import Path, single_path
from connectors.errors import ConfigurationError, MalformedResponseError
from connectors.http.link_header import links
from connectors.rest.bodies import BodyFormat, Page

Value = str | int
"""Of a parameter. In a query both are text; in a JSON body a number stays one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a page is asked with, beside what all pages are."""

    parameters: Mapping[str, Value] = field(default_factory=dict)
    url: str | None = None
    """A whole address, which stands for path and parameters together."""


class Pages(Protocol):
    """How to get from one page to the next."""

    @property
    def formats(self) -> frozenset[BodyFormat]:
        """The formats whose pages say what it needs."""
        ...

    def first(self) -> Ask:
        """What the first page is asked with."""
        ...

    def following(self, ask: Ask, page: Page) -> Ask | None:
        """What the page after this one is asked with, or None after the last.

        Raises:
            MalformedResponseError: the page does not say what it should.
        """
        ...


@runtime_checkable
class CountedPages(Pages, Protocol):
    """Pages that can be asked for by number, so several at once."""

    def numbered(self, number: int) -> Ask:
        """What a page is asked with, the first being 0."""
        ...

    def known_count(self, page: Page) -> int | None:
        """How many pages there are, if the page tells."""
        ...

    def is_last(self, number: int, page: Page) -> bool:
        """Whether no page comes after this one."""
        ...

    def is_short(self, page: Page) -> bool:
        """Whether the page has fewer records than it should, so that none may come after it."""
        ...


_ALL = frozenset(BodyFormat)
_JSON = frozenset({BodyFormat.JSON})
_DOCUMENTS = frozenset({BodyFormat.JSON, BodyFormat.NDJSON})


@dataclass(frozen=True, slots=True)
class InHeader:
    """A number that stands in a header of each answer, e.g. `InHeader("X-Total-Count")`."""

    name: str


def _count(where: str | InHeader | None, page: Page) -> int | None:
    """A count that pages tell.

    Raises:
        MalformedResponseError: it is there and no count.
    """
    if where is None:
        return None
    found = page.header(where.name) if isinstance(where, InHeader) else page.value(single_path(where))
    if found is None or (isinstance(found, int) and found >= 0 and not isinstance(found, bool)):
        return found
    if isinstance(found, str) and found.strip().isascii() and found.strip().isdigit():
        return int(found)
    raise MalformedResponseError(
        f"`{where.name if isinstance(where, InHeader) else where}` is {found!r}, which is no count.",
        remedy="Check the stream's pages against the source's manual.",
    )


def _refuse_early_end(page: Page, before: int, count: int | None, what: str) -> None:
    """Refuse an empty page where the source itself says that there are more.

    Raises:
        MalformedResponseError: it is so.
    """
    if count is not None and not page.rows and before < count:
        raise MalformedResponseError(
            f"A page came empty after {before:,} of {count:,} {what}.",
            remedy="Check the stream's pages against the source's manual: it may not give more than so many.",
        )


def _formats_of(where: str | InHeader | None) -> frozenset[BodyFormat]:
    return _JSON if isinstance(where, str) else _ALL


def _more(path: Path, page: Page) -> bool:
    """What a page says of whether there are more.

    Raises:
        MalformedResponseError: it says nothing, or neither true nor false.
    """
    found = page.value(path)
    if not isinstance(found, bool):
        raise MalformedResponseError(
            f"`{'.'.join(map(str, path))}` is {found!r}, neither true nor false.",
            remedy="Check the stream's pages against the source's manual.",
        )
    return found


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """The header Link names the next page (RFC 8288), as an address of its own or relative to this page's."""

    rel: str = "next"

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _ALL

    def first(self) -> Ask:
        return Ask()

    def following(self, ask: Ask, page: Page) -> Ask | None:  # noqa: ARG002 - part of the protocol
        for target, relations in links(page.header("link") or ""):
            if self.rel.lower() in relations:
                return Ask(url=urljoin(page.answer.url, target))
        return None


@dataclass(frozen=True, slots=True)
class NextUrlInBody:
    """The body names the address of the next page; null, empty or absent at the end."""

    path: str
    """Where, dots between names: `next`, `links.next`, `"@odata.nextLink"` (quoted for its dot)."""

    def __post_init__(self) -> None:
        single_path(self.path)

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _JSON

    def first(self) -> Ask:
        return Ask()

    def following(self, ask: Ask, page: Page) -> Ask | None:  # noqa: ARG002 - part of the protocol
        found = page.value(single_path(self.path))
        if found in (None, "", False):
            return None
        if not isinstance(found, str):
            raise MalformedResponseError(
                f"`{self.path}` is {found!r}, which is no address.",
                remedy="Check the stream's pages against the source's manual: TokenInBody takes tokens.",
            )
        return Ask(url=urljoin(page.answer.url, found))


@dataclass(frozen=True, slots=True)
class TokenInBody:
    """The body names a token (a cursor, a bookmark) that the next request sends back; null or absent at the end."""

    token: str
    """Where it is, dots between names."""
    parameter: str
    """What it is sent back as."""
    has_more: str | None = None
    """Where the body says true or false to there being more, if a token alone does not (GraphQL's `hasNextPage`)."""

    def __post_init__(self) -> None:
        single_path(self.token)
        if self.has_more is not None:
            single_path(self.has_more)

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _JSON

    def first(self) -> Ask:
        return Ask()

    def following(self, ask: Ask, page: Page) -> Ask | None:  # noqa: ARG002 - part of the protocol
        if self.has_more is not None and not _more(single_path(self.has_more), page):
            return None
        token = page.value(single_path(self.token))
        if token is not None and token not in ("", False):
            return Ask({self.parameter: token})
        if self.has_more is not None:
            raise MalformedResponseError(
                f"`{self.has_more}` says that there are more pages, and `{self.token}` names none.",
                remedy="Check the stream's pages against the source's manual.",
            )
        return None


@dataclass(frozen=True, slots=True)
class Keyset:
    """A field of the last record is the parameter of the next request; an empty page is the end.

    The source must give records in the order of that field and take the parameter as "after", not "from".
    """

    field: str
    """The field of a record, dots between names."""
    parameter: str
    has_more: str | None = None
    """Where the body says true or false to there being more; without it, one empty page is asked for at the end."""

    def __post_init__(self) -> None:
        single_path(self.field)
        if self.has_more is not None:
            single_path(self.has_more)

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _DOCUMENTS if self.has_more is None else _JSON

    def first(self) -> Ask:
        return Ask()

    def following(self, ask: Ask, page: Page) -> Ask | None:  # noqa: ARG002 - part of the protocol
        if self.has_more is not None and not _more(single_path(self.has_more), page):
            return None
        last = page.last(single_path(self.field))
        return Ask({self.parameter: last}) if last is not None else None


@dataclass(frozen=True, slots=True)
class Offset:
    """Pages by how many records come before them. An empty page is the end, or what `total` says.

    A page may be shorter than `limit`: many sources have a limit of their own. The next one starts where it ended.
    """

    limit: int
    """Records a page, asked for."""
    parameter: str = "offset"
    limit_parameter: str = "limit"
    total: str | InHeader | None = None
    """Where the number of all records is: a path in the body, or a header."""
    short_page_ends: bool = False
    """Whether a page with fewer records than `limit` is the last. Only if the source never gives fewer otherwise."""

    def __post_init__(self) -> None:
        _check_size("limit", self.limit)
        if isinstance(self.total, str):
            single_path(self.total)

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _formats_of(self.total)

    def first(self) -> Ask:
        return self.numbered(0)

    def following(self, ask: Ask, page: Page) -> Ask | None:
        before = int(ask.parameters[self.parameter])
        total = _count(self.total, page)
        _refuse_early_end(page, before, total, "records")
        offset = before + page.rows
        if self._ends(page) or (total is not None and offset >= total):
            return None
        return self._at(offset)

    def numbered(self, number: int) -> Ask:
        return self._at(number * self.limit)

    def known_count(self, page: Page) -> int | None:
        total = _count(self.total, page)
        return None if total is None else -(-total // self.limit)

    def is_last(self, number: int, page: Page) -> bool:
        _refuse_early_end(page, number * self.limit, _count(self.total, page), "records")
        return self._ends(page)

    def is_short(self, page: Page) -> bool:
        return page.rows < self.limit

    def _ends(self, page: Page) -> bool:
        return not page.rows or (self.short_page_ends and self.is_short(page))

    def _at(self, offset: int) -> Ask:
        return Ask({self.parameter: offset, self.limit_parameter: self.limit})


@dataclass(frozen=True, slots=True)
class PageNumber:
    """Pages by number. An empty page is the end, or what `total_pages` says."""

    parameter: str = "page"
    start: int = 1
    """The number of the first page: 1, or 0."""
    total_pages: str | InHeader | None = None
    """Where the number of all pages is: a path in the body, or a header."""
    size: int | None = None
    """Records a page: given, one with fewer is the last. Only if the source never gives fewer otherwise."""

    def __post_init__(self) -> None:
        if self.size is not None:
            _check_size("size", self.size)
        if self.start not in (0, 1):
            raise ConfigurationError(f"Pages cannot start at {self.start}.", remedy="Give 0 or 1.")
        if isinstance(self.total_pages, str):
            single_path(self.total_pages)

    @property
    def formats(self) -> frozenset[BodyFormat]:
        return _formats_of(self.total_pages)

    def first(self) -> Ask:
        return self.numbered(0)

    def following(self, ask: Ask, page: Page) -> Ask | None:
        number = int(ask.parameters[self.parameter]) - self.start
        pages = self.known_count(page)
        if self.is_last(number, page) or (pages is not None and number + 1 >= pages):
            return None
        return self.numbered(number + 1)

    def numbered(self, number: int) -> Ask:
        return Ask({self.parameter: self.start + number})

    def known_count(self, page: Page) -> int | None:
        return _count(self.total_pages, page)

    def is_last(self, number: int, page: Page) -> bool:
        _refuse_early_end(page, number, self.known_count(page), "pages")
        return not page.rows or (self.size is not None and page.rows < self.size)

    def is_short(self, page: Page) -> bool:  # noqa: ARG002 - nobody said how many records a page has
        return False


def _check_size(name: str, size: int) -> None:
    if size < 1:
        raise ConfigurationError(f"Pages of {size} records cannot be.", remedy=f"Give a `{name}` of 1 or more.")
