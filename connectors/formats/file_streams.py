"""File streams as definitions: which files they are, and how each format is read. No I/O here.

What lands are a file's own bytes (less its gzip or zstd), unless the stream has something to keep private; they are
taken apart when they are loaded, so that all of a definition but its pattern can be put right later, and the files
loaded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from connectors.documents.path import single_path
from connectors.errors import ConfigurationError
from connectors.model import LandingFormat, Stream, WriteDisposition
from connectors.privacy import folded, paths

DATE = "{date}"
MEND = (
    "Correct the file at its source: the next run reads it again. With on_bad_file=OnBadFile.QUARANTINE the stream's "
    "other files are loaded meanwhile."
)
"""What to do about a bad file."""


class OnBadFile(StrEnum):
    """What happens when a file is not what its stream says: cut off, corrupt, no CSV, without its records."""

    FAIL = "fail"
    """The load fails and names it. Nothing of the load is in raw until the file is mended or moved away."""
    QUARANTINE = "quarantine"
    """The file goes to quarantine as a single row, whatever the reject_limit, and the others are loaded. It is read
    again when it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStream(Stream):
    """Files of one format. Use `CsvStream`, `JsonLinesStream`, `JsonStream` or `ParquetStream`."""

    pattern: str
    """Paths below the source's root, `*` for anything within a name (a leading dot aside), `**/` for any folders,
    `{date}` for a date as 2013-07-01. A name that ends in .gz or .zst is decompressed."""
    days: int | None = None
    """Of files on the web with a {date}: how many days back, from today, are looked for."""
    file_column: str | None = None
    """A column to keep the path of each row's file in."""
    on_bad_file: OnBadFile = OnBadFile.FAIL
    max_expansion: int = 500
    """How many times its compressed size a file may have, beyond the first 64 MiB."""

    landing_format: ClassVar[LandingFormat]

    def __post_init__(self) -> None:
        Stream.__post_init__(self)
        if self.cursor is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and has a cursor.",
                remedy="Drop it: new and changed files are found by their versions in the ledger.",
            )
        if self.write is WriteDisposition.REPLACE:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and is `replace`.",
                remedy="A load holds new and changed files only: use `merge` with a key, or `append`.",
            )
        if self.deletes is not None:
            raise ConfigurationError(
                f"Stream `{self.name}` reads files and names deletes.",
                remedy="Drop it: a folder does not say which rows there are, only which files are new or changed.",
            )
        if self.event_time is not None and DATE not in self.pattern:
            raise ConfigurationError(
                f"Stream `{self.name}` has an event_time but its files cannot be told apart by date.",
                remedy="Put {date} into the pattern, or drop event_time.",
            )
        if self.pattern.count(DATE) > 1:
            raise ConfigurationError(
                f"Stream `{self.name}` has {{date}} twice in its pattern.", remedy="Use `*` for the others."
            )
        if self.file_column is not None and folded(self.file_column) in {path[0] for path, _ in paths(self.privacy)}:
            raise ConfigurationError(
                f"Stream `{self.name}` is to keep its file_column private, which is made when rows are loaded.",
                remedy="Leave file_column out, or the treatment.",
            )
        if self.max_expansion < 1 or (self.days is not None and self.days < 1):
            raise ConfigurationError(
                f"Stream `{self.name}` has days={self.days} and max_expansion={self.max_expansion}.",
                remedy="Both are at least 1.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvStream(FileStream):
    """CSV files. Columns are text unless `columns` gives them a type. Inside quotes, a quote is doubled."""

    nulls: tuple[str, ...] = ("",)
    delimiter: str = ","
    quote: str | None = '"'
    """None where nothing is quoted, and a quote is a character like any other."""
    encoding: str = "utf-8"
    """Any that Python knows; a byte order mark is no part of the first name."""
    header: tuple[str, ...] = ()
    """The columns' names, where the files have no line of them."""
    skip_lines: int = 0
    """Lines before the header, or before the records if there is none, that say nothing."""
    final_newline: bool = True
    """Whether a file without a line break at its end is a bad one. It is how a file looks that was cut off or is still
    being written; set False where the source leaves the line break out, and the last record is taken as it is."""

    landing_format: ClassVar[LandingFormat] = LandingFormat.CSV

    def __post_init__(self) -> None:
        FileStream.__post_init__(self)
        marks = [self.delimiter, *([self.quote] if self.quote is not None else [])]
        if any(len(mark) != 1 or mark in "\r\n\0" for mark in marks) or len(set(marks)) < len(marks):
            raise ConfigurationError(
                f"Stream `{self.name}` has delimiter={self.delimiter!r} and quote={self.quote!r}.",
                remedy="Each is one character, no line break, and not the other's.",
            )
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise ConfigurationError(
                f"Stream `{self.name}` is in `{self.encoding}`, which is no encoding of text.",
                remedy="Use a name that Python knows, e.g. utf-8, latin-1, cp1252, utf-16.",
            ) from None
        if self.skip_lines < 0:
            raise ConfigurationError(f"Stream `{self.name}` skips {self.skip_lines} lines.", remedy="Give 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLinesStream(FileStream):
    """Files of JSON documents, one a line (NDJSON), in UTF-8. They are loaded as an API's documents are."""

    landing_format: ClassVar[LandingFormat] = LandingFormat.JSONL

    @property
    def has_documents(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonStream(FileStream):
    """Files that are one JSON document with a list of records, in UTF-8."""

    records: str = ""
    """Where the list is: `result.items`, or `"odd.name".items`. Empty where the list is the whole document."""

    landing_format: ClassVar[LandingFormat] = LandingFormat.JSON

    def __post_init__(self) -> None:
        FileStream.__post_init__(self)
        _ = self.path

    @property
    def has_documents(self) -> bool:
        return True

    @property
    def path(self) -> list[str]:
        """The names that lead to the list.

        Raises:
            ConfigurationError: `records` is no path to one value.
        """
        return [name for name in single_path(self.records) if name is not None] if self.records else []


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetStream(FileStream):
    """Parquet files. Columns have the types of the files unless `columns` gives them others."""

    landing_format: ClassVar[LandingFormat] = LandingFormat.PARQUET
