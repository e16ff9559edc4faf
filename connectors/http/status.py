"""What an answer's status and headers ask for: one table from status to action, and how long to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto


class Action(Enum):
    """What to do about a status."""

    ACCEPT = auto()
    FOLLOW = auto()
    """Ask where the answer points to, if that is the same origin and the request was a GET; otherwise fail."""
    RENEW = auto()
    """Ask once more with renewed credentials, if they are of a kind that can be renewed; otherwise fail."""
    RETRY = auto()
    """Ask again, not before the time that the answer names, if it names one."""
    FAIL = auto()


_REDIRECT = (
    Action.FOLLOW,
    "The source redirects; credentials are never sent on to another address.",
    "Put the final address into base_url.",
)
_PAGES = "Ask for smaller pages, or for fewer things at once."
_LASTS = "If it lasts, look at the source's status page, or ask its owner."

_BY_STATUS = {
    200: (Action.ACCEPT, "", ""),
    201: (Action.ACCEPT, "", ""),
    203: (Action.ACCEPT, "", ""),
    204: (Action.ACCEPT, "", ""),
    202: (Action.RETRY, "The source is still preparing its answer.", "Schedule the stream for when it is ready."),
    301: _REDIRECT,
    302: _REDIRECT,
    303: _REDIRECT,
    307: _REDIRECT,
    308: _REDIRECT,
    401: (
        Action.RENEW,
        "The credentials were refused.",
        "Check the key or token in its block or environment variable.",
    ),
    402: (Action.FAIL, "The source wants to be paid, or a quota is used up.", "Ask the source's owner."),
    403: (
        Action.FAIL,
        "The credentials do not allow this.",
        "Ask the source's owner for access to this path.",
    ),
    404: (Action.FAIL, "The path does not exist.", "Check base_url and the stream's path."),
    405: (Action.FAIL, "The path takes other methods only.", "Check in the source's manual whether it wants POST."),
    406: (Action.FAIL, "The source has no such format.", "Check the stream's format against the source's manual."),
    407: (Action.FAIL, "The proxy wants credentials.", "Put them into HTTPS_PROXY."),
    408: (Action.RETRY, "The source took too long.", _PAGES),
    409: (Action.RETRY, "Something else is under way at the source.", _LASTS),
    410: (
        Action.FAIL,
        "The path is gone for good, or the page's token has expired.",
        "Run again; if it lasts, look for its successor in the source's manual.",
    ),
    413: (Action.FAIL, "The source finds the request too large.", _PAGES),
    414: (Action.FAIL, "The source finds the address too long.", "Send the parameters in the body, if it takes POST."),
    415: (Action.FAIL, "The source does not take such a body.", "Check the stream's body against the source's manual."),
    422: (
        Action.FAIL,
        "The source understood the request and refuses its values.",
        "Check the stream's parameters against the source's manual.",
    ),
    423: (Action.RETRY, "The source has locked what was asked for.", _LASTS),
    425: (Action.RETRY, "The source is not ready.", _LASTS),
    429: (Action.RETRY, "The source limits the rate.", "Give the source's `limits` fewer requests a second."),
    431: (Action.FAIL, "The source finds the headers too large.", "Check the length of the credentials."),
    451: (Action.FAIL, "The source must not answer, for legal reasons.", "Ask the source's owner."),
    501: (Action.FAIL, "The source cannot do this.", "Check the stream's path against the source's manual."),
    505: (Action.FAIL, "The source does not speak HTTP/1.1.", "Ask the source's owner for another address."),
    511: (Action.FAIL, "A network in between wants a login.", "Look at the way from this machine to the source."),
}
"""Status → (action, what it means, what to do). Other 4xx fail, other 5xx are retried, all else fails."""


def action_for(status: int) -> tuple[Action, str, str]:
    """What a status means: the action, a sentence, and what to do."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Action.RETRY, "The source failed.", _LASTS
    if status >= 400:
        return (
            Action.FAIL,
            "The source refused the request.",
            "Check the stream's parameters against the source's manual.",
        )
    return Action.FAIL, "That is not a whole answer.", "Check the stream's path against the source's manual."


_LIMITED = (403, 429, 503)
"""Statuses by which sources say that a limit is used up."""
_COUNTERS = ("x-ratelimit-", "ratelimit-", "x-rate-limit-")
"""As GitHub and many others, GitLab and the IETF's draft, and X write the headers of a rate limit."""
_EPOCH = 1_000_000_000.0
"""A reset from here on is a point in time, in seconds since 1970; below it, seconds from now."""
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


def seconds_to_wait(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """How long an answer asks to be left alone: by Retry-After, or by the headers of a rate limit that is used up.

    Args:
        headers: by name in lower case.
        now: this machine's clock, which counts only where the answer does not say what the source's own shows.

    Returns:
        Seconds, zero or more; None when the answer does not say.
    """
    now = _date(headers.get("date", "")) or now
    if (seconds := retry_after_seconds(headers.get("retry-after"), now)) is not None:
        return seconds
    for prefix in _COUNTERS if status in _LIMITED else ():
        reset = headers.get(f"{prefix}reset", "").strip()
        if headers.get(f"{prefix}remaining", "").strip() == "0" and _NUMBER.fullmatch(reset):
            return max(0.0, float(reset) - now.timestamp()) if float(reset) >= _EPOCH else float(reset)
    return None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header in either of its forms (RFC 9110, 10.2.3): seconds or a date.

    A fraction is none of them, but is sent; None for anything else.
    """
    if value is None:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return float(value)
    at = _date(value)
    return max(0.0, (at - now).total_seconds()) if at is not None else None


def _date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return at.replace(tzinfo=at.tzinfo or UTC)
