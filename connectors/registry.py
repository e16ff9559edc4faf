"""Name → source: the only list of them. A source that is not here does not exist for flows, tests or docs."""

from connectors.errors import UnknownNameError
from connectors.model import Source
from connectors.sources.flights_api import flights_api
from connectors.sources.operations_db import operations_db
from connectors.sources.weather_files import weather_files

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        flights_api,
        operations_db,
        weather_files,
    )
}


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        UnknownNameError: there is none, with those there are.
    """
    try:
        return SOURCES[name]
    except KeyError:
        raise UnknownNameError("source", name, list(SOURCES)) from None
