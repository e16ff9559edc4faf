"""Reading an API's pages: ahead of what is done with them, several at once where they are counted, children by parent.

Pages come in their order, whatever the order in which they arrive, and no more of them are held than are under way.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from connectors.documents.path import Path, find, scalar, single_path
from connectors.errors import MalformedResponseError, NotFoundError
from connectors.http.client import Answer, HttpClient
from connectors.overlap import ReadAhead
from connectors.rest.bodies import Bodies, Page
from connectors.rest.pages import Ask, CountedPages, Value
from connectors.rest.streams import Parent, RestStream

_SWITCH_SECONDS = 0.0005
"""How long a thread of ours keeps Python's lock while another waits for it. By default ten times as long: the next
request, which needs the lock a few times before it is on its way, then waits until the page before it is loaded."""

Bounds = Sequence[Mapping[str, Value]]
"""The parameters that say from where on: those of the stream, of its parents, of theirs. What is missing is none."""


def read(client: HttpClient, stream: RestStream, bounds: Bounds) -> Generator[Page]:
    """All pages of a stream. Close it at the end: what is under way is given up then.

    Raises:
        MalformedResponseError: a body is not the stream's data, or the pages have no end.
        HeadwaterError: as `HttpClient.fetch`.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))  # of the process: nobody needs it longer
    if stream.parent is not None:
        return _children(client, stream, stream.parent, bounds)
    reading = _Reading(client, stream, bounds[0] if bounds else {})
    if stream.concurrency > 1 and isinstance(stream.pages, CountedPages):
        return reading.at_once(stream.pages)
    return reading.in_turn()


class _Reading:
    """One list of pages: of a stream, or of one parent's children."""

    def __init__(
        self,
        client: HttpClient,
        stream: RestStream,
        bounds: Mapping[str, Value],
        parent: ParentRecord | None = None,
    ) -> None:
        self._client = client
        self._stream = stream
        self._bodies: Bodies = stream.bodies
        self._bounds = bounds
        self._parent = parent
        self._circle = _CircleGuard(stream.path, quotes=stream.quotes)
        self._repetition = _RepetitionGuard(stream.path)

    def fetch(self, ask: Ask) -> Page:
        parent = self._parent
        request = self._stream.request(self._bounds, ask, parent.named if parent is not None else None)

        def reader(answer: Answer) -> Page:
            page = self._bodies.page(answer, parent.members if parent is not None else b"")
            page.rows  # noqa: B018 - its records are taken out here: a body that has broken off is asked for again
            return page

        return self._client.read(request, reader)

    def first(self) -> tuple[Ask, Page]:
        """The first page, and what it was asked with."""
        ask = self._stream.pages.first() if self._stream.pages is not None else Ask()
        return ask, self.fetch(ask)

    def following(self, ask: Ask, page: Page) -> Ask | None:
        """What to ask after a page: found before anything else is done with it."""
        if self._stream.pages is None:
            return None
        following = self._stream.pages.following(ask, page)
        if following is not None:
            self._circle.see(following)
        if isinstance(self._stream.pages, CountedPages):
            self._repetition.see(page)
        return following

    def in_turn(self) -> Generator[Page]:
        """Page after page."""
        ask, page = self.first()
        while (following := self.following(ask, page)) is not None:
            yield page
            ask, page = following, self.fetch(following)
        yield page

    def at_once(self, pages: CountedPages) -> Generator[Page]:
        """Counted pages, as many at once as the stream allows.

        The first is read alone: it may say how many there are. Otherwise no more are asked for beyond the last than
        were under way when it came.
        """
        page = self.fetch(pages.first())
        with _pool(self._stream.concurrency) as pool:
            under_way: deque[Future[Page]] = deque()
            number = asked = 0
            while not pages.is_last(number, page):
                count = pages.known_count(page)
                while len(under_way) < self._stream.concurrency and (count is None or asked + 1 < count):
                    asked += 1
                    under_way.append(pool.submit(self.fetch, pages.numbered(asked)))
                self._repetition.see(page)
                yield page
                if not under_way:
                    return
                is_short, number, page = pages.is_short(page), number + 1, under_way.popleft().result()
                if is_short and page.rows:
                    raise MalformedResponseError(
                        f"Page {number} of {self._stream.path} is shorter than it should be, and not the last: pages "
                        "that are asked for at once would leave gaps.",
                        remedy="Give a limit that the source keeps to, or drop the stream's concurrency.",
                    )
        yield page


