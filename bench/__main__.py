"""Run benchmarks of PostgreSQL, REST, backfills, publishing, history and the Prefect server.

It takes minutes, and gigabytes of disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench import backfill, history, postgres, publish, rest, server
from bench.results import Result, keep
from bench.scene import Scene

_KINDS = ["postgres", "rest", "backfill", "publish", "history", "server"]
_ROWS = 6_000_000
_REST_ROWS = 1_000_000
_RUNS = 60
_FILE = Path(".headwater") / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="|".join(_KINDS), default=_KINDS)
    parser.add_argument("--rows", type=int, default=_ROWS, help="of the large table (default: %(default)s)")
    parser.add_argument(
        "--rest-rows",
        type=int,
        default=_REST_ROWS,
        help="of the API, of backfills and of publishing (default: %(default)s)",
    )
    parser.add_argument("--runs", type=int, default=_RUNS, help="of flows, a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each full load, in turns with its limit")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as home, Scene.started(Path(home)) as scene:
        runs = {
            "postgres": lambda: postgres.run(scene, arguments.rows, arguments.rounds),
            "rest": lambda: rest.run(scene, arguments.rest_rows, arguments.rounds),
            "backfill": lambda: backfill.run(scene, arguments.rest_rows, arguments.rounds),
            "publish": lambda: publish.run(scene, arguments.rest_rows, arguments.rounds),
            "history": lambda: history.run(scene, arguments.rounds),
            "server": lambda: server.run(scene, arguments.runs, arguments.rounds),
        }
        if unknown := set(arguments.kinds) - runs.keys():
            parser.error(f"there is no benchmark of {', '.join(sorted(unknown))}")
        for kind in arguments.kinds:
            for result in runs[kind]():
                keep([result], _FILE)
                _say(result)
    sys.stdout.write(f"\nKept in {_FILE}.\n")


def _say(result: Result) -> None:
    sys.stdout.write(
        f"{result.name:<20}{result.rows:>12,} rows {result.wall_s:>8.2f} s   limit {result.limit_s:>7.2f} s"
        f"   {result.ratio:>6.2f} x   {result.peak_mb:>6.0f} MiB   ({result.limit})\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
