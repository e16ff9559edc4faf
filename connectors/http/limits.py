"""How patient the HTTP client is, and how much it asks of a source: what a definition may say about both."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.errors import ConfigurationError

_RETRIES_ALWAYS_ALLOWED = 10


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient the client is."""

    attempts: int = 8
    """For one answer. With the waits below a source may be away for some 25 seconds."""
    wait_initial: float = 0.2
    """Seconds, half as long or half as long again at random; doubles with each attempt."""
    wait_max: float = 30.0
    """Seconds between two attempts at most; a longer Retry-After is not waited for but fails at once."""
    share: float = 1.0
    """Retries of a whole load, as a share of its requests: a source that fails more often is given up. Ten are always
    allowed."""
    connect_timeout: float = 5.0
    """Seconds, and as many again for TLS."""
    read_timeout: float = 30.0
    """Seconds without a byte."""
    total_timeout: float = 300.0
    """Seconds for one whole answer: a source that sends a byte now and then is given up too."""

    def __post_init__(self) -> None:
        waits = (self.wait_initial, self.wait_max, self.share)
        timeouts = (self.connect_timeout, self.read_timeout, self.total_timeout)
        if self.attempts < 1 or min(waits) < 0 or not min(timeouts) > 0:
            raise ConfigurationError(
                f"{self} cannot be kept to.", remedy="Give one attempt or more, no negative wait, timeouts above zero."
            )

    def retries_of(self, requests: int) -> float:
        """How many retries a load is allowed that has made so many requests."""
        return max(_RETRIES_ALWAYS_ALLOWED, self.share * requests)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is asked of a source, and taken from it."""

    max_requests_per_second: float | None = None
    """Evenly spread; None for as many as the source answers."""
    max_concurrent_requests: int = 8
    max_body_bytes: int = 256 << 20
    """Of one answer, decompressed: the most that it is let grow to in memory."""

    def __post_init__(self) -> None:
        rate = self.max_requests_per_second
        if (rate is not None and not rate > 0) or self.max_concurrent_requests < 1 or self.max_body_bytes < 1:
            raise ConfigurationError(
                f"{self} lets nothing through.", remedy="Give numbers above zero; leave out what is not to be limited."
            )
