"""The words of the product as types: source, stream, window, cursor, contract, part, manifest. No I/O here.

Everything is frozen and checked when it is made, so a wrong definition fails at import with a sentence that says
how to put it right, not at three in the morning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from connectors.errors import ConfigurationError, UnknownNameError, WindowError
from connectors.privacy import Treatment, check_privacy

if TYPE_CHECKING:
    from connectors.connections import Connections, Requirement

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
"""Names of sources and streams: PostgreSQL cuts identifiers at 63 bytes without a word, so ours stay well below."""


class WriteDisposition(StrEnum):
    """What a load does to the rows that are there already."""

    APPEND = "append"
    """Rows are added; for events that never change. A row whose key is there already is left as it is."""
    MERGE = "merge"
    """Rows replace the older version with the same primary key."""
    REPLACE = "replace"
    """The load is the whole table: rows that it lacks are gone."""


class SchemaContract(StrEnum):
    """What happens when a load does not fit raw's columns.

    The first load makes the table, whatever the contract.
    """

    EVOLVE = "evolve"
    """Columns are added and types widened, recorded in `ops.schema_changes`; a row with a value that still does not fit
    goes to quarantine."""
    FREEZE = "freeze"
    """A new, removed or changed column fails the load before it commits; a value that does not fit as with `evolve`."""
    DISCARD_VALUE = "discard_value"
    """Raw keeps its columns: values that it has no column for, or that do not fit theirs, are left out of raw. The
    landing keeps them, and `ops.schema_changes` counts them. A key or cursor is never left out: such a row goes to
    quarantine."""
    DISCARD_ROW = "discard_row"
    """Raw keeps its columns: a row with a value that it has no column for, or that does not fit, goes to quarantine."""

    @property
    def keeps_columns(self) -> bool:
        """Whether raw's columns stay as they are, whatever a load brings."""
        return self in (SchemaContract.DISCARD_VALUE, SchemaContract.DISCARD_ROW)


class NullCursor(StrEnum):
    """What happens to a row whose cursor has no value: none comes after a watermark."""

    LOAD = "load"
    """It is loaded as it comes. A database is asked for such rows at every load, so their changes are seen; an API
    sends them when it likes."""
    REJECT = "reject"
    """It goes to quarantine."""


class LandingFormat(StrEnum):
    """How a load's objects are written, before compression."""

    PGCOPY = "pgcopy"
    """PostgreSQL binary COPY; every part is a whole COPY file with header and trailer."""
    JSONL = "jsonl"
    """One JSON document a line, each as its source wrote it."""
    CSV = "csv"
    """A CSV file as its source wrote it, header included."""
    JSON = "json"
    """A file that is one JSON document, as its source wrote it."""
    PARQUET = "parquet"
    """Parquet, not compressed once more: a file as its source wrote it, or the rows of a typed source."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span `[start, end)` of a stream's event time, in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise WindowError(
                f"A window needs instants with a time zone, not {self.start} to {self.end}.",
                remedy="Add an offset, e.g. 2013-07-01T00:00:00Z.",
            )
        if self.start >= self.end:
            raise WindowError(
                f"The window from {self.start.isoformat()} to {self.end.isoformat()} is empty.",
                remedy="The end is exclusive: it must be later than the start.",
            )

    @classmethod
    def parse(cls, start: str, end: str) -> Window:
        """A window from two ISO 8601 dates or instants; without an offset they are UTC.

        Raises:
            WindowError: one of them is no date or instant, or the end does not come after the start.
        """
        return cls(parse_instant(start, "start"), parse_instant(end, "end"))

    def __str__(self) -> str:
        return f"[{_short(self.start)}, {_short(self.end)})"

    def covers(self, other: Window) -> bool:
        """Whether all of another window lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Window) -> bool:
        """Whether the two share an instant."""
        return self.start < other.end and other.start < self.end


