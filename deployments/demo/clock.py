"""The demo's clock: one instant in `<home>/demo/clock` that moves when told to, and never back.

Going back would unsay what the source systems have already told, which no real source does. Before they have told
anything the clock may be set to any instant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployments.local.errors import LocalStackError
from deployments.local.files import locked, write_atomically
from deployments.local.layout import prepare

DEFAULT = datetime(2013, 12, 31, 17, tzinfo=UTC)
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?", re.ASCII)


def read(home: Path) -> datetime:
    """The instant it is in the demo; the last hours of 2013 if nobody ever set the clock."""
    path = _path(home)
    try:
        instant = datetime.fromisoformat(path.read_text().strip())
    except FileNotFoundError:
        return DEFAULT
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise LocalStackError(
            "The demo's clock holds no instant with a time zone.",
            where=str(path),
            remedy=f"Write one into it, as in {iso(DEFAULT)}, not earlier than the latest the demo has seen.",
        )
    return instant.astimezone(UTC)


def start(home: Path) -> datetime:
    """Fix where the clock stands, if nobody did; from now on it only moves forward."""
    return advance(home, timedelta())


def set_to(home: Path, instant: datetime) -> datetime:
    """Move the clock to `instant` (whole seconds count) and return where it stands now."""
    return _move(home, lambda _now: instant)


def advance(home: Path, by: timedelta) -> datetime:
    """Move the clock forward and return where it stands now."""
    return _move(home, lambda now: now + by)


def parse_duration(text: str) -> timedelta:
    """A duration such as `90m`, `6h`, `2d` or `1d12h`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise LocalStackError(
            f"`{text}` is not a duration.",
            where="the demo's clock",
            remedy="Write days, hours and minutes as in 2d, 6h, 90m or 1d12h.",
        )
    days, hours, minutes = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes)


def iso(instant: datetime) -> str:
    """The instant as the demo's systems write it: `2013-12-31T17:00:00Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class CachedClock:
    """The same clock for a reader who looks very often: the file is read again only when it was replaced."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._seen: tuple[int, int] | None = None
        self._instant = DEFAULT

    def now(self) -> datetime:
        try:
            status = _path(self._home).stat()
        except FileNotFoundError:
            return DEFAULT
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._seen:
            self._instant = read(self._home)
            self._seen = version
        return self._instant


def _move(home: Path, to: Callable[[datetime], datetime]) -> datetime:
    path = _path(home)
    prepare(home)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with locked(path.with_suffix(".lock"), doing="moving the demo's clock", timeout_seconds=10):
        now = read(home)
        try:
            instant = to(now).astimezone(UTC).replace(microsecond=0)
        except OverflowError:
            raise LocalStackError(
                "The demo's clock cannot be moved that far.", where=str(path), remedy="Move it by days, not millennia."
            ) from None
        if instant < now and path.exists():
            raise LocalStackError(
                f"The demo's clock stands at {iso(now)} and does not go back to {iso(instant)}.",
                where=str(path),
                remedy="Choose a later instant; to begin anew, destroy the local stack and bring it up again.",
            )
        write_atomically(path, iso(instant) + "\n")
        return instant


def _path(home: Path) -> Path:
    return home / "demo" / "clock"