@dataclass(frozen=True, slots=True)
class ParentRecord:
    """What a parent's record gives to its children."""

    named: Mapping[str, Value]
    """The fields that the children are asked with."""
    members: bytes
    """The fields that each child gets, as JSON members with commas between them."""

    @classmethod
    def of(cls, stream: RestStream, parent: Parent, record: bytes | msgspec.Raw) -> ParentRecord:
        """Take them from the record.

        Raises:
            MalformedResponseError: a field that the children are asked with is not there, or no single value.
        """
        raw = msgspec.Raw(record)
        try:
            found = {name: _text(raw, path) for name, path in stream.named_fields.items()}
            given = {name: find(raw, single_path(path)) for name, path in parent.fields.items()}
        except (ValueError, RecursionError) as error:
            raise parent.stream.bodies.refusal(f"has a record that cannot be read ({error})", bytes(raw)) from error
        named = {name: value for name, value in found.items() if value is not None}
        if lacking := ", ".join(f"`{name}`" for name in found if name not in named):
            raise parent.stream.bodies.refusal(
                f"has a record without {lacking}, which `{stream.name}` asks with", bytes(raw)
            )
        members = [
            msgspec.json.encode(name) + b":" + (bytes(value) if value is not None else b"null")
            for name, value in given.items()
        ]
        return cls(named, b",".join(members))


def _text(record: msgspec.Raw, path: Path) -> Value | None:
    raw = find(record, path)
    found = scalar(raw) if raw is not None else None
    return str(found).lower() if isinstance(found, bool) else found


def _children(client: HttpClient, stream: RestStream, parent: Parent, bounds: Bounds) -> Generator[Page]:
    """The pages of each parent's children, parent by parent; of those that follow, the first pages are under way."""
    with _pool(stream.concurrency) as pool, ReadAhead(read(client, parent.stream, bounds[1:])) as pages:
        under_way: deque[tuple[_Reading, Future[tuple[Ask, Page]]]] = deque()
        for page in pages:
            for record in page.records:
                reading = _Reading(client, stream, bounds[0] if bounds else {}, ParentRecord.of(stream, parent, record))
                under_way.append((reading, pool.submit(reading.first)))
                if len(under_way) >= stream.concurrency:
                    yield from _of_parent(*under_way.popleft(), pool, parent)
        while under_way:
            yield from _of_parent(*under_way.popleft(), pool, parent)


def _of_parent(
    reading: _Reading, first: Future[tuple[Ask, Page]], pool: ThreadPoolExecutor, parent: Parent
) -> Iterator[Page]:
    try:
        ask, page = first.result()
    except NotFoundError:
        if parent.skip_missing:
            return
        raise
    while (following := reading.following(ask, page)) is not None:
        under_way = pool.submit(reading.fetch, following)
        yield page
        ask, page = following, under_way.result()
    yield page


class _CircleGuard:
    """Notices pages that lead back to one that was there before, in memory for one (R. Brent's way)."""

    def __init__(self, path: str, *, quotes: bool = True) -> None:
        self._path = path
        self._quotes = quotes
        self._kept: Ask | None = None
        self._steps = 0
        self._room = 1

    def see(self, ask: Ask) -> None:
        """Remember what a page is asked with, each time half as often.

        Raises:
            MalformedResponseError: it was asked before.
        """
        if ask == self._kept:
            # Not the link's parameters: a source may repeat our key in them.
            shown = ", ".join(ask.parameters) if not self._quotes else dict(ask.parameters)
            what = "a link" if ask.url is not None else shown
            raise MalformedResponseError(
                f"The pages of {self._path} go in a circle: {what} came twice.",
                remedy="Check the stream's pages against the source's manual.",
            )
        self._steps += 1
        if self._steps == self._room:
            self._kept, self._steps, self._room = ask, 0, self._room * 2


class _RepetitionGuard:
    """Notices a source that does not know the parameter by which its pages are counted: it sends the first for ever."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._before = b""

    def see(self, page: Page) -> None:
        """Compare a page with the one before.

        Raises:
            MalformedResponseError: they have the same records.
        """
        if page.rows and page.content == self._before:
            raise MalformedResponseError(
                f"Two pages of {self._path} have the same records: the source does not seem to know the parameter "
                "that counts its pages.",
                remedy="Check the stream's pages against the source's manual.",
            )
        self._before = page.content


@contextmanager
def _pool(size: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose work is given up when it is left; requests that are under way end by themselves."""
    pool = ThreadPoolExecutor(size, thread_name_prefix="read-at-once")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
