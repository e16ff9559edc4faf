"""The weather service's bucket: one CSV file for each local day, delivered the morning after.

The file of day D is there when the demo's clock has reached 06:00 UTC of the day after D. Its lines are those of the
data set, byte for byte, under its header.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path

from deployments.demo import dataset
from deployments.local.files import write_atomically

_DELIVERED_AT = timedelta(hours=6)


def folder(home: Path) -> Path:
    """Where the files are."""
    return home / "demo" / "weather"


def deliver(home: Path, now: datetime) -> int:
    """Write the files that are due at `now` and not there yet; returns how many."""
    bucket = folder(home)
    bucket.mkdir(mode=0o700, parents=True, exist_ok=True)
    latest = (now - _DELIVERED_AT).date() - timedelta(days=1)
    written = 0
    for day, content in _files():
        path = bucket / f"weather-{day}.csv"
        if day <= latest and not path.exists():
            # Not worth waiting for the disk 364 times: what a power cut takes is written again from the package.
            write_atomically(path, content, durable=False)
            written += 1
    return written


def _files() -> list[tuple[date, str]]:
    header, *lines = dataset.text("weather").splitlines(keepends=True)
    # Sorting is stable: within a day the lines keep their order.
    by_day = groupby(sorted(lines, key=_day), key=_day)
    return [(day, header + "".join(of_day)) for day, of_day in by_day]


def _day(line: str) -> date:
    _origin, year, month, day, _rest = line.split(",", 4)
    return date(int(year), int(month), int(day))
