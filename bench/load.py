"""Load streams of the source database, as a flow's process does: `python -m bench.load STREAM KEY[,KEY] [CURSOR] …`."""

from __future__ import annotations

import time

_BEGUN = time.monotonic()

import json  # noqa: E402 - what Prefect takes to import is told apart from the load
import resource  # noqa: E402
import sys  # noqa: E402

import flows.ingest  # noqa: E402, F401 - for its memory

_IMPORTED = time.monotonic()

from connectors.connections import Database, EnvironmentConnections  # noqa: E402
from connectors.ingest import Destination, ingest  # noqa: E402
from connectors.model import Cursor  # noqa: E402
from connectors.postgres import PostgresSource, TableStream  # noqa: E402


def main() -> None:
    streams = [_stream(argument) for argument in sys.argv[1:]]
    source = PostgresSource(name="bench", database=Database("source"), streams=tuple(streams))
    connections = EnvironmentConnections()
    destination = Destination.of(connections)
    rows = 0
    for stream in streams:
        report = ingest(source, stream, connections, destination)[-1]
        rows += report.inserted + report.updated
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "import_s": _IMPORTED - _BEGUN, "peak_mb": round(peak, 1)}))


def _stream(argument: str) -> TableStream:
    name, key, *cursor = argument.split(":")
    return TableStream(name=name, primary_key=tuple(key.split(",")), cursor=Cursor(cursor[0]) if cursor else None)


if __name__ == "__main__":
    main()
