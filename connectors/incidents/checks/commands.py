"""Commands to type next, each a line for a shell."""

from __future__ import annotations

import shlex
from datetime import datetime

TRANSFORM = "prefect deployment run transform/nyc --watch"
BACKUP = "prefect deployment run backup/nyc --watch"


def ingest(source: str, *, full_refresh: bool = False) -> str:
    """Run the ingest of a source."""
    return _deployment("ingest", source, "full_refresh=true" if full_refresh else "")


def deletions(source: str) -> str:
    """Look for a source's deletions."""
    return _deployment("deletions", source)


def reconciliation(source: str) -> str:
    """Compare a source again."""
    return _deployment("reconcile", source)


def heal(source: str, stream: str, start: datetime | None = None, end: datetime | None = None) -> str:
    """Compare a stream, and mend what differs."""
    return _headwater("reconcile", _stream(source, stream), *_span(start, end), "--heal")


def backfill(source: str, stream: str, start: datetime | None = None, end: datetime | None = None) -> str:
    """Fill the windows of a stream that are missing or failed."""
    return _headwater("backfill", "run", _stream(source, stream), *_span(start, end))


def replay(source: str, stream: str) -> str:
    """Load again what is in quarantine."""
    return _headwater("replay", _stream(source, stream))


def export_latest(source: str, stream: str) -> str:
    """Look at what the source has sent last."""
    return _headwater("export", _stream(source, stream), "--latest", "--format", "jsonl", "--to", ".")


def release(group: str) -> str:
    """Let a group of marts move again."""
    return _headwater("release", "--group", group)


def _deployment(flow: str, source: str, parameter: str = "") -> str:
    """By the names that prefect.yaml gives to the deployments of sources."""
    more = ["-p", parameter] if parameter else []
    return shlex.join(["prefect", "deployment", "run", f"{flow}/{source.replace('_', '-')}", *more, "--watch"])


def _headwater(*words: str) -> str:
    return shlex.join(["headwater", *words])


def _stream(source: str, stream: str) -> str:
    return f"{source}.{stream}"


def _span(start: datetime | None, end: datetime | None) -> list[str]:
    bounds = (("--start", start), ("--end", end))
    return [word for name, at in bounds if at is not None for word in (name, at.isoformat())]
