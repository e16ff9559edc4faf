"""What the page says, as JSON: everything on it comes from here, and docs/status-page.md names each part.

It needs the warehouse alone. Lineage also needs the manifest of a build; without one it is as it was when one was last
at hand, and says of when that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import URL

from connectors.destinations.warehouse.status_facts import (
    Facts,
    columns_by_relation,
    one_look,
    read_facts,
    without_values,
)
from connectors.model import Source, Stream
from connectors.windows import WindowState, WindowStatus, ledger_windows
from tasks.lineage import FORMAT, lineage

VERSION = 1
"""Of the JSON: greater when a part is renamed, removed or means something else; new parts leave it as it is."""
OLD_AFTER_SECONDS = 2 * 60 * 60
"""After how long the page says of itself that it is old: ingests make it several times an hour."""
COVERAGE_DAYS = 371
"""53 weeks."""

_SECTIONS = ("marts", "closed_incidents", "loads", "builds", "failed_nodes", "publishes", "slowest",
             "test_builds", "tests", "quarantine", "schema_changes", "alerts", "heartbeats")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A page's content."""

    document: dict[str, Any]
    kept: dict[str, Any] | None
    """What the next one needs of the lineage; None if there is none."""


def make(
    watcher: URL,
    sources: Sequence[Source],
    *,
    manifest: Mapping[str, Any] | None,
    kept: Mapping[str, Any] | None,
    run: str | None = None,
) -> Made:
    """Look at the warehouse and say how all is.

    Args:
        manifest: what dbt has left, if it is at hand.
        kept: what was kept of the lineage when it last was.
        run: who makes the page.

    Raises:
        ConfigurationError: the warehouse refuses, or was not migrated.
        DestinationUnavailableError: it does not answer, or not in time.
    """
    with one_look(watcher) as connection:
        facts = read_facts(connection, [(source.name, stream.name) for source in sources for stream in source.streams])
        now = facts["now"][0]["at"]
        coverage = [
            _coverage(source, stream, ledger_windows(connection, source, stream, days=COVERAGE_DAYS, now=now))
            for source in sources
            for stream in source.streams
            if stream.event_time is not None
        ]
        catalog = columns_by_relation(connection, sorted(_schemas(manifest))) if manifest is not None else {}
    if manifest is not None and not _is_newer(kept, manifest):
        kept = lineage(manifest, catalog, sources, kept)
    graph = kept["graph"] if kept is not None and kept.get("format") == FORMAT else None
    document = {
        "version": VERSION,
        "made_at": now,
        "made_by": run,
        "warehouse": facts["now"][0]["warehouse"],
        "old_after_seconds": OLD_AFTER_SECONDS,
        "verdict": verdict(facts["marts"], facts["incidents"], streams := _streams(facts, coverage, now)),
        "incidents": _incidents(facts),
        "streams": streams,
        "coverage": coverage,
        **{name: facts[name] for name in _SECTIONS},
        "test_counts": {row["status"]: row["tests"] for row in facts["test_counts"]},
        "lineage": graph,
    }
    return Made(_plain(document), dict(kept) if kept is not None else None)


def verdict(
    marts: Iterable[Mapping[str, Any]], incidents: Iterable[Mapping[str, Any]], streams: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Is it bad, and since when: the first thing that who was woken wants to know."""
    marts, incidents = list(marts), list(incidents)
    awake = [each for each in incidents if each["snoozed_until"] is None or each["snoozed_until"] <= datetime.now(UTC)]
    by_status = Counter(mart["status"] for mart in marts)
    snoozed = f" ({len(incidents) - len(awake)} snoozed)" if len(awake) < len(incidents) else ""
    are = "s are" if len(incidents) > 1 else " is"
    troubles = [f"{len(incidents)} incident{are} open{snoozed}"] if incidents else []
    troubles += [
        f"{count} of {len(marts)} marts {'are' if count > 1 else 'is'} {status}"
        for status in ("held back", "stale", "late")
        if (count := by_status[status])
    ]
    unloaded = sum(stream["status"] in ("stale", "late") for stream in streams)
    if unloaded and not by_status["stale"] and not by_status["late"]:
        troubles.append(f"{unloaded} stream{'s are' if unloaded > 1 else ' is'} late or stale")
    since = min((each["opened_at"] for each in awake), default=None)
    if not troubles:
        text = f"All {len(marts)} marts are fresh, and no incident is open." if marts else "Nothing is served yet."
        return {"level": "good" if marts else "warning", "text": text, "since": None}
    is_bad = by_status["held back"] or by_status["stale"] or any(each["severity"] != "warning" for each in awake)
    text = f"{', '.join(troubles)}."
    return {"level": "bad" if is_bad else "warning", "text": text[0].upper() + text[1:], "since": since}


def _streams(facts: Facts, coverage: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The board of freshness: as the latest check left it, judged by the clock of now."""
    windows = {(each["source"], each["stream"]): each["counts"] for each in coverage}
    return [
        {
            **stream,
            "status": _freshness(stream, now),
            "windows": windows.get((stream["source"], stream["stream"])),
        }
        for stream in facts["streams"]
    ]


def _freshness(stream: Mapping[str, Any], now: datetime) -> str:
    if stream["checked_at"] is None:
        return "not checked"
    if stream["stale_at"] is not None and stream["stale_at"] <= now:
        return "stale"
    if stream["late_at"] is not None and stream["late_at"] <= now:
        return "late"
    return str(stream["checked_status"])


def _coverage(source: Source, stream: Stream, found: Sequence[WindowStatus]) -> dict[str, Any]:
    """The windows of a stream: where each begins, its state and rows, and what is wrong with it."""
    counts = Counter(str(each.state) for each in found)
    return {
        "source": source.name,
        "stream": stream.name,
        "size": stream.windows.size,
        "time_zone": stream.windows.time_zone,
        "counts": {state: counts[state] for state in map(str, WindowState) if counts[state]},
        "windows": [[each.window.start, each.state, each.rows, without_values(each.why)] for each in found],
        "end": found[-1].window.end if found else None,
    }


def _incidents(facts: Facts) -> list[dict[str, Any]]:
    """The open incidents, each with what shows it."""
    signs: dict[int, list[dict[str, Any]]] = {}
    for sign in facts["signs"]:
        signs.setdefault(sign.pop("incident_id"), []).append(sign)
    return [{**each, "signs": signs.get(each["incident_id"], [])} for each in facts["incidents"]]


def _schemas(manifest: Mapping[str, Any]) -> set[str]:
    return {node["schema"] for part in ("nodes", "sources") for node in manifest[part].values()}


def _is_newer(kept: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> bool:
    """Whether what was kept is of a later build than this machine's manifest: another worker's."""
    if kept is None or kept.get("format") != FORMAT:
        return False
    return bool(kept["graph"]["as_of"] > manifest["metadata"]["generated_at"])


def _plain(value: Any) -> Any:
    """The same as JSON has it: instants in UTC with a Z, everything else that is no number as its text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
