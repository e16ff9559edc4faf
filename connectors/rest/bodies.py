"""Bodies taken apart into records, each as the source wrote it, and what a body says beside them.

A body is taken apart only as far as its records: their text is not re-encoded, so a number keeps all its digits. What
broke off on its way, or is no data at all, is refused before anything of it is landed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from connectors.documents.lenient import select_leniently
from connectors.documents.path import OBJECT, Json, Path, find, scalar, select
from connectors.errors import HeadwaterError, MalformedResponseError
from connectors.http.client import Answer
from connectors.model import Chunk, LandingFormat

_RAW = msgspec.json.Decoder(msgspec.Raw)
_BOM = b"\xef\xbb\xbf"


class BodyFormat(StrEnum):
    """What an API's bodies are written in."""

    JSON = "json"
    """One value; `records` says where in it the records are."""
    NDJSON = "ndjson"
    """One JSON document a line."""
    CSV = "csv"
    """RFC 4180 in UTF-8, with a header line on every page."""

    @property
    def media_types(self) -> str:
        """What to put into Accept."""
        return {
            BodyFormat.JSON: "application/json",
            BodyFormat.NDJSON: "application/x-ndjson, application/jsonl;q=0.9, */*;q=0.1",
            BodyFormat.CSV: "text/csv, */*;q=0.1",
        }[self]

    @property
    def landing_format(self) -> LandingFormat:
        return LandingFormat.CSV if self is BodyFormat.CSV else LandingFormat.JSONL


@dataclass(frozen=True, slots=True)
class Bodies:
    """How a stream's bodies are read."""

    label: str
    """What messages call the bodies: the stream's path."""
    format: BodyFormat
    records: Path = ()
    """To the list of records, or with an element step in it to the records themselves."""
    single: bool = False
    """Whether `records` leads to one record, not to a list."""
    errors: Path | None = None
    """To what is there only when the request failed, whatever the status."""
    final_newline: bool = True
    """Whether a CSV body ends with a line break, so that one without has broken off."""
    quotes: bool = True
    """Whether messages may show how a body begins: not where something in it is private."""

    def page(self, answer: Answer, members: bytes = b"") -> Page:
        """An answer, its records not yet taken out of it: where the next page is can be asked first.

        Args:
            members: what each record gets beside what is in it, as JSON members with commas between them.

        Raises:
            MalformedResponseError: it is not the stream's data.
        """
        page = CsvPage(answer, self) if self.format is BodyFormat.CSV else Page(answer, self, members)
        if self.errors is not None and (raw := page.find(self.errors)) is not None:
            said = bytes(raw)
            if said not in (b"[]", b"{}", b"false", b'""'):
                raise MalformedResponseError(
                    f"A body of {self.label} reports errors: {self.beginning(said, 300)}",
                    remedy="Correct the stream's query or parameters; nothing of the answer was landed.",
                )
        return page

    def refusal(self, what: str, body: bytes) -> HeadwaterError:
        """The error for a body that is not the stream's data."""
        return MalformedResponseError(
            f"A body of {self.label} {what}; it begins: {self.beginning(body, 80)}",
            remedy="Check the stream's path, records and format against the source's manual.",
        )

    def beginning(self, data: bytes, length: int) -> str:
        """The first bytes, on one line, for a message."""
        if not self.quotes:
            return f"({len(data):,} bytes, left out: they may hold private values)"
        return " ".join(data[:length].decode("utf-8", "replace").split())


