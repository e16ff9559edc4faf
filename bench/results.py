"""What a benchmark found, and the file that it is kept in."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Result:
    """One entry of `bench.json`."""

    name: str
    rows: int
    wall_s: float
    """Seconds, the median of the rounds."""
    limit_s: float
    """Seconds that the limit took, the median of as many rounds, in turns with it."""
    ratio: float
    """The median of the rounds' ratios."""
    peak_mb: float
    """The largest resident size, in MiB, of the process that did it, Prefect loaded."""
    limit: str
    """What it is compared with."""


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def keep(results: Iterable[Result], file: Path) -> None:
    """Put results into the file; those of other benchmarks that it has stay."""
    facts = machine()
    new = {result.name: {**asdict(result), "machine": facts} for result in results}
    before = json.loads(file.read_text()) if file.exists() else []
    entries = [entry for entry in before if entry["name"] not in new] + list(new.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries, indent=1) + "\n")
