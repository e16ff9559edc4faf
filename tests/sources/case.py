"""One stream of one source, with its stand-in and a warehouse: what the checks of the conformance suite look at.

Reads are judged by what becomes of them in a real warehouse: there every format of every way of reading is rows with
types, and PostgreSQL compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from connectors.connections import Connections, Database, EnvironmentConnections, Secret, StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.errors import HeadwaterError
from connectors.http.client import RetryPolicy
from connectors.ingest import Destination, ingest
from connectors.model import Chunk, Extraction, ExtractRequest, Source, Stream
from tests.conftest import Warehouse
from tests.sources.stand_in import StandIn

_OWN_COLUMNS = "'{_load_id,_loaded_at,_deleted_at}'::text[]"
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_NUMBERS = count(1)
_IMPATIENT = RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.05, connect_timeout=2)


@dataclass(frozen=True, slots=True)
class Read:
    """What a source gave for one request, as rows of a table of its own."""

    table: str
    report: LoadReport
    largest_chunk: int
    """In bytes."""
    has_files: bool
    """Whether the rows are those of files."""

    def rows(self, condition: str = "true") -> str:
        """A query for them, each a document. What has no value is left out: another read may have no such column."""
        if self.report.inserted == 0:
            return "select null::jsonb where false"
        return f"select jsonb_strip_nulls(to_jsonb(t) - {_OWN_COLUMNS}) from {self.table} t where {condition}"


class Case:
    """A stream to be judged."""

    def __init__(self, source: Source, stream: Stream, stand_in: StandIn, warehouse: Warehouse, landing: Path) -> None:
        self.source = _impatient(source)
        self.stream = stream
        self.stand_in = stand_in
        self.warehouse = warehouse
        self.landing = landing
        self.destination = Destination(warehouse.url("loader"), Landing(StoreLocation(landing.as_uri())))

    def __str__(self) -> str:
        return f"{self.source.name}.{self.stream.name}"

    def connections(
        self, changes: Mapping[str, str] | None = None, *, without: str | None = None
    ) -> EnvironmentConnections:
        """What leads to the stand-in, with other values for some variables, or without one of them."""
        variables = {**self.stand_in.variables, **(changes or {})}
        return EnvironmentConnections({name: value for name, value in variables.items() if name != without})

    @cached_property
    def everything(self) -> Read:
        """A read without bounds."""
        return self.read(ExtractRequest())

    def read(self, request: ExtractRequest) -> Read:
        """Read from the stand-in into a table of its own.

        Raises:
            AssertionError: the read failed, in its own words.
        """
        asked = _Asked(self.source, f"read_{next(_NUMBERS)}", request)
        try:
            report = ingest(asked, self.stream, self.connections(), self.destination)[-1]
        except HeadwaterError as error:
            raise AssertionError(f"{self} cannot be read: {error}") from error
        return Read(f"raw_{asked.name}.{quoted(self.stream.name)}", report, asked.largest_chunk, asked.has_files)

    def load(self, **options: Any) -> LoadReport:
        """Load the stream as a flow does.

        Raises:
            AssertionError: the load failed, in its own words.
        """
        try:
            return ingest(self.source, self.stream, self.connections(), self.destination, **options)[-1]
        except HeadwaterError as error:
            raise AssertionError(f"{self} cannot be loaded: {error}") from error

    @property
    def table(self) -> str:
        """The raw table of loads."""
        return f"raw_{self.source.name}.{quoted(self.stream.name)}"

    def raw(self) -> list[tuple[str]]:
        """What raw holds, columns of ours included."""
        return self.warehouse.query(f"select t::text from {self.table} t order by 1")

    def columns(self) -> dict[str, str]:
        """Type by column of the raw table."""
        return dict(
            self.warehouse.query(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute"
                " where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
                [self.table],
            )
        )

    def number_of(self, rows: str) -> int:
        """How many rows a query has."""
        return int(self.warehouse.query(f"select count(*) from ({rows}) t")[0][0])

    @property
    def secrets(self) -> set[str]:
        """The values that nobody may see: of what the source requires, right ones and wrong ones."""
        found = set()
        for variables in (self.stand_in.variables, {**self.stand_in.variables, **self.stand_in.refused}):
            for requirement in self.source.requirements:
                value = variables[requirement.environment_variable]
                if isinstance(requirement, Secret):
                    found.add(value)
                elif isinstance(requirement, Database) and (password := make_url(value).password):
                    found.add(str(password))
            found |= {variables[name] for name in _SECRET_VARIABLES if name in variables}
        return found


class _Asked:
    """A source under another name that is asked for one thing, whatever the ledger says; what it gives is watched."""

    def __init__(self, source: Source, name: str, request: ExtractRequest) -> None:
        self.name = name
        self.streams = source.streams
        self.requirements = source.requirements
        self.largest_chunk = 0
        self.has_files = False
        self._source = source
        self._request = request

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        extraction = self._source.extract(stream, self._request, connections)
        return replace(extraction, chunks=self._watched(extraction.chunks))

    def _watched(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.largest_chunk = max(self.largest_chunk, len(chunk.data))
            self.has_files |= chunk.file is not None
            yield chunk


def _impatient(source: Source) -> Source:
    """The source, if it retries, with less patience: a system that is down is down."""
    if not hasattr(source, "retries"):
        return source
    return replace(source, retries=_IMPATIENT)  # type: ignore[type-var]


def column(field: str) -> str:
    """A field as a column of raw, to put into a statement."""
    return quoted(column_name(field))


def quoted(name: str) -> str:
    """An identifier."""
    return '"{}"'.format(name.replace('"', '""'))