def parse_instant(text: str, side: str, time_zone: str = "UTC") -> datetime:
    """An instant in UTC from an ISO 8601 date or instant; without an offset it is of the time zone.

    Raises:
        WindowError: it is none; `side` of a window is what it was to be.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise WindowError(
            f"The {side} of the window, `{text}`, is not a date or an instant.",
            remedy="Write it in ISO 8601, e.g. 2013-07-01 or 2013-07-01T06:00:00Z.",
        ) from None
    return (found.replace(tzinfo=ZoneInfo(time_zone)) if found.tzinfo is None else found).astimezone(UTC)


def _short(instant: datetime) -> str:
    """An instant as a person writes it: the date alone at midnight UTC."""
    if instant.time() == datetime.min.time():
        return instant.date().isoformat()
    return instant.isoformat().replace("+00:00", "Z")


class WindowSize(StrEnum):
    """How long a stream's windows are, by the calendar of their time zone."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday on."""
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows that a stream should have, one after the other without a gap: what backfills are planned by."""

    size: WindowSize = WindowSize.DAY
    time_zone: str = "UTC"
    """Whose days, by its IANA name. A day on which its clocks change has 23 or 25 hours."""
    first: str | None = None
    """A date or instant in the first window, of this time zone; None: where the stream's rows begin."""
    until: str | None = None
    """Where the last one ends, for a source to which nothing is added any more; None: now."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigurationError(
                f"`{self.time_zone}` is no time zone.", remedy="Give its IANA name, e.g. America/New_York."
            ) from None
        for text, side in ((self.first, "first"), (self.until, "until")):
            if text is not None:
                self.instant(text, side)

    @property
    def begin(self) -> datetime | None:
        """Where the first window begins, if the definition says."""
        return None if self.first is None else self.start_of(self.instant(self.first, "first"))

    def instant(self, text: str, side: str) -> datetime:
        """An instant in UTC from an ISO 8601 date or instant; without an offset it is of the windows' time zone.

        Raises:
            WindowError: it is none; `side` is what it was to be.
        """
        return parse_instant(text, side, self.time_zone)

    def end_by(self, now: datetime) -> datetime:
        """Where the last window ends that is over at an instant."""
        if self.until is not None:
            until = self.instant(self.until, "until")
            start = self.start_of(until)
            now = min(now, until if start == until else self.next(start))
        return self.start_of(now)

    def start_of(self, instant: datetime) -> datetime:
        """Where the window begins that an instant lies in, in UTC."""
        local = instant.astimezone(ZoneInfo(self.time_zone))
        if self.size is WindowSize.HOUR:
            into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return instant.astimezone(UTC) - into
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.size is WindowSize.WEEK:
            day -= timedelta(days=day.weekday())
        elif self.size is WindowSize.MONTH:
            day = day.replace(day=1)
        return day.astimezone(UTC)

    def next(self, start: datetime) -> datetime:
        """Where the window ends that begins there."""
        # The calendar's next hour, day … begins less than so long after the middle of this one.
        far = {
            WindowSize.HOUR: timedelta(hours=1),
            WindowSize.DAY: timedelta(hours=30),
            WindowSize.WEEK: timedelta(days=7, hours=12),
            WindowSize.MONTH: timedelta(days=31, hours=12),
        }
        return self.start_of(start + far[self.size])

    def within(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The windows that have an instant in `[start, end)`, in their order."""
        at = self.start_of(start)
        while at < end:
            following = self.next(at)
            yield Window(at, following)
            at = following