class Page:
    """One answer: its records, and what it says beside them."""

    def __init__(self, answer: Answer, bodies: Bodies, members: bytes = b"") -> None:
        # Some servers begin JSON with a byte order mark, which is no part of it.
        self.answer = replace(answer, body=answer.body[len(_BOM) :]) if answer.body.startswith(_BOM) else answer
        self._bodies = bodies
        self._members = members
        self._outermost: dict[str, msgspec.Raw] | None = None
        self._records: Sequence[bytes | msgspec.Raw] | None = None
        self._content: bytes | None = None

    def find(self, path: Path) -> msgspec.Raw | None:
        """The value at a path in a JSON body, undecoded; None when it is not there, or null.

        Raises:
            MalformedResponseError: the body is no such JSON.
        """
        try:
            return find(self._body(path), path)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(error) from error

    def value(self, path: Path) -> str | int | bool | None:
        """The text, number or truth at a path in a JSON body; None as above.

        Raises:
            MalformedResponseError: the body is no such JSON, or the value is an object or a list.
        """
        raw = self.find(path)
        return self._scalar(raw, path) if raw is not None else None

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        return self.answer.headers.get(name.lower())

    @property
    def records(self) -> Sequence[bytes | msgspec.Raw]:
        """The records of a JSON or NDJSON body, each undecoded.

        Raises:
            MalformedResponseError: the body is not the stream's data.
        """
        if self._records is None:
            try:
                self._records = self._json_lines() if self._bodies.format is BodyFormat.NDJSON else self._json()
            except KeyError as missing:
                raise self._bodies.refusal(f"has no {missing}", self.answer.body) from None
            except (ValueError, RecursionError) as error:
                raise self._unreadable(error) from error
            if self._members:
                self._records = [_with_members(bytes(record), self._members) for record in self._records]
        return self._records

    @property
    def rows(self) -> int:
        """How many records there are."""
        return len(self.records)

    def last(self, path: Path) -> str | int | bool | None:
        """A field of the last record; None when there is no record.

        Raises:
            MalformedResponseError: the record has no such field, or no single value in it.
        """
        if not self.records:
            return None
        try:
            raw = find(msgspec.Raw(self.records[-1]), path)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(error) from error
        if raw is None:
            raise self._bodies.refusal(f"has a last record without `{'.'.join(map(str, path))}`", self.answer.body)
        return self._scalar(raw, path)

    @property
    def content(self) -> bytes:
        """The records, one a line as they go to the landing."""
        if self._content is None:
            self._content = as_lines(self.records)
        return self._content

    def _scalar(self, raw: msgspec.Raw, path: Path) -> str | int | bool | None:
        try:
            return scalar(raw)
        except ValueError:
            names = ".".join(map(str, path))
            raise self._bodies.refusal(f"has an object or a list in `{names}`", self.answer.body) from None

    def _body(self, path: Path) -> Json:
        """The outermost object if the path leads into one, decoded once; the body as it is otherwise."""
        if not path or path[0] is None:
            return self.answer.body
        if self._outermost is None:
            try:
                self._outermost = OBJECT.decode(self.answer.body)
            except msgspec.DecodeError:
                return self.answer.body  # for a lenient reading, or a list
        return self._outermost

    def _json(self) -> list[msgspec.Raw]:
        """A record that is nearly JSON (with NaN, or half of a surrogate pair) does not spoil the others: it is taken
        as it is, and goes to quarantine."""
        body, path = self.answer.body, self._bodies.records
        if not self._bodies.single and None not in path:
            path = (*path, None)
        try:
            if not body.isascii():
                body.decode()  # the decoder does not look inside records
            if not path:
                return [_RAW.decode(body)]
            return select(self._body(path), path)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return select_leniently(body.decode(), path)

    def _json_lines(self) -> list[msgspec.Raw]:
        """A last line without its line break counts if it is whole."""
        text = self.answer.body.decode()  # the decoder does not look inside records
        try:
            return _RAW.decode_lines(self.answer.body)
        except msgspec.DecodeError:
            return [raw for line in text.split("\n") if line.strip() for raw in select_leniently(line, ())]

    def _unreadable(self, error: Exception) -> HeadwaterError:
        return self._bodies.refusal(f"cannot be read ({error})", self.answer.body)


def as_lines(records: Sequence[bytes | msgspec.Raw]) -> bytes:
    """Records one a line. JSON strings cannot hold a bare line break, so those found are only layout."""
    if not records:
        return b""
    together = b"".join(records)
    if b"\n" in together or b"\r" in together:
        return b"".join(bytes(record).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for record in records)
    return b"\n".join([*records, b""])


def _with_members(record: bytes, members: bytes) -> bytes:
    """An object with members put before its own. What is no object stays as it is, and goes to quarantine."""
    if record[:1] != b"{":
        return record
    rest = record[1:].lstrip()
    return b"{" + members + (b"" if rest[:1] == b"}" else b",") + rest


class CsvPage(Page):
    """A page of CSV: its header line, and the lines of its records."""

    def __init__(self, answer: Answer, bodies: Bodies) -> None:
        super().__init__(answer, bodies)
        body = self.answer.body
        if body.lstrip()[:1] in (b"<", b"{", b"["):
            raise bodies.refusal("is no CSV", body)
        if body and not body.endswith(b"\n"):
            if bodies.final_newline:
                raise bodies.refusal("does not end with a line break, so it has broken off", body)
            body += b"\n"
        try:
            reader = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
            self._rows = sum(1 for values in reader if values) - bool(body)
        except (csv.Error, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        end = _first_record(body)
        self.head, self.lines = body[:end].rstrip(b"\r\n"), body[end:]

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def content(self) -> bytes:
        return self.lines


class Joined:
    """Pages as they go to the landing. Of CSV the header is there once: the records of a load are read as one file."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._head: bytes | None = None

    def chunk(self, page: Page) -> Chunk:
        """A page's records; of CSV with the header before them if it is the first.

        Raises:
            MalformedResponseError: its header is not that of the first, or the first has none.
        """
        if not isinstance(page, CsvPage):
            return Chunk(page.content, page.rows)
        if self._head is None:
            if not page.head:
                raise self._bodies.refusal("has no header line", page.answer.body)
            self._head = page.head
            return Chunk(page.head + b"\n" + page.lines, page.rows)
        if page.head not in (self._head, b""):
            raise self._bodies.refusal(
                f"has another header than the first page, which had {self._bodies.beginning(self._head, 80)}",
                page.answer.body,
            )
        return Chunk(page.lines, page.rows)


def _first_record(data: bytes) -> int:
    """Where the first record ends: at the first line break outside quotes."""
    end = data.find(b"\n") + 1
    while end and data.count(b'"', 0, end) % 2:
        end = data.find(b"\n", end) + 1
    return end
