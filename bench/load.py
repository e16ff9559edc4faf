"""Load tables of the source database as a flow's process does, Prefect loaded.

`python -m bench.load TABLE:KEY[:CURSOR] …`, the columns of a key parted by commas. Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time

_BEGUN = time.monotonic()
import flows.ingest  # noqa: E402, F401 - for its memory; its time is told apart

_IMPORTED = time.monotonic()

from connectors.connections import Database, EnvironmentConnections  # noqa: E402
from connectors.ingest import Destination, ingest  # noqa: E402
from connectors.model import Cursor  # noqa: E402
from connectors.postgres import PostgresSource, TableStream  # noqa: E402


def main() -> None:
    streams = tuple(_stream(argument) for argument in sys.argv[1:])
    source = PostgresSource(name="bench", database=Database("source"), streams=streams)
    connections = EnvironmentConnections()
    destination = Destination.of(connections)
    reports = [ingest(source, stream, connections, destination)[-1] for stream in streams]
    said = {
        "rows": sum(report.extracted for report in reports),
        "written": sum(report.inserted + report.updated for report in reports),
        "import_s": _IMPORTED - _BEGUN,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    sys.stdout.write(json.dumps(said) + "\n")


def _stream(argument: str) -> TableStream:
    name, key, *cursor = argument.split(":")
    return TableStream(name=name, primary_key=tuple(key.split(",")), cursor=Cursor(cursor[0]) if cursor else None)


if __name__ == "__main__":
    main()