@dataclass(frozen=True, slots=True)
class Cursor:
    """The field that orders a stream's changes.

    The committed position in it is the watermark. The next load asks for `field >= watermark - lag`: the bound is
    inclusive because rows can share an instant, and the merge drops what raw has already.
    """

    field: str
    lag: timedelta = timedelta(0)
    """How far before the watermark to look again, for sources whose rows become visible late."""
    initial: str | None = None
    """Where the first load starts; without it, at the beginning."""
    nulls: NullCursor | None = None
    """What to do with rows that have none; None is as the way of reading can bear: `load` for databases, which can be
    asked for them again, `reject` for APIs, which cannot."""

    def __post_init__(self) -> None:
        if self.lag < timedelta(0):
            raise ConfigurationError(
                f"The cursor `{self.field}` has a negative lag.", remedy="Give zero or a positive timedelta."
            )


@dataclass(frozen=True, slots=True)
class Deletes:
    """That rows of a stream are deleted at their source, and are to be found by comparing keys."""

    limit: float = 0.1
    """The share of raw's live rows, 0 to 1, that may be gone in one comparison; beyond it nothing is marked."""

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            raise ConfigurationError(
                f"The limit of deletes is {self.limit}.", remedy="It is a share of the rows: give a number from 0 to 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One table-like thing in a source. The ways to read (REST, PostgreSQL, files) add what they need.

    Raises:
        ConfigurationError: at construction, when the parts do not fit together.
    """

    name: str
    primary_key: tuple[str, ...] = ()
    write: WriteDisposition = WriteDisposition.MERGE
    cursor: Cursor | None = None
    event_time: str | None = None
    """The column that says when a row's event happened; what windows are cut by. None: no windows."""
    windows: Windows = field(default_factory=Windows)
    """How long they are, and from when to when there are any; of a stream with an event_time."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL types by column, where the source's own typing is not enough (instants in JSON, anything in CSV)."""
    nulls: tuple[str, ...] = ()
    """The texts that mean no value, in formats that have no other word for it (CSV)."""
    contract: SchemaContract = SchemaContract.EVOLVE
    reject_limit: float = 0.01
    """The share of a load's rows, 0 to 1, that may go to quarantine before the load fails instead."""
    deletes: Deletes | None = None
    """Set where the source deletes rows: `connectors.deletions` marks them in raw. None: nothing is looked for."""
    landing: LandingFormat | None = None
    """How loads are landed, if not as the way of reading does it fastest."""
    privacy: Mapping[str, Treatment] = field(default_factory=dict)
    """What is personal, and what becomes of it before anything lands: `Hashed`, `Dropped` or `Masked` by field; in
    documents also by a path into it, `contact.email` or `orders[].card`. See docs/privacy.md."""

    null_cursor_unless_said: ClassVar[NullCursor] = NullCursor.REJECT
    landing_choices: ClassVar[tuple[LandingFormat, ...]] = ()
    """What `landing` may be."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"`{self.name}` cannot name a stream.",
                remedy="Use lower-case letters, digits and underscores, 48 at most, a letter first.",
            )
        if self.write is WriteDisposition.MERGE and not self.primary_key:
            raise ConfigurationError(
                f"Stream `{self.name}` is `merge` but has no primary_key.",
                remedy="Name the key columns, or use `append` or `replace`.",
            )
        if self.write is WriteDisposition.APPEND and self.cursor is not None and not self.primary_key:
            raise ConfigurationError(
                f"Stream `{self.name}` is `append` with a cursor but has no primary_key.",
                remedy="Name the key columns: rows that share the watermark are read twice, and told by them.",
            )
        if self.write is WriteDisposition.REPLACE and self.cursor is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` is `replace` but has a cursor.",
                remedy="A replaced table is read whole each time: drop the cursor, or use `merge`.",
            )
        if self.write is WriteDisposition.REPLACE and self.event_time is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` is `replace` but has an event_time.",
                remedy="A window would replace the whole table: drop event_time, or use `merge`.",
            )
        if not 0 <= self.reject_limit <= 1:
            raise ConfigurationError(
                f"Stream `{self.name}` has a reject_limit of {self.reject_limit}.",
                remedy="It is a share of the rows: give a number from 0 to 1.",
            )
        if self.landing is not None and self.landing not in self.landing_choices:
            raise ConfigurationError(
                f"Stream `{self.name}` cannot land as `{self.landing}`.",
                remedy=f"Leave landing out, or use one of: {', '.join(self.landing_choices)}."
                if self.landing_choices
                else "Leave landing out: what it reads lands as it came.",
            )
        if self.deletes is not None and self.write is WriteDisposition.REPLACE:
            raise ConfigurationError(
                f"Stream `{self.name}` is `replace` and names deletes.",
                remedy="Drop deletes: a replaced table loses the rows that its source has lost, with each load.",
            )
        if self.deletes is not None and not self.primary_key:
            raise ConfigurationError(
                f"Stream `{self.name}` names deletes but has no primary_key.",
                remedy="Name the key columns: deleted rows are found by their keys.",
            )
        check_privacy(
            self.name,
            self.privacy,
            key=self.primary_key,
            bounds=(self.cursor.field if self.cursor else None, self.event_time),
            columns=self.columns,
            has_documents=self.has_documents,
        )

    @property
    def has_documents(self) -> bool:
        """Whether its records have fields within fields."""
        return False

    @property
    def rejects_null_cursors(self) -> bool:
        """Whether a row without a cursor value goes to quarantine."""
        if self.cursor is None:
            return False
        return (self.cursor.nulls or self.null_cursor_unless_said) is NullCursor.REJECT


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One file of a file stream, as it was when it was listed."""

    path: str
    """Relative to the stream's root, with forward slashes."""
    version: str
    """Changes when the file does: the store's etag, or size and modification time where there is none."""
    size: int
    """In bytes."""


class Snapshot(Protocol):
    """One instant of a source, that several streams are read as of. Only the source that made it looks inside."""

    def close(self) -> None:
        """Let go of it; reads that have begun go on."""
        ...


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """What to read: a window, or what changed since the watermark, or (neither) everything."""

    window: Window | None = None
    watermark: str | None = None
    """The committed cursor position, as PostgreSQL prints the column's type with time zone UTC."""
    files_loaded: Mapping[str, str] = field(default_factory=dict)
    """For file streams: the version of each file that is in raw already, by path."""
    snapshot: Snapshot | None = None
    """The instant to read as of, made by this source for this watermark; now, without it."""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """How far a read got, as a source knows it that can look at its own transactions.

    The promise: a row that the read did not see and that becomes visible later has a cursor of at least `highest`, or
    was written by one of `open_transactions`.
    """

    highest: str | None
    """The highest cursor value, as PostgreSQL prints it; infinite ones and those of the source's future aside."""
    open_transactions: tuple[str, ...] = ()
    """Those that had begun before `highest` was looked up and had not ended when the read began, sorted."""
    state: Mapping[str, str] = field(default_factory=dict)
    """What tells this state of the source from an earlier one that is put back: `transaction` only ever grows, the
    other values stay."""
    is_behind: bool = False
    """Whether `highest` is lower than the watermark that the read started from."""

    def follows(self, earlier: Mapping[str, str]) -> bool:
        """Whether the source has only moved on since it was in that state."""
        if not earlier or int(self.state["transaction"]) < int(earlier["transaction"]):
            return False
        return all(self.state.get(name) == value for name, value in earlier.items() if name != "transaction")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some whole records in the landing format of their stream; of a file, some of its bytes."""

    data: bytes
    rows: int
    file: FileVersion | None = None
    """Set by file streams: the file that the bytes are of. A new file starts a new object."""
    ends_file: bool = False
    """Whether these are the last bytes of the file."""
    refused: str | None = None
    """Why the file cannot be read to its end; the rows that it had until here do not count."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a stream as its source types it, in PostgreSQL's words."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """A read under way: its format, and the chunks, which are fetched as they are taken."""

    format: LandingFormat
    chunks: Iterator[Chunk]
    columns: tuple[Column, ...] = ()
    """Known before the first row for typed sources (databases), by the names that their rows have in the landing; empty
    for documents and files. In JSON lines of a typed source a string is a value's text, also of a JSON value, and an
    object stands for a value that is not of its column's type."""
    position: SourcePosition | None = None
    """None where the source cannot tell: the rows then say how far it got."""
    landing: LandingFormat | None = None
    """How the chunks land, if not as they are: `parquet`, for CSV as PostgreSQL's COPY writes it, without a header, and
    for JSON lines, both of typed columns."""
    requests: Callable[[], int] | None = None
    """How many requests the read has made so far, tries that failed included; None where it is one query."""


class Source(Protocol):
    """A system to read from. `connectors.rest`, `.postgres` and `.files` each have one to fill in."""

    @property
    def name(self) -> str: ...

    @property
    def streams(self) -> tuple[Stream, ...]: ...

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The connections it needs, for `headwater register` and for messages about what is missing."""
        ...

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        """Start reading. Rows come in cursor order where there is a cursor.

        Raises:
            ConfigurationError: the definition or the connection is wrong.
            SourceUnavailableError: the source cannot be reached (also while chunks are taken).
            MalformedResponseError: the source sent something that is not its data (likewise).
        """
        ...


@runtime_checkable
class EstimatingSource(Source, Protocol):
    """A source that can say, at next to no cost, about how many rows it has."""

    def estimated_rows(self, stream: Stream, window: Window | None, connections: Connections) -> int:
        """About how many rows a window has, or the stream (None); for plans, which need not be right.

        Raises:
            ConfigurationError, SourceUnavailableError: as `Source.extract`.
        """
        ...


@runtime_checkable
class KeySource(Source, Protocol):
    """A source that can also say which keys it has."""

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        """Start reading the key fields of every row that the source has now, and nothing else of them.

        Raises:
            As `extract`.
        """
        ...


@runtime_checkable
class SnapshotSource(Source, Protocol):
    """A source that can be read as of one instant by several streams."""

    def snapshot(self, watermarks: Mapping[str, str | None], connections: Connections) -> Snapshot:
        """Hold on to this instant.

        Args:
            watermarks: where the read of each stream will start, by stream; its keys are the streams.

        Raises:
            As `extract`.
        """
        ...


def check_source(name: str, streams: tuple[Stream, ...]) -> None:
    """Refuse a source whose name cannot become a schema, or whose streams share a name.

    Raises:
        ConfigurationError: it is so.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"`{name}` cannot name a source.",
            remedy="Use lower-case letters, digits and underscores, 48 at most, a letter first.",
        )
    if not streams:
        raise ConfigurationError(f"Source `{name}` has no streams.", remedy="Define at least one.")
    names = [stream.name for stream in streams]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"Source `{name}` has two streams of one name: {', '.join(sorted(names))}.",
            remedy="Stream names are table names: make them differ.",
        )


def stream_of(source: Source, name: str) -> Stream:
    """The stream of that name.

    Raises:
        UnknownNameError: the source has none, with those it has.
    """
    for stream in source.streams:
        if stream.name == name:
            return stream
    raise UnknownNameError("stream", name, [stream.name for stream in source.streams], among=f"source `{source.name}`")


def check_window(stream: Stream, window: Window | None) -> None:
    """Refuse a window for a stream whose rows have no event time to cut by.

    Raises:
        WindowError: it is so.
    """
    if window is not None and stream.event_time is None:
        raise WindowError(
            "This stream has no event time, so it cannot be read by window.",
            remedy="Run it without start and end.",
            stream=stream.name,
            window=window,
        )


def check_full_refresh(window: Window | None, full_refresh: bool) -> None:
    """Refuse a window that is to be everything.

    Raises:
        WindowError: it is so.
    """
    if window is not None and full_refresh:
        raise WindowError(
            "A full refresh reads everything, so it has no window.",
            remedy="Give start and end, or full_refresh.",
            window=window,
        )
